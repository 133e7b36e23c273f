// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import type { Peer, Router } from "./router.ts";

/** Two routers of one swarm, joined and ready, and how to leave it. */
export interface RouterPair extends AsyncDisposable {
  readonly a: Router;
  readonly b: Router;
  /** The address under which `b` must see `a`. */
  readonly addressOfA: string;
}

/** What every Router must do. `open` gives a fresh, connected pair. */
export function describeRouterCompliance(name: string, open: () => Promise<RouterPair>): void {
  describe(`${name} complies with Router`, () => {
    const signal = AbortSignal.timeout(60_000);

    async function find(router: Router, key: string, count = 3): Promise<Peer[]> {
      const found: Peer[] = [];
      for await (const peer of router.lookup(key, { count, signal })) found.push(peer);
      return found;
    }

    it("finds on one node what the other advertises", async () => {
      await using pair = await open();
      const key = `sha256:${randomUUID()}`;
      await pair.a.advertise([key], { signal });
      const [peer, ...others] = await eventually(
        () => find(pair.b, key),
        (peers) => peers.length > 0,
      );
      assert.deepEqual(others, []);
      assert.ok(peer?.addresses.includes(pair.addressOfA), `addresses are ${peer?.addresses.join(", ")}`);
    });

    it("never gives the asking node itself", async () => {
      await using pair = await open();
      const key = `docker.io/library/busybox:${randomUUID()}`;
      await pair.a.advertise([key], { signal });
      assert.deepEqual(await find(pair.a, key), []);
    });

    it("ends without peers for a key nobody has", async () => {
      await using pair = await open();
      assert.deepEqual(await find(pair.b, `sha256:${randomUUID()}`), []);
    });

    it("gives a key a moment after it was asked for in vain", async () => {
      await using pair = await open();
      const key = `sha256:${randomUUID()}`;
      assert.deepEqual(await find(pair.b, key), []);
      await pair.a.advertise([key], { signal });
      await eventually(
        () => find(pair.b, key),
        (peers) => peers.length === 1,
      );
    });

    it("accepts the same key twice and an empty list", async () => {
      await using pair = await open();
      const key = `sha256:${randomUUID()}`;
      await pair.a.advertise([key, key], { signal });
      await pair.a.advertise([key], { signal });
      await pair.a.advertise([], { signal });
      await eventually(
        () => find(pair.b, key),
        (peers) => peers.length === 1,
      );
    });

    it("ignores the withdrawal of a key it does not know", async () => {
      await using pair = await open();
      await pair.a.withdraw([`sha256:${randomUUID()}`], { signal });
    });

    it("ends a look-up quietly when the signal aborts", async () => {
      await using pair = await open();
      const aborted = AbortSignal.abort();
      const found: Peer[] = [];
      for await (const peer of pair.b.lookup("sha256:any", { count: 3, signal: aborted })) found.push(peer);
      assert.deepEqual(found, []);
    });

    it("serves many look-ups of one key at once", async () => {
      await using pair = await open();
      const key = `sha256:${randomUUID()}`;
      await pair.a.advertise([key], { signal });
      await eventually(
        () => find(pair.b, key),
        (peers) => peers.length === 1,
      );
      const all = await Promise.all(Array.from({ length: 32 }, () => find(pair.b, key)));
      assert.ok(all.every((peers) => peers.length === 1));
    });
  });
}

/** Repeats `ask` until `accept` holds; the test's own time limit bounds it. */
export async function eventually<T>(
  ask: () => Promise<T> | T,
  accept: (value: T) => boolean,
  limitMs = 20_000,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const value = await ask();
    if (accept(value)) return value;
    if (performance.now() > deadline)
      assert.fail(`not reached within ${limitMs} ms; last value: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
