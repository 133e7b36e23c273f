// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { array, constantFrom, assert as holds, integer, property, uint8Array } from "fast-check";
import { SwarmError } from "../errors.ts";
import { encodeDer, encodeObjectId, readDerInside, readDerValues, Tag } from "./der.ts";

const isRefusal = (err: unknown): boolean =>
  err instanceof SwarmError && err.code === "SWARM_CERTIFICATE_INVALID" && err.message.length < 200;
const tags = constantFrom(...Object.values(Tag));
const values = array(
  uint8Array({ maxLength: 400 }).chain((content) => tags.map((tag) => ({ tag, content }))),
  {
    maxLength: 8,
  },
);
const encode = (list: readonly { readonly tag: number; readonly content: Uint8Array }[]): Uint8Array =>
  Buffer.concat(list.map(({ tag, content }) => encodeDer(tag, content)));

describe("the DER reader", () => {
  it("reads what was written, and its pieces are all of the bytes", () => {
    holds(
      property(values, (list) => {
        const bytes = encode(list);
        const read = readDerValues(bytes);
        assert.deepEqual(
          read.map(({ tag, content }) => ({ tag, content: [...content] })),
          list.map(({ tag, content }) => ({ tag, content: [...content] })),
        );
        assert.deepEqual(Buffer.concat(read.map(({ encoded }) => encoded)), Buffer.from(bytes));
      }),
    );
  });

  it("reads any bytes as values that fill them, or refuses them", () => {
    holds(
      property(uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          const read = readDerValues(bytes);
          // Only the shortest form of each value was read.
          assert.deepEqual(Buffer.from(encode(read)), Buffer.from(bytes));
        } catch (err) {
          if (!isRefusal(err)) throw err;
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("refuses a value that is cut short at any place", () => {
    holds(
      property(tags, uint8Array({ maxLength: 400 }), integer({ min: 1, max: 500 }), (tag, content, cut) => {
        const bytes = encodeDer(tag, content);
        const shorter = bytes.subarray(0, Math.max(1, bytes.length - cut));
        assert.throws(() => readDerValues(shorter), isRefusal);
      }),
    );
  });

  for (const [what, bytes] of [
    ["an indefinite length", [0x30, 0x80, 0, 0]],
    ["a length of four bytes", [0x30, 0x84, 0xff, 0xff, 0xff, 0xff]],
    ["a length of more bytes than there are", [0x30, 0xff, 1]],
    ["a length longer than its bytes", [0x30, 0x82, 0xff, 0xff, 1, 2, 3]],
    ["a short length in the long form", [0x04, 0x81, 1, 7]],
    ["a long length with a leading zero", [0x04, 0x82, 0, 0x80, ...new Uint8Array(0x80)]],
    ["a tag of several bytes", [0x1f, 0x81, 1, 0]],
    ["a tag alone", [0x30]],
  ] as const)
    it(`refuses ${what}`, () => {
      assert.throws(() => readDerValues(Uint8Array.from(bytes)), isRefusal);
    });

  it("looks inside one value of the right tag that nothing follows", () => {
    const inside = encodeDer(Tag.INTEGER, Uint8Array.of(5));
    const one = encodeDer(Tag.SEQUENCE, inside);
    assert.deepEqual(
      readDerInside(one, Tag.SEQUENCE).map(({ encoded }) => [...encoded]),
      [[...inside]],
    );
    for (const bytes of [
      Buffer.concat([one, Uint8Array.of(0)]),
      Buffer.concat([one, one]),
      inside,
      new Uint8Array(),
    ])
      assert.throws(() => readDerInside(bytes, Tag.SEQUENCE), isRefusal);
  });

  it("writes object identifiers in the form of X.690", () => {
    assert.equal(
      Buffer.from(encodeObjectId("1.3.6.1.4.1.53594.1.1")).toString("hex"),
      "060a2b0601040183a25a0101",
    );
    assert.equal(Buffer.from(encodeObjectId("1.2.840.113549")).toString("hex"), "06062a864886f70d");
  });
});
