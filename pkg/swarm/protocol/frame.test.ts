// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { hasCode } from "#errors";
import { createFrameReader, MAX_FRAME_BYTES } from "./frame.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

function frame(payload: Uint8Array): Buffer {
  const length: number[] = [];
  let rest = payload.length;
  for (; rest >= 0x80; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([...length, rest]), payload]);
}

/** Reads as the server does: all that is there after each chunk. */
function readAll(chunks: readonly Uint8Array[], maxFrameBytes?: number): Buffer[] {
  const reader = createFrameReader(maxFrameBytes === undefined ? {} : { maxFrameBytes });
  const frames: Buffer[] = [];
  for (const chunk of chunks) {
    reader.push(chunk);
    for (let next = reader.next(); next !== undefined; next = reader.next()) frames.push(Buffer.from(next));
  }
  return frames;
}

function cut(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return places.slice(1).map((end, i) => bytes.subarray(places[i], end));
}

describe("a frame reader", () => {
  it("gives the frames that were written, however the bytes were cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 400 })),
        fc.array(fc.nat(), { maxLength: 20 }),
        (payloads, cuts) => {
          const chunks = cut(Buffer.concat(payloads.map(frame)), cuts);
          assert.deepEqual(
            readAll(chunks),
            payloads.map((payload) => Buffer.from(payload)),
          );
        },
      ),
    );
  });

  it("gives a long frame that comes in small pieces", () => {
    const payload = Buffer.alloc(300_000, 7);
    const bytes = frame(payload);
    const chunks = Array.from({ length: Math.ceil(bytes.length / 1000) }, (_, i) =>
      bytes.subarray(i * 1000, i * 1000 + 1000),
    );
    assert.deepEqual(readAll(chunks), [payload]);
  });

  it("refuses a frame over the limit as soon as its length is there", () => {
    for (const length of [
      [0x81, 0x80, 0x80, 0x02],
      [0xff, 0xff, 0xff, 0x7f],
    ]) {
      assert.throws(
        () => readAll([Uint8Array.from(length)]),
        (error) => hasCode(error, "SWARM_MESSAGE_INVALID"),
      );
    }
    assert.throws(
      () => readAll([frame(Buffer.alloc(101))], 100),
      (error) => hasCode(error, "SWARM_MESSAGE_INVALID"),
    );
    assert.equal(readAll([frame(Buffer.alloc(100))], 100).length, 1);
  });

  it("refuses a length that does not end", () => {
    assert.throws(
      () => readAll([Buffer.alloc(10, 0xff)]),
      (error) => hasCode(error, "SWARM_MESSAGE_INVALID"),
    );
  });

  it("tells how much waits for the rest of its frame", () => {
    const reader = createFrameReader();
    reader.push(frame(Buffer.alloc(10)).subarray(0, 4));
    assert.equal(reader.next(), undefined);
    assert.equal(reader.bufferedBytes, 4);
    reader.push(Buffer.alloc(7));
    assert.equal(reader.next()?.length, 10);
    assert.equal(reader.bufferedBytes, 0);
  });

  it("does not keep alive what it has given", async () => {
    const reader = createFrameReader();
    const read = (): WeakRef<ArrayBufferLike> => {
      const chunk = Uint8Array.from(frame(new Uint8Array(10_000)));
      reader.push(chunk);
      assert.equal(reader.next()?.length, 10_000);
      return new WeakRef(chunk.buffer);
    };
    const buffer = read();
    await nextTurn(); // a weak reference holds its target until the end of its turn
    collectGarbage();
    assert.equal(buffer.deref(), undefined);
    assert.equal(reader.bufferedBytes, 0);
  });

  it("reads or refuses any bytes, and never holds more than one frame of them", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 20 }), (chunks) => {
        const reader = createFrameReader();
        try {
          for (const chunk of chunks) {
            reader.push(chunk);
            while (reader.next() !== undefined);
            assert.ok(reader.bufferedBytes <= MAX_FRAME_BYTES + 4);
          }
        } catch (error) {
          assert.ok(hasCode(error, "SWARM_MESSAGE_INVALID"));
        }
      }),
    );
  });
});
