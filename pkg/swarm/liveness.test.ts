// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import type { StreamMuxerFactory } from "@libp2p/interface";
import { eventually } from "#routing/testing";
import { type LivenessOptions, watchLiveness } from "./liveness.ts";
import { openBareHost, testSignal as signal } from "./testing/nodes.ts";

/** A muxer and its connection under watch; `ping` is what the other side does when it is asked. */
function watched(
  options: LivenessOptions,
  ping: (signal: AbortSignal) => Promise<number>,
): { readonly muxer: { status: string; onData(data: unknown): void }; pings: number; ended: Error[] } {
  const seen = {
    pings: 0,
    ended: [] as Error[],
    muxer: {
      status: "open",
      onData: (_data: unknown): void => {},
      ping(each: { readonly signal: AbortSignal }): Promise<number> {
        seen.pings++;
        return ping(each.signal);
      },
      abort(): void {
        seen.muxer.status = "closed";
      },
    },
  };
  const factory = watchLiveness(
    () => ({ createStreamMuxer: () => seen.muxer }) as unknown as StreamMuxerFactory,
    options,
  )({});
  factory.createStreamMuxer({ abort: (error: Error) => void seen.ended.push(error) } as never);
  return seen;
}

const untilAborted = (each: AbortSignal): Promise<number> =>
  new Promise((_, reject) => each.addEventListener("abort", () => reject(each.reason as Error)));

describe("the watch over a connection", () => {
  it("ends a connection whose other side gives no sign of life", async () => {
    const seen = watched({ intervalMs: 2, timeoutMs: 5 }, untilAborted);
    await eventually(
      () => seen.ended.length,
      (count) => count === 1,
    );
    assert.match(String(seen.ended[0]), /no sign of life/);
    assert.equal(seen.muxer.status, "closed");
  });

  it("leaves a connection alone as long as its other side answers", async () => {
    const seen = watched({ intervalMs: 2, timeoutMs: 5 }, async () => 1);
    await eventually(
      () => seen.pings,
      (count) => count > 3,
    );
    assert.deepEqual(seen.ended, []);
    seen.muxer.status = "closed"; // ends the watch
  });

  it("takes anything that arrives for a sign of life, also while an answer is missing", async () => {
    const seen = watched({ intervalMs: 1, timeoutMs: 1 }, async (each) => {
      const missing = untilAborted(each);
      each.addEventListener("abort", () => seen.muxer.onData("late"), { once: true });
      return missing;
    });
    await eventually(
      () => seen.pings,
      (count) => count > 3,
    );
    assert.deepEqual(seen.ended, []);
    seen.muxer.status = "closed";
  });

  it("finds a node behind a network that swallows everything, and keeps one that is there", async () => {
    const liveness = { intervalMs: 100, timeoutMs: 3_000 };
    const gone: string[] = [];
    const events = { disconnected: (peer: { toString(): string }) => void gone.push(peer.toString()) };
    await using node = await openBareHost("127.0.0.2", undefined, { liveness, events });
    await using lost = await openBareHost("127.0.0.3");
    await using friend = await openBareHost("127.0.0.4");
    const sockets: Socket[] = [];
    const target = lost.endpoints()[0] as { ip: string; port: number };
    const network = createServer((socket) => {
      const onward = connect(target.port, target.ip);
      sockets.push(socket, onward);
      socket.pipe(onward).pipe(socket);
      for (const each of [socket, onward]) each.on("error", () => {});
    }).listen(0, "127.0.0.5");
    try {
      await once(network, "listening");
      const { port } = network.address() as AddressInfo;
      await node.connect([`/ip4/127.0.0.5/tcp/${port}/p2p/${lost.self.peerId.toString()}`], { signal });
      const [there] = friend.endpoints();
      await node.connect([`/ip4/${there?.ip}/tcp/${there?.port}/p2p/${friend.self.peerId.toString()}`], {
        signal,
      });
      for (const socket of sockets) socket.unpipe().pause();
      await eventually(
        () => gone,
        (ids) => ids.length > 0,
      );
      assert.deepEqual(gone, [lost.self.peerId.toString()]);
    } finally {
      network.close();
      for (const socket of sockets) socket.destroy();
    }
  });
});
