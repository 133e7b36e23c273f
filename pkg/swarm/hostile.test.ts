// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { describe, it } from "node:test";
import type { Stream } from "@libp2p/interface";
import { peerIdFromString } from "@libp2p/peer-id";
import { eventually } from "#routing/testing";
import { contactOf } from "./contact.ts";
import type { Host, HostOptions } from "./host.ts";
import type { Swarm } from "./index.ts";
import { binaryString, multihashOf } from "./key.ts";
import { createFrameReader } from "./protocol/frame.ts";
import { encodeAddProviders, encodeMessage, encodePeer, MessageType } from "./protocol/message.ts";
import { addressOf, find, openNode, testSignal as signal } from "./testing/nodes.ts";
import { contactNumber } from "./testing/virtual-swarm.ts";
import { openHostWith, proposeTo } from "./tls/testing.ts";

/** A stream from a stranger to the node. */
async function streamTo(node: Swarm, stranger: Host): Promise<Stream> {
  await stranger.connect([addressOf(node)], { signal });
  return stranger.openStream(contactOf(peerIdFromString(node.peerId)), { signal });
}

/** Resolves with the stream's end: "reset" or "closed". */
async function endOf(stream: Stream): Promise<string> {
  if (stream.status === "open" || stream.status === "closing")
    await once(stream as unknown as EventTarget, "close");
  return stream.status;
}

async function ask(stream: Stream, message: Parameters<typeof encodeMessage>[0]): Promise<Uint8Array> {
  const reader = createFrameReader();
  const answer = Promise.withResolvers<Uint8Array>();
  const listener = ({ data }: { readonly data: { subarray(): Uint8Array } }): void => {
    reader.push(data.subarray());
    const frame = reader.next();
    if (frame !== undefined) answer.resolve(frame);
  };
  stream.addEventListener("message", listener);
  stream.addEventListener("close", () => answer.reject(new Error("closed")));
  stream.send(encodeMessage(message));
  const frame = await answer.promise;
  stream.removeEventListener("message", listener);
  return frame;
}

const PING = { type: MessageType.PING };

function portOf(node: Swarm): number {
  return Number(node.addresses()[0]?.split("/")[4]);
}

/** The node still serves others. */
async function assertServing(node: Swarm): Promise<void> {
  await using friend = await openHostWith({ ip: "127.0.0.8", signal });
  assert.deepEqual([...(await ask(await streamTo(node, friend), PING))], [8, 5]);
}

for (const security of ["noise", "tls"] as const)
  describe(`a node among hostile peers that speak ${security}`, () => {
    const openStranger = (ip: string, serve: HostOptions["serve"] = () => {}): Promise<Host> =>
      openHostWith({ ip, serve, security: [security], signal });

    for (const [what, bytes] of [
      ["a frame over 4 MiB", Uint8Array.of(0x81, 0x80, 0x80, 0x02)],
      ["a length without end", Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff)],
      ["garbage", Buffer.concat([Uint8Array.of(40), Buffer.alloc(40, 0xa7)])],
      ["an unknown message type", Uint8Array.of(2, 8, 99)],
      ["a key that is too long", encodeMessage({ type: MessageType.GET_PROVIDERS, key: new Uint8Array(81) })],
      ["an empty message", Uint8Array.of(0)],
    ] as const) {
      it(`ends the stream of a peer that sends ${what}, and serves the others`, async () => {
        await using node = await openNode("127.0.0.2:0");
        await using stranger = await openStranger("127.0.0.7");
        const stream = await streamTo(node, stranger);
        assert.deepEqual([...(await ask(stream, PING))], [8, 5]);
        stream.send(bytes);
        assert.equal(await endOf(stream), "reset");
        await assertServing(node);
      });
    }

    it("keeps no record for another peer, nor one that leads nowhere", async () => {
      await using node = await openNode("127.0.0.2:0");
      await using stranger = await openStranger("127.0.0.7");
      const stream = await streamTo(node, stranger);
      const victim = contactNumber(1);
      const own = Buffer.from(stranger.self.id, "latin1");
      const add = (key: string, peer: Uint8Array): void =>
        void stream.send(
          encodeMessage({ type: MessageType.ADD_PROVIDER, key: multihashOf(key), providerPeers: [peer] }),
        );
      add("for another", victim.info);
      add("nowhere", encodePeer({ id: own, addresses: [Uint8Array.of(4, 0, 0, 0, 0, 6, 0, 80)] }));
      add("honest", encodePeer({ id: own, addresses: [Uint8Array.of(4, 127, 0, 0, 7, 6, 0, 80)] }));
      await ask(stream, PING);
      assert.deepEqual(await find(node, "for another"), []);
      assert.deepEqual(await find(node, "nowhere"), []);
      assert.deepEqual(
        (await find(node, "honest")).map(({ addresses }) => addresses),
        [["127.0.0.7"]],
      );
    });

    it("ends an idle stream, and one that never finishes its message", async () => {
      await using node = await openNode("127.0.0.2:0", [], { server: { idleTimeoutMs: 1_000 } });
      await using stranger = await openStranger("127.0.0.7");
      const idle = await streamTo(node, stranger);
      await ask(idle, PING);
      const unfinished = await streamTo(node, stranger);
      unfinished.send(Uint8Array.of(100, 1, 2, 3));
      assert.equal(await endOf(idle), "reset");
      assert.equal(await endOf(unfinished), "reset");
    });

    it("holds a bounded number of bytes of unfinished messages", async () => {
      await using node = await openNode("127.0.0.2:0", [], { server: { maxBufferedBytes: 100_000 } });
      await using stranger = await openStranger("127.0.0.7");
      const streams = await Promise.all([1, 2, 3].map(() => streamTo(node, stranger)));
      for (const stream of streams)
        stream.send(Buffer.concat([Uint8Array.of(0x80, 0x80, 0x80, 0x01), Buffer.alloc(60_000)]));
      assert.equal(await Promise.any(streams.map(endOf)), "reset");
      await assertServing(node);
    });

    it("bounds the streams of one connection and of all", async () => {
      await using node = await openNode("127.0.0.2:0", [], { server: { maxStreams: 3 } });
      await using stranger = await openStranger("127.0.0.7");
      const streams: Stream[] = [];
      for (let i = 0; i < 3; i++) {
        const stream = await streamTo(node, stranger);
        await ask(stream, PING);
        streams.push(stream);
      }
      await assert.rejects(async () => ask(await streamTo(node, stranger), PING));
      streams[0]?.abort(new Error("done"));
      await eventually(
        async () =>
          ask(await streamTo(node, stranger), PING).then(
            () => true,
            () => false,
          ),
        (served) => served,
      );
    });

    it("finds what honest nodes have, whatever a lying one answers", async () => {
      const lies: Record<string, (stream: Stream) => void> = {
        garbage: (stream) => void stream.send(Buffer.concat([Uint8Array.of(60), Buffer.alloc(60, 0xee)])),
        "too long": (stream) => void stream.send(Uint8Array.of(0xff, 0xff, 0xff, 0x7f)),
        nothing: () => {},
        "the end of the stream": (stream) => stream.abort(new Error("no")),
        "many unasked answers": (stream) =>
          void stream.send(Buffer.concat(Array.from({ length: 500 }, () => encodeMessage(PING)))),
        "made-up nodes": (stream) =>
          void stream.send(
            encodeMessage({
              type: MessageType.GET_PROVIDERS,
              closerPeers: Array.from({ length: 20 }, (_, n) => contactNumber(n).info),
            }),
          ),
      };
      for (const [what, lie] of Object.entries(lies)) {
        await using stack = new AsyncDisposableStack();
        const liar = stack.use(
          await openStranger("127.0.0.7", (stream) => stream.addEventListener("message", () => lie(stream))),
        );
        const holder = stack.use(await openNode("127.0.0.3:0"));
        const node = stack.use(
          await openNode("127.0.0.2:0", [addressOf(holder)], { channel: { requestTimeoutMs: 200 } }),
        );
        await liar.connect([addressOf(node)], { signal });
        await eventually(
          () => node.peerCount(),
          (count) => count === 2,
        );
        await holder.advertise(["k"], { signal });
        const found = await eventually(
          () => find(node, "k", 1),
          (peers) => peers.length > 0,
        );
        assert.deepEqual(found, [{ id: holder.peerId, addresses: ["127.0.0.3"] }], what);
        await find(node, "nobody has this");
      }
    });

    it("gives addresses of other kinds to nobody, and keeps the rest of such a provider", async () => {
      await using node = await openNode("127.0.0.2:0");
      await using stranger = await openStranger("127.0.0.7");
      const stream = await streamTo(node, stranger);
      const dns = Buffer.concat([Uint8Array.of(0x36, 4), Buffer.from("evil"), Uint8Array.of(6, 0, 80)]);
      const info = encodePeer({
        id: Buffer.from(stranger.self.id, "latin1"),
        addresses: [dns, Uint8Array.of(4, 127, 0, 0, 7, 6, 0, 80), Uint8Array.of(4, 127, 0, 0, 7, 6, 0, 81)],
      });
      stream.send(
        encodeMessage({ type: MessageType.ADD_PROVIDER, key: multihashOf("k"), providerPeers: [info] }),
      );
      await ask(stream, PING);
      assert.deepEqual(
        (await find(node, "k")).map(({ addresses }) => addresses),
        [["127.0.0.7"]],
      );
      const answer = await ask(stream, { type: MessageType.GET_PROVIDERS, key: multihashOf("k") });
      assert.ok(!Buffer.from(answer).includes("evil"));
    });

    it("keeps its own share for others when one peer floods it with records", async () => {
      await using node = await openNode("127.0.0.2:0", [], { providers: { maxRecords: 100 } });
      await using flooder = await openStranger("127.0.0.7");
      await using honest = await openStranger("127.0.0.8");
      const leave = async (host: Host, keys: readonly string[]): Promise<void> => {
        const stream = await streamTo(node, host);
        const info = encodePeer({
          id: Buffer.from(host.self.id, "latin1"),
          addresses: [Uint8Array.of(4, 127, 0, 0, 7, 6, 0, 80)],
        });
        for (let i = 0; i < keys.length; i += 250) {
          const hashes = keys.slice(i, i + 250).map((key) => binaryString(multihashOf(key)));
          stream.send(encodeAddProviders(hashes, info));
          await ask(stream, PING);
        }
      };
      await leave(
        flooder,
        Array.from({ length: 3_000 }, (_, i) => `flood ${i}`),
      );
      await leave(honest, ["honest"]);
      await leave(
        flooder,
        Array.from({ length: 3_000 }, (_, i) => `more ${i}`),
      );
      assert.deepEqual(
        (await find(node, "honest", 1)).map(({ id }) => id),
        [honest.self.peerId.toString()],
      );
    });

    it("answers others while one peer asks without end and reads nothing", async () => {
      await using node = await openNode("127.0.0.2:0");
      await using greedy = await openStranger("127.0.0.7");
      const stream = await streamTo(node, greedy);
      await ask(stream, PING);
      stream.pause(); // its window fills with answers, and then nothing more is taken from it
      const questions = Buffer.concat(
        Array.from({ length: 500 }, () =>
          encodeMessage({ type: MessageType.PUT_VALUE, key: new Uint8Array(80) }),
        ),
      );
      for (let i = 0; i < 200 && stream.send(questions); i++);
      await assertServing(node);
    });

    it("holds only so many connections that go no further than the proposal, and lets them go", async () => {
      await using node = await openNode("127.0.0.2:0");
      const target = { host: "127.0.0.2", port: portOf(node), localAddress: "127.0.0.77" };
      const proposed = await Promise.allSettled(
        Array.from({ length: 150 }, () => proposeTo(target, security)),
      );
      await assertServing(node);
      const open = proposed.filter((each) => each.status === "fulfilled").map(({ value }) => value);
      assert.ok(open.length > 0 && open.length <= 100, `${open.length} of 150`);
      for (const socket of open) {
        socket.resume();
        if (!socket.destroyed) await new Promise((resolve) => socket.once("close", resolve));
      }
    });

    it("dials a dead node once in a while, however often it is named", async () => {
      let dials = 0;
      const dead = createServer((socket) => {
        dials++;
        socket.destroy();
      }).listen(0, "127.0.0.9");
      await once(dead, "listening");
      try {
        const { port } = dead.address() as AddressInfo;
        const info = encodePeer({
          id: Buffer.from(contactNumber(4).id, "latin1"),
          addresses: [Uint8Array.of(4, 127, 0, 0, 9, 6, port >> 8, port & 255)],
        });
        await using liar = await openStranger("127.0.0.7", (stream) =>
          stream.addEventListener(
            "message",
            () => void stream.send(encodeMessage({ type: MessageType.GET_PROVIDERS, closerPeers: [info] })),
          ),
        );
        await using node = await openNode("127.0.0.2:0");
        await liar.connect([addressOf(node)], { signal });
        await eventually(
          () => node.peerCount(),
          (count) => count === 1,
        );
        await find(node, "first");
        await eventually(
          () => dials,
          (count) => count > 0,
        );
        const dialsBefore = dials;
        for (let i = 0; i < 20; i++) await find(node, `key ${i}`);
        assert.ok(dials - dialsBefore <= 2, `${dials - dialsBefore} dials for 20 look-ups`);
      } finally {
        dead.close();
      }
    });
  });

describe("a node among peers that say nothing", () => {
  it("holds only so many of their connections, and lets them go", async () => {
    await using node = await openNode("127.0.0.2:0");
    const ends: Promise<unknown>[] = [];
    for (let i = 0; i < 150; i++) {
      const socket = connect({ host: "127.0.0.2", port: portOf(node), localAddress: "127.0.0.77" });
      socket.on("error", () => {});
      socket.resume();
      ends.push(new Promise((resolve) => socket.on("close", resolve)));
    }
    await assertServing(node);
    await Promise.all(ends);
  });
});
