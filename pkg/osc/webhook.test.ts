// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import fc from "fast-check";
import jsonPatch, { type Operation } from "fast-json-patch";
import { parse } from "yaml";
import type { OperatingSystemConfig } from "#api/gardener";
import { type AdmissionReview, MAX_REVIEW_BYTES } from "#http";
import { validateOSC } from "#kit/node-agent";
import { createLogger, silentLogger } from "#log";
import { createOSCWebhook, type LoadContext } from "./index.ts";

const OBJECT = parse(
  await readFile(new URL("../../example/osc-reconcile.yaml", import.meta.url), "utf8"),
) as OperatingSystemConfig;
const READY: LoadContext = async () => ({
  cluster: { spec: { shoot: {}, seed: {} } },
  extension: {
    status: {
      providerStatus: {
        apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
        kind: "SpegelStatus",
        bootstrapURL: "https://spegel-foo--bar.ingress.example/bootstrap-nodes",
        caBundleSecretName: "bundle",
        clientSecretName: "client",
        registryPort: 5000,
        routerPort: 5001,
        metricsPort: 9090,
      },
    },
  },
});
const OPTIONS = { image: "registry.example/spegel:v1" };
const signal = new AbortController().signal;

function reviewOf(object: unknown, change: object = {}, apiVersion = "admission.k8s.io/v1"): string {
  const request = {
    uid: "u-1",
    operation: "CREATE",
    namespace: "shoot--foo--bar",
    name: "pool",
    object,
    ...change,
  };
  return JSON.stringify({ apiVersion, kind: "AdmissionReview", request });
}

function send(body: string | Uint8Array, loadContext: LoadContext = READY): Promise<AdmissionReview> {
  return createOSCWebhook({ loadContext, logger: silentLogger }, OPTIONS).review(body, { signal });
}

function denial(review: AdmissionReview): string {
  const { allowed, status } = review.response;
  return `${allowed} ${status?.code} ${status?.message}`;
}

describe("createOSCWebhook", () => {
  it("answers with a patch that makes a valid object", async () => {
    const { apiVersion, kind, response } = await send(reviewOf(OBJECT));
    assert.deepEqual([apiVersion, kind], ["admission.k8s.io/v1", "AdmissionReview"]);
    assert.deepEqual(
      { ...response, patch: undefined },
      { uid: "u-1", allowed: true, patchType: "JSONPatch", patch: undefined },
    );
    const operations = JSON.parse(Buffer.from(response.patch ?? "", "base64").toString()) as Operation[];
    const { newDocument } = jsonPatch.applyPatch(structuredClone(OBJECT), operations, true);
    assert.deepEqual(validateOSC(newDocument), []);
    assert.ok(newDocument.spec.units?.some((unit) => unit.name === "spegel.service"));
    const again = await send(reviewOf(newDocument, { operation: "UPDATE", oldObject: OBJECT }));
    assert.deepEqual(again.response, { uid: "u-1", allowed: true });
  });

  it("answers the same bytes every time", async () => {
    const [first, second] = await Promise.all([send(reviewOf(OBJECT)), send(reviewOf(OBJECT))]);
    assert.equal(JSON.stringify(first), JSON.stringify(second));
  });

  it("speaks the version of the request", async () => {
    const { apiVersion } = await send(reviewOf(OBJECT, {}, "admission.k8s.io/v1beta1"));
    assert.equal(apiVersion, "admission.k8s.io/v1beta1");
  });

  it("allows a deletion without looking at it", async () => {
    const { response } = await send(reviewOf(null, { operation: "DELETE" }));
    assert.deepEqual(response, { uid: "u-1", allowed: true });
  });

  it("allows an object of purpose provision as it is", async () => {
    const provision = { ...OBJECT, spec: { ...OBJECT.spec, purpose: "provision" } };
    assert.deepEqual((await send(reviewOf(provision))).response, { uid: "u-1", allowed: true });
  });

  it("denies with 403 while the Extension of a Shoot that is awake has not reported", async () => {
    const review = await send(reviewOf(OBJECT), async () => ({
      cluster: { spec: { shoot: {}, seed: {} } },
      extension: {},
    }));
    assert.equal(
      denial(review),
      "false 403 Extension registry-spegel has no providerStatus yet; retry once it is reconciled",
    );
    assert.equal(review.response.uid, "u-1");
  });

  it("denies with 500 when the context cannot be read, and says so in its log", async () => {
    const lines: string[] = [];
    const logger = createLogger({ level: "INFO", sink: { write: (line) => void lines.push(line) } });
    const loadContext = (): Promise<never> => Promise.reject(new Error("connection refused"));
    const webhook = createOSCWebhook({ loadContext, logger }, OPTIONS);
    assert.equal(denial(await webhook.review(reviewOf(OBJECT), { signal })), "false 500 connection refused");
    assert.match(lines.join(""), /"namespace":"shoot--foo--bar".*"err":"connection refused"/);
  });

  it("denies with 400 what it cannot read, and names the field", async () => {
    const cases: [string | Uint8Array, string][] = [
      ["", "the body is not JSON"],
      ["{", "the body is not JSON"],
      [Uint8Array.of(0xff, 0xfe), "the body is not JSON"],
      ["null", "the body is not an object"],
      ["[]", "the body is not an object"],
      ["{}", "kind is not AdmissionReview"],
      ['{"kind":"AdmissionReview"}', "apiVersion is none of admission.k8s.io/v1, admission.k8s.io/v1beta1"],
      ['{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', "request is not an object"],
      [reviewOf(OBJECT, { uid: 1 }), "request.uid is missing"],
      [reviewOf(OBJECT, { operation: null }), "request.operation is missing"],
      [reviewOf(OBJECT, { namespace: {} }), "request.namespace is not a string"],
      [reviewOf(OBJECT, { namespace: undefined }), "request.namespace is missing"],
      [reviewOf(undefined), "object is not an object"],
      [reviewOf({ ...OBJECT, spec: { ...OBJECT.spec, files: "x" } }), "spec.files is not a list"],
    ];
    for (const [body, message] of cases) assert.equal(denial(await send(body)), `false 400 ${message}`);
  });

  it("reads a body of several megabytes and refuses one that is larger than any object", async () => {
    const data = "x".repeat(5 * 1024 * 1024);
    const files = [{ path: "/large", content: { inline: { encoding: "" as const, data } } }];
    const large = await send(reviewOf({ ...OBJECT, spec: { ...OBJECT.spec, files, units: null } }));
    assert.equal(large.response.allowed, true);
    assert.equal(denial(await send(data)), "false 400 the body is not JSON");
    assert.match(denial(await send("x".repeat(MAX_REVIEW_BYTES + 1))), /^false 413 /);
  });

  it("survives nesting that is deeper than any stack", async () => {
    const depth = 200_000;
    const files = `[{"path":"/opt/bin/spegel","x":${"[".repeat(depth)}${"]".repeat(depth)}}]`;
    const body = reviewOf({ ...OBJECT, spec: { ...OBJECT.spec, files: "FILES" } }).replace('"FILES"', files);
    const { response } = await send(body);
    assert.equal(response.uid === "u-1" || response.status?.code === 400, true);
  });

  it("keeps what it says short", async () => {
    const loadContext = (): Promise<never> => Promise.reject(new Error("e".repeat(100_000)));
    assert.ok((await send(reviewOf(OBJECT), loadContext)).response.status?.message.length === 2048);
  });

  it("always answers, whatever is sent", async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.json(), fc.uint8Array()), async (body) => {
        assert.equal((await send(body)).response.allowed, false);
      }),
    );
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.jsonValue(), async (object, oldObject) => {
        const { response } = await send(reviewOf(object, { oldObject, operation: "UPDATE" }));
        assert.equal(response.uid, "u-1");
      }),
    );
  });
});
