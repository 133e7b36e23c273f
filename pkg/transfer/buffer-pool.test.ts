// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type BufferLease, createBufferPool } from "./buffer-pool.ts";
import { noAbort, until } from "./testing.ts";

const MIB = 1024 * 1024;

describe("createBufferPool", () => {
  test("few leases are large, many are small, and the bound holds", async () => {
    const pool = createBufferPool({ limitBytes: 12 * MIB });
    const sizes: number[] = [];
    for (let count = 0; count < 128; count++) {
      sizes.push((await pool.lease({ signal: noAbort })).buffer.length / 1024);
    }
    assert.deepEqual([...new Set(sizes)], [512, 256, 128, 64, 32]);
    assert.deepEqual(
      [512, 256, 128, 64].map((size) => sizes.lastIndexOf(size)),
      [7, 15, 31, 63],
    );
    assert.equal(pool.leasedBytes, 12 * MIB);
  });

  test("64 transfers at once take at most 10 MiB", async () => {
    const pool = createBufferPool();
    for (let count = 0; count < 64; count++) await pool.lease({ signal: noAbort });
    assert.ok(pool.leasedBytes <= 10 * MIB, String(pool.leasedBytes));
  });

  test("a buffer is used again, and releasing twice counts once", async () => {
    const pool = createBufferPool();
    const first = await pool.lease({ signal: noAbort });
    first.release();
    first.release();
    assert.equal(pool.leasedBytes, 0);
    assert.equal(pool.freeBytes, first.buffer.length);
    const second = await pool.lease({ signal: noAbort });
    assert.equal(second.buffer, first.buffer);
    assert.equal(pool.freeBytes, 0);
  });

  test("beyond the bound leases wait in order; an aborted one leaves the queue", async () => {
    const pool = createBufferPool({ limitBytes: MIB });
    const held: BufferLease[] = [];
    const got: string[] = [];
    while (pool.leasedBytes + 32 * 1024 <= MIB) held.push(await pool.lease({ signal: noAbort }));
    const stop = new AbortController();
    const gone = pool.lease({ signal: stop.signal });
    const waiting = ["a", "b"].map(async (name) => {
      const lease = await pool.lease({ signal: noAbort });
      got.push(name);
      return lease;
    });
    stop.abort(new Error("enough"));
    await assert.rejects(gone, /enough/);
    assert.deepEqual(got, []);
    for (const lease of held.splice(0)) lease.release();
    for (const lease of await Promise.all(waiting)) lease.release();
    assert.deepEqual(got, ["a", "b"]);
    assert.equal(pool.leasedBytes, 0);
  });

  test("idle buffers are given back after a while", async () => {
    const pool = createBufferPool({ idleTimeoutMs: 5 });
    const lease = await pool.lease({ signal: noAbort });
    lease.release();
    assert.ok(pool.freeBytes > 0);
    await until(() => pool.freeBytes === 0);
    assert.equal(lease.buffer.buffer.byteLength, 0, "the memory itself is freed, not only forgotten");
  });

  test("lent and free bytes together never exceed the bound, whatever the order", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 40 }), { maxLength: 150 }), async (steps) => {
        const pool = createBufferPool({ limitBytes: 4 * MIB });
        const held: BufferLease[] = [];
        let expected = 0;
        for (const step of steps) {
          if (step > 12 && pool.leasedBytes + 32 * 1024 <= 4 * MIB) {
            const lease = await pool.lease({ signal: noAbort });
            held.push(lease);
            expected += lease.buffer.length;
          } else {
            const [lease] = held.splice(step % Math.max(1, held.length), 1);
            lease?.release();
            expected -= lease?.buffer.length ?? 0;
          }
          assert.equal(pool.leasedBytes, expected);
          assert.ok(pool.leasedBytes + pool.freeBytes <= 4 * MIB);
        }
        for (const lease of held) lease.release();
        assert.equal(pool.leasedBytes, 0);
      }),
      { numRuns: 50 },
    );
  });
});
