// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Connection, Stream } from "@libp2p/interface";
import { silentLogger } from "#log";
import { contactNumber } from "../testing/virtual-swarm.ts";
import { createProtocolServer, type ProtocolServer } from "./server.ts";

const connection = { remotePeer: contactNumber(1).peerId } as unknown as Connection;

/** The part of a libp2p stream that the server uses, moved by the test. */
class FakeStream extends EventTarget {
  status = "open";
  readStatus = "readable";
  readonly sent: number[] = [];
  /** Answers that fit before the peer has to read. */
  room = Infinity;

  send(data: Uint8Array): boolean {
    this.sent.push(...data);
    return --this.room > 0;
  }
  pause(): void {
    this.readStatus = "paused";
  }
  resume(): void {
    this.readStatus = "readable";
  }
  async close(): Promise<void> {
    this.end("closed");
  }
  abort(): void {
    this.end("aborted");
  }
  end(status: string): void {
    this.status = status;
    this.dispatchEvent(new Event("close"));
  }
  receive(...bytes: number[]): void {
    this.dispatchEvent(Object.assign(new Event("message"), { data: Uint8Array.from(bytes) }));
  }
  drain(room: number): void {
    this.room = room;
    this.dispatchEvent(new Event("drain"));
  }
}

/** A server that answers a message of one byte with that byte, and none of two. */
function open(options: Parameters<typeof createProtocolServer>[1] = {}): {
  server: ProtocolServer;
  stream: FakeStream;
  another(): FakeStream;
} {
  const server = createProtocolServer(
    {
      logger: silentLogger,
      now: () => 0,
      answer: (_, frame) => (frame.length === 1 ? Uint8Array.from(frame) : undefined),
    },
    options,
  );
  const another = (): FakeStream => {
    const stream = new FakeStream();
    server.serve(stream as unknown as Stream, connection);
    return stream;
  };
  return { server, stream: another(), another };
}

describe("the protocol server", () => {
  it("answers in order, and not what wants no answer", () => {
    const { stream, server } = open();
    using _ = server;
    stream.receive(1, 11, 2, 0, 0, 1, 12, 1);
    stream.receive(13);
    assert.deepEqual(stream.sent, [11, 12, 13]);
  });

  it("stops answering and reading while the peer does not read, and goes on from there", () => {
    const { stream, server } = open();
    using _ = server;
    stream.room = 2;
    stream.receive(1, 11, 1, 12, 1, 13, 1, 14, 1, 15);
    assert.deepEqual(stream.sent, [11, 12]);
    assert.equal(stream.readStatus, "paused");
    stream.drain(2);
    assert.deepEqual(stream.sent, [11, 12, 13, 14]);
    assert.equal(stream.readStatus, "paused");
    stream.drain(9);
    assert.deepEqual(stream.sent, [11, 12, 13, 14, 15]);
    assert.equal(stream.readStatus, "readable");
  });

  it("ends a stream that the peer has ended, when all is answered", () => {
    const { stream, server, another } = open();
    using _ = server;
    stream.room = 1;
    stream.receive(1, 11, 1, 12);
    stream.dispatchEvent(new Event("remoteCloseWrite"));
    assert.equal(stream.status, "open");
    stream.drain(9);
    assert.deepEqual(stream.sent, [11, 12]);
    assert.equal(stream.status, "closed");
    const simple = another();
    simple.dispatchEvent(new Event("remoteCloseWrite"));
    assert.equal(simple.status, "closed");
    assert.equal(server.openStreams, 0);
  });

  it("counts unfinished messages over all streams, and gives the room back when one ends", () => {
    const { stream, server, another } = open({ maxBufferedBytes: 10 });
    using _ = server;
    stream.receive(100, 1, 2, 3, 4, 5);
    const second = another();
    second.receive(100, 1, 2, 3, 4, 5);
    assert.deepEqual([stream.status, second.status], ["open", "aborted"]);
    stream.end("closed");
    const third = another();
    third.receive(100, 1, 2, 3, 4, 5);
    assert.equal(third.status, "open");
  });

  it("resets one stream too many, and all when it stops", () => {
    const { stream, server, another } = open({ maxStreams: 2 });
    const second = another();
    const third = another();
    assert.deepEqual([stream.status, second.status, third.status], ["open", "open", "aborted"]);
    second.end("closed");
    const fourth = another();
    assert.equal(fourth.status, "open");
    server[Symbol.dispose]();
    assert.deepEqual([stream.status, fourth.status], ["aborted", "aborted"]);
  });
});
