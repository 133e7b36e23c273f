// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Stream } from "@libp2p/interface";
import { hasCode } from "#errors";
import { contactNumber } from "../testing/virtual-swarm.ts";
import { type ChannelOptions, type ChannelPool, createChannelPool } from "./channel.ts";

const { signal } = new AbortController();
const peer = contactNumber(1);
const isUnreachable = (error: unknown): boolean => hasCode(error, "SWARM_PEER_UNREACHABLE");
const frame = (byte: number): Uint8Array => Uint8Array.of(1, byte);

/** The far end of a stream, moved by the test. */
class FakeStream extends EventTarget {
  status = "open";
  readonly asked: number[] = [];
  onSend: (stream: FakeStream) => void = () => {};

  send(data: Uint8Array): boolean {
    if (this.status !== "open") throw new Error("not open");
    this.asked.push(data[1] ?? 0);
    this.onSend(this);
    return true;
  }
  answer(...bytes: number[]): void {
    this.dispatchEvent(
      Object.assign(new Event("message"), { data: Uint8Array.from(bytes.flatMap((byte) => [1, byte])) }),
    );
  }
  close(): Promise<void> {
    return Promise.resolve(this.end("closed"));
  }
  abort(): void {
    this.end("aborted");
  }
  end(status: string): void {
    if (this.status !== "open") return;
    this.status = status;
    this.dispatchEvent(new Event("close"));
  }
}

interface Rig {
  readonly pool: ChannelPool;
  readonly streams: FakeStream[];
}

function open(options: ChannelOptions = {}, onOpen: (stream: FakeStream) => void = () => {}): Rig {
  const streams: FakeStream[] = [];
  const pool = createChannelPool(
    {
      now: () => performance.now(),
      async openStream() {
        const stream = new FakeStream();
        onOpen(stream);
        streams.push(stream);
        return stream as unknown as Stream;
      },
    },
    options,
  );
  return { pool, streams };
}

/** Answers each question with its own byte. */
const echo = (stream: FakeStream): void => {
  stream.onSend = ({ asked }) => queueMicrotask(() => stream.answer(asked.at(-1) ?? 0));
};

const ask = async (pool: ChannelPool, byte: number, contact = peer): Promise<number[]> => [
  ...(await pool.request(contact, frame(byte), { signal })),
];

describe("a channel", () => {
  it("gives answers in the order of the questions, over one stream", async () => {
    const { pool, streams } = open();
    using _ = pool;
    const answers = Promise.all([1, 2, 3].map((byte) => ask(pool, byte)));
    while (streams[0]?.asked.length !== 3) await new Promise((resolve) => setImmediate(resolve));
    streams[0].answer(11, 12);
    streams[0].answer(13);
    assert.deepEqual(await answers, [[11], [12], [13]]);
    assert.equal(streams.length, 1);
  });

  it("asks again over a new stream when the kept-open one was closed by the other side", async () => {
    for (const end of ["closed", "reset"]) {
      const { pool, streams } = open({}, echo);
      using _ = pool;
      assert.deepEqual(await ask(pool, 1), [1]);
      const [first] = streams;
      assert.ok(first);
      first.onSend = (stream) => stream.end(end);
      assert.deepEqual(await ask(pool, 2), [2]);
      assert.equal(streams.length, 2);
    }
  });

  it("uses a new stream after the other side ended the old one in between", async () => {
    const { pool, streams } = open({}, echo);
    using _ = pool;
    await ask(pool, 1);
    streams[0]?.dispatchEvent(new Event("remoteCloseWrite"));
    assert.deepEqual(await ask(pool, 2), [2]);
    assert.equal(streams.length, 2);
  });

  it("fails when a fresh stream is closed without an answer, cannot be opened, or answers nonsense", async () => {
    const closing = open({}, (stream) => {
      stream.onSend = () => stream.end("closed");
    });
    await assert.rejects(ask(closing.pool, 1), isUnreachable);
    const refusing = createChannelPool({
      now: () => 0,
      openStream: () => Promise.reject(new Error("refused")),
    });
    await assert.rejects(ask(refusing, 1), isUnreachable);
    const lying = open({}, (stream) => {
      stream.onSend = () =>
        stream.dispatchEvent(
          Object.assign(new Event("message"), { data: Uint8Array.of(255, 255, 255, 127) }),
        );
    });
    await assert.rejects(ask(lying.pool, 1), isUnreachable);
    for (const pool of [closing.pool, refusing, lying.pool]) pool[Symbol.dispose]();
  });

  it("gives up the stream when an answer takes too long: later ones could be taken for others", async () => {
    const { pool, streams } = open({ requestTimeoutMs: 10 });
    using _ = pool;
    await assert.rejects(ask(pool, 1), isUnreachable);
    assert.equal(streams[0]?.status, "aborted");
    assert.equal(streams.length, 1, "it is not asked twice");
  });

  it("ends with a peer that answers what nobody asked", async () => {
    const { pool, streams } = open({}, echo);
    using _ = pool;
    await ask(pool, 1);
    streams[0]?.answer(7);
    assert.equal(streams[0]?.status, "aborted");
    assert.deepEqual(await ask(pool, 2), [2]);
  });

  it("bounds the questions that wait", async () => {
    const { pool } = open({ maxPending: 2 });
    const waiting = [ask(pool, 1), ask(pool, 2)];
    await assert.rejects(ask(pool, 3), isUnreachable);
    pool[Symbol.dispose]();
    for (const each of waiting) await assert.rejects(each, isUnreachable);
  });

  it("is closed when it was not used for a while, or longest of too many", async () => {
    const idle = open({ idleTimeoutMs: 6 }, echo);
    await ask(idle.pool, 1);
    while (idle.pool.openChannels > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.equal(idle.streams[0]?.status, "aborted");
    assert.deepEqual(await ask(idle.pool, 2), [2]);
    idle.pool[Symbol.dispose]();

    const many = open({ maxChannels: 2 }, echo);
    for (const n of [1, 2, 1, 3]) await ask(many.pool, n, contactNumber(n));
    assert.deepEqual(
      many.streams.map(({ status }) => status),
      ["open", "aborted", "open"],
    );
    many.pool[Symbol.dispose]();
    assert.ok(many.streams.every(({ status }) => status === "aborted"));
  });

  it("asks nothing for a caller that has given up", async () => {
    const { pool, streams } = open({}, echo);
    using _ = pool;
    await assert.rejects(pool.request(peer, frame(1), { signal: AbortSignal.abort() }), {
      name: "AbortError",
    });
    assert.equal(streams.length, 0);
  });
});
