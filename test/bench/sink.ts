// SPDX-License-Identifier: Apache-2.0
/**
 * Receives HTTP bodies as cheaply as a process can, so that the measured server is the bottleneck: the kernel
 * discards the bytes (MSG_TRUNC) instead of copying them here. Needs `node:ffi`.
 *
 *   node sink.ts '{"port":8080,"paths":["/a"],"connections":1,"requests":3,"keepAlive":false}'
 *
 * With `keepAlive` each connection carries many requests, and heads must have the same length every time. Prints one line of JSON.
 */
import { dlopen, getRawPointer } from "node:ffi";

export interface SinkTask {
  readonly port: number;
  readonly paths: readonly string[];
  readonly connections: number;
  readonly requests: number;
  readonly keepAlive: boolean;
}

export interface SinkResult {
  readonly seconds: number;
  readonly bytes: number;
  readonly requests: number;
  /** Requests that were not answered with 200 or with another number of bytes than promised. */
  readonly bad: number;
  /** Longest time until the first byte of a head. */
  readonly firstByteMs: number;
}

const AF_INET = 2;
const SOCK_STREAM = 1;
const MSG_PEEK = 0x02;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const POLLIN = 1;

const { functions: c } = dlopen(null, {
  socket: { arguments: ["int32", "int32", "int32"], return: "int32" },
  connect: { arguments: ["int32", "pointer", "uint32"], return: "int32" },
  send: { arguments: ["int32", "pointer", "uint64", "int32"], return: "int64" },
  recv: { arguments: ["int32", "pointer", "uint64", "int32"], return: "int64" },
  poll: { arguments: ["pointer", "uint64", "int32"], return: "int32" },
  close: { arguments: ["int32"], return: "int32" },
});

interface Connection {
  fd: number;
  readonly slot: number;
  /** Bytes of the present response that are still to come; undefined before its head. */
  left: number | undefined;
  /** Bytes of a whole response, head and body, of a connection that is kept. */
  responseBytes: number | undefined;
  startedMs: number;
}

const scratch = Buffer.allocUnsafeSlow(64 * 1024);
const scratchPointer = getRawPointer(scratch);

function run(task: SinkTask): SinkResult {
  const pollCells = Buffer.alloc(8 * task.connections);
  const pollPointer = getRawPointer(pollCells);
  const connections: Connection[] = [];
  let started = 0;
  let done = 0;
  let bad = 0;
  let bytes = 0;
  let firstByteMs = 0;
  const startMs = performance.now();

  for (let slot = 0; slot < Math.min(task.connections, task.requests); slot++) {
    const connection: Connection = { fd: -1, slot, left: undefined, responseBytes: undefined, startedMs: 0 };
    connections.push(connection);
    begin(connection);
  }
  while (done < task.requests) {
    if (c.poll(pollPointer, BigInt(task.connections), 60_000) <= 0) throw new Error("no bytes for 60 s");
    for (const connection of connections) {
      if (connection.fd >= 0 && pollCells.readInt16LE(8 * connection.slot + 6) !== 0) receive(connection);
    }
  }
  const seconds = (performance.now() - startMs) / 1000;
  return { seconds, bytes, requests: done, bad, firstByteMs };

  function begin(connection: Connection): void {
    if (started === task.requests) {
      finishConnection(connection);
      return;
    }
    const path = task.paths[started++ % task.paths.length];
    if (connection.fd < 0) {
      connection.fd = dial(task.port);
      pollCells.writeInt32LE(connection.fd, 8 * connection.slot);
      pollCells.writeInt16LE(POLLIN, 8 * connection.slot + 4);
    }
    connection.startedMs = performance.now();
    connection.left = connection.responseBytes;
    const request = Buffer.from(
      `GET ${path} HTTP/1.1\r\nHost: bench\r\n${task.keepAlive ? "" : "Connection: close\r\n"}\r\n`,
    );
    c.send(connection.fd, getRawPointer(request), BigInt(request.length), 0);
  }

  function finishConnection(connection: Connection): void {
    c.close(connection.fd);
    connection.fd = -1;
    pollCells.writeInt32LE(-1, 8 * connection.slot);
  }

  function receive(connection: Connection): void {
    for (let round = 0; round < 16; round++) {
      if (connection.left === undefined && !readHead(connection)) return;
      const count = Number(c.recv(connection.fd, 0n, 1n << 24n, MSG_TRUNC | MSG_DONTWAIT));
      if (count < 0) return;
      bytes += count;
      connection.left = (connection.left ?? 0) - count;
      if (count > 0 && connection.left > 0) continue;
      if (connection.left !== 0) bad++;
      done++;
      if (!task.keepAlive || count === 0) finishConnection(connection);
      begin(connection);
      return;
    }
  }

  /** Peeks until the head is complete, then knows how long the response is; the head stays in the socket. */
  function readHead(connection: Connection): boolean {
    const count = Number(
      c.recv(connection.fd, scratchPointer, BigInt(scratch.length), MSG_PEEK | MSG_DONTWAIT),
    );
    const end = count > 0 ? scratch.subarray(0, count).indexOf("\r\n\r\n") : -1;
    if (end < 0 && count !== 0) return false;
    const head = scratch.toString("latin1", 0, Math.max(0, end));
    const length = /\r\ncontent-length: *([0-9]+)/i.exec(head)?.[1];
    if (!head.startsWith("HTTP/1.1 200") || length === undefined) bad++;
    connection.left = end + 4 + Number(length ?? 0);
    if (task.keepAlive) connection.responseBytes = connection.left;
    firstByteMs = Math.max(firstByteMs, performance.now() - connection.startedMs);
    return true;
  }
}

function dial(port: number): number {
  const fd = c.socket(AF_INET, SOCK_STREAM, 0);
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  address.set([127, 0, 0, 1], 4);
  if (c.connect(fd, getRawPointer(address), address.length) !== 0)
    throw new Error(`cannot connect to port ${port}`);
  return fd;
}

process.stdout.write(`${JSON.stringify(run(JSON.parse(process.argv[2] ?? "") as SinkTask))}\n`);
