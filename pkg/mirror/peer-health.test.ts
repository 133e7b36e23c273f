// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createPeerHealth } from "./peer-health.ts";

describe("the health of peers", () => {
  it("leaves a peer out for longer each time it is in trouble again, up to a bound, and forgets", () => {
    let nowMs = 0;
    const health = createPeerHealth({ avoidMs: 10, maxAvoidMs: 35, limit: 10, now: () => nowMs });
    const lasts = (): number => {
      const startedMs = nowMs;
      while (!health.usable("peer")) nowMs++;
      return nowMs - startedMs;
    };
    assert.equal(lasts(), 0);
    for (const expected of [10, 20, 35, 35]) {
      health.avoid("peer");
      assert.equal(lasts(), expected);
    }
    nowMs += 35;
    health.avoid("peer");
    assert.equal(lasts(), 10);
  });

  it("takes trouble of several requests at the same time for one", () => {
    let nowMs = 0;
    const health = createPeerHealth({ avoidMs: 10, limit: 10, now: () => nowMs });
    for (let each = 0; each < 5; each++) health.avoid("peer");
    nowMs = 10;
    assert.ok(health.usable("peer"));
  });

  it("remembers no more peers than its limit, the oldest go first", () => {
    const health = createPeerHealth({ avoidMs: 10, limit: 2, now: () => 0 });
    for (const peer of ["a", "b", "c"]) health.avoid(peer);
    assert.deepEqual(["a", "b", "c"].map(health.usable), [true, false, false]);
  });
});
