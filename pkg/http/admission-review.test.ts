// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type AdmissionRequest, type AdmissionReview, answerReview } from "./index.ts";

const signal = new AbortController().signal;
/** In the order of the API server's Go type. */
const BEFORE = { uid: "u", name: "pool", namespace: "shoot--a--b", operation: "UPDATE", object: { a: 1 } };
const AFTER = { oldObject: { a: 0 }, dryRun: false, options: { kind: "UpdateOptions" } };
const HEAD = { kind: "AdmissionReview", apiVersion: "admission.k8s.io/v1" };

interface Seen {
  readonly review: AdmissionReview;
  /** What the judge got, unless it was not asked. */
  readonly request: AdmissionRequest | undefined;
}

async function answer(body: string | Uint8Array, readsOldObject: boolean): Promise<Seen> {
  let request: AdmissionRequest | undefined;
  const judge = {
    readsOldObject,
    async judge(asked: AdmissionRequest) {
      request = asked;
      return { allowed: true } as const;
    },
  };
  return { review: await answerReview(body, judge, { signal }), request };
}

describe("answerReview for a judge that does not read the old object", () => {
  it("reads nothing from the old object on", async () => {
    const body = JSON.stringify({ ...HEAD, request: { ...BEFORE, ...AFTER } });
    assert.deepEqual((await answer(body, false)).request, BEFORE);
    assert.deepEqual((await answer(body, true)).request, { ...BEFORE, ...AFTER });
  });

  it("reads all of it where another field comes later", async () => {
    const { object, ...rest } = BEFORE;
    for (const request of [
      { ...rest, ...AFTER, object },
      { ...AFTER, ...BEFORE },
      { uid: "u", operation: "UPDATE", ...AFTER, object, name: "pool", namespace: "shoot--a--b" },
    ])
      assert.deepEqual((await answer(JSON.stringify({ ...HEAD, request }), false)).request, request);
    const late = { request: { ...BEFORE, ...AFTER }, ...HEAD };
    assert.deepEqual((await answer(JSON.stringify(late), false)).request, late.request);
  });

  it("takes no text or deeper field for the old object", async () => {
    const word = ',"oldObject":';
    for (const object of [
      { text: word },
      { text: `}}${word}{}` },
      { [word]: 1, a: 1, oldObject: { b: 1 } },
      { a: { b: 1, oldObject: 1 } },
      { a: [{ b: 1, oldObject: 1 }] },
    ]) {
      const request = { ...BEFORE, object, ...AFTER };
      const seen = await answer(JSON.stringify({ ...HEAD, request }), false);
      assert.deepEqual(seen.request?.object, object);
      assert.equal(seen.review.response.allowed, true);
    }
  });

  it("answers as if it read everything, whatever JSON is sent", async () => {
    const object = fc.oneof(
      fc.jsonValue(),
      fc.dictionary(fc.constantFrom("a", "oldObject", "request", "object"), fc.jsonValue()),
    );
    const fields = fc.shuffledSubarray(
      ["uid", "operation", "namespace", "name", "object", "oldObject", "dryRun", "extra"],
      { minLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(fields, object, object, async (names, given, old) => {
        const all: Readonly<Record<string, unknown>> = {
          ...BEFORE,
          object: given,
          oldObject: old,
          extra: old,
        };
        const request = Object.fromEntries(names.map((name) => [name, all[name] ?? null]));
        const body = JSON.stringify({ ...HEAD, request });
        const [lean, full] = [await answer(body, false), await answer(body, true)];
        assert.deepEqual(lean.review, full.review);
        for (const field of ["uid", "operation", "namespace", "name", "object"] as const)
          assert.deepEqual(lean.request?.[field], full.request?.[field]);
      }),
    );
  });

  it("answers as if it read everything, wherever what is sent breaks off or is damaged before the old object", async () => {
    const body = JSON.stringify({ ...HEAD, request: { ...BEFORE, ...AFTER } });
    const endOfHead = body.indexOf(',"oldObject"');
    for (let end = 0; end <= endOfHead; end++) {
      const cut = body.slice(0, end);
      assert.deepEqual((await answer(cut, false)).review, (await answer(cut, true)).review);
      const damaged = Buffer.from(body);
      damaged[end] = (damaged[end] as number) ^ 1;
      assert.equal(
        (await answer(damaged, false)).review.response.allowed,
        (await answer(damaged, true)).review.response.allowed,
      );
    }
  });
});
