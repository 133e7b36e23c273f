// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { createSocketBudget, type SocketShare } from "./socket-budget.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

describe("createSocketBudget", () => {
  test("gives the first transfers much and the hundredth little, together no more than the bound", () => {
    const budget = createSocketBudget(8 * MIB);
    const leases = Array.from({ length: 128 }, () => budget.lease());
    assert.deepEqual([leases[4]?.isSmall, leases[5]?.isSmall], [false, true]);
    const shares = leases.map(({ sizeBytes }) => sizeBytes);
    assert.equal(shares[0], 2 * MIB);
    assert.equal(shares.at(-1), 64 * KIB);
    assert.deepEqual(
      shares,
      shares.toSorted((a, b) => b - a),
    );
    assert.ok(budget.leasedBytes < 8 * MIB + 128 * 64 * KIB);
  });

  test("has all of it again when all shares are back, in whatever order and how often they are given back", () => {
    const step = fc.record({ take: fc.boolean(), which: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const budget = createSocketBudget(4 * MIB);
        const open: SocketShare[] = [];
        for (const { take, which } of steps) {
          if (take || open.length === 0) open.push(budget.lease());
          else open.splice(which % open.length, 1)[0]?.release();
          const smallest = open.filter((share) => share.sizeBytes === 64 * KIB).length;
          assert.ok(budget.leasedBytes <= 4 * MIB + smallest * 64 * KIB);
        }
        for (const share of [...open, ...open]) share.release();
        assert.equal(budget.leasedBytes, 0);
        assert.equal(budget.lease().sizeBytes, MIB);
      }),
    );
  });
});
