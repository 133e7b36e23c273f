// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createPeerHealth } from "./peer-health.ts";

describe("the health of peers", () => {
  it("leaves a peer out for a while and no longer", () => {
    let nowMs = 0;
    const health = createPeerHealth({ avoidMs: 10, limit: 10, now: () => nowMs });
    health.avoid("peer");
    const usable: boolean[] = [];
    for (; nowMs <= 10; nowMs += 5) usable.push(health.usable("peer"));
    assert.deepEqual(usable, [false, false, true]);
  });

  it("remembers no more peers than its limit, the oldest go first", () => {
    const health = createPeerHealth({ avoidMs: 10, limit: 2, now: () => 0 });
    for (const peer of ["a", "b", "c"]) health.avoid(peer);
    assert.deepEqual(["a", "b", "c"].map(health.usable), [true, false, false]);
  });
});
