// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type AdmissionRequest, type AdmissionReview, MAX_REVIEW_BYTES } from "#http";
import { readManifests } from "#kit/api-server";
import { createLogger, silentLogger } from "#log";
import { createMetrics } from "#metrics";
import { createShootWebhook, type JudgeShootOptions, judgeShoot } from "./index.ts";

const TYPE = { apiVersion: "spegel.extensions.gardener.cloud/v1alpha1", kind: "SpegelConfig" };
const [EXAMPLE] = await readManifests(new URL("../../example/shoot.yaml", import.meta.url));
const signal = new AbortController().signal;

interface Change {
  readonly extensions?: unknown;
  readonly workers?: unknown;
  readonly metadata?: object;
}

const CONTAINERD = [{ name: "a", cri: { name: "containerd" } }];

function shoot({ extensions, workers = CONTAINERD, metadata }: Change): object {
  return {
    apiVersion: "core.gardener.cloud/v1beta1",
    kind: "Shoot",
    metadata: { name: "bar", namespace: "garden-foo", ...metadata },
    spec: { provider: { type: "local", workers }, ...(extensions === undefined ? {} : { extensions }) },
  };
}

const enabled = (providerConfig?: unknown, more: object = {}): object[] => [
  { type: "shoot-dns-service" },
  { type: "registry-spegel", ...(providerConfig === undefined ? {} : { providerConfig }), ...more },
];

function judge(object: unknown, oldObject?: unknown, options?: JudgeShootOptions) {
  const operation = oldObject === undefined ? "CREATE" : "UPDATE";
  return judgeShoot({ uid: "u", operation, object, oldObject } as AdmissionRequest, options);
}

const ALLOWED = { allowed: true };
const SILENT = { allowed: true, warnings: [] };
const BAD = { ...TYPE, registryPort: 10250 };

describe("a Shoot", () => {
  it("is allowed as the example has it", () => {
    assert.deepEqual(judge(EXAMPLE), SILENT);
  });

  it("is allowed without an entry, which is the normal case of an extension enabled for all", () => {
    for (const extensions of [undefined, null, [], [{ type: "shoot-dns-service", providerConfig: 1 }]]) {
      assert.deepEqual(judge(shoot({ extensions })), ALLOWED);
    }
  });

  it("is allowed with an entry that has no providerConfig", () => {
    for (const config of [undefined, null, {}]) {
      assert.deepEqual(judge(shoot({ extensions: enabled(config) })), SILENT);
    }
  });

  it("is allowed when the extension is disabled, whatever is left of its configuration", () => {
    assert.deepEqual(judge(shoot({ extensions: enabled(BAD, { disabled: true }) })), ALLOWED);
    const verdict = judge(shoot({ extensions: enabled(BAD, { disabled: false }) }));
    assert.equal(verdict.allowed, false);
  });

  it("is allowed without workers", () => {
    for (const workers of [undefined, null, []]) {
      const object = shoot({ extensions: enabled(BAD), workers });
      if (workers === undefined) Reflect.deleteProperty((object as { spec: object }).spec, "provider");
      assert.deepEqual(judge(object), ALLOWED);
    }
  });

  it("is denied with every problem and where it is", () => {
    const config = { ...TYPE, registryPort: 10250, routerPort: 0, replicas: 1 };
    assert.deepEqual(judge(shoot({ extensions: enabled(config) })), {
      allowed: false,
      code: 403,
      message: [
        "spec.extensions[1].providerConfig.replicas: unknown field",
        "spec.extensions[1].providerConfig.registryPort: port 10250 is reserved on Gardener nodes: kubelet and kube-proxy",
        "spec.extensions[1].providerConfig.routerPort: must be an integer between 1 and 65535, not 0",
      ].join("; "),
    });
  });

  it("is denied when two ports meet, also that of a default of the operator", () => {
    const object = shoot({ extensions: enabled({ ...TYPE, registryPort: 19090 }) });
    assert.deepEqual(judge(object), SILENT);
    const verdict = judge(object, undefined, { operatorDefaults: { metricsPort: 19090 } });
    assert.match(
      verdict.allowed ? "" : verdict.message,
      /registryPort: port 19090 is already the metricsPort/,
    );
  });

  it("is allowed with a warning for ports that something else may take", () => {
    const verdict = judge(shoot({ extensions: enabled({ ...TYPE, registryPort: 50000 }) }));
    assert.ok(verdict.allowed);
    assert.equal(verdict.warnings?.length, 1);
    assert.match(
      verdict.warnings?.[0] ?? "",
      /^spec\.extensions\[1\]\.providerConfig\.registryPort: port 50000/,
    );
  });

  it("may leave the runtime of its workers open, but must not choose another one", () => {
    const workers = [{ name: "a" }, { name: "b", cri: null }, { name: "c", cri: {} }, ...CONTAINERD];
    assert.deepEqual(judge(shoot({ extensions: enabled(), workers })), SILENT);
    const other = [...workers, { name: "e", cri: { name: "docker" } }];
    assert.deepEqual(judge(shoot({ extensions: enabled(), workers: other })), {
      allowed: false,
      code: 403,
      message:
        'spec.provider.workers[4].cri.name: must be containerd for the extension registry-spegel, not "docker"',
    });
    assert.deepEqual(judge(shoot({ extensions: [], workers: other })), ALLOWED);
  });
});

describe("an update of a Shoot", () => {
  it("is allowed while the configuration stays as it is, even if it would not be accepted today", () => {
    const old = shoot({ extensions: enabled(BAD) });
    assert.deepEqual(
      judge(shoot({ extensions: enabled(BAD), metadata: { labels: { a: "b" } } }), old),
      SILENT,
    );
    const moved = shoot({ extensions: enabled(BAD).toReversed() });
    assert.deepEqual(judge(moved, old), SILENT);
  });

  it("tells of warnings only when the configuration changes", () => {
    const object = shoot({ extensions: enabled({ ...TYPE, registryPort: 50000 }) });
    assert.deepEqual(judge(object, object), SILENT);
  });

  it("is judged when the extension is enabled with a configuration that was there before", () => {
    const disabled = shoot({ extensions: enabled(BAD, { disabled: true }) });
    for (const old of [disabled, shoot({})]) {
      assert.equal(judge(shoot({ extensions: enabled(BAD) }), old).allowed, false);
    }
  });

  it("is judged when the configuration changes, and allowed when it is mended or taken away", () => {
    const old = shoot({ extensions: enabled(BAD) });
    assert.equal(judge(shoot({ extensions: enabled({ ...BAD, routerPort: 6000 }) }), old).allowed, false);
    assert.equal(judge(shoot({ extensions: enabled({ ...TYPE, registryPort: 5005 }) }), old).allowed, true);
    assert.equal(judge(shoot({}), old).allowed, true);
  });

  it("is allowed while the Shoot is being deleted, so that finalizers can go", () => {
    const object = shoot({
      extensions: enabled(BAD),
      metadata: { deletionTimestamp: "2026-08-21T10:00:00Z" },
    });
    assert.deepEqual(judge(object, shoot({})), ALLOWED);
    assert.deepEqual(judge(object, null), ALLOWED);
  });

  it("may keep a worker with another runtime, but not add one", () => {
    const docker = { name: "b", cri: { name: "docker" } };
    const old = shoot({ extensions: enabled(), workers: [...CONTAINERD, docker] });
    assert.deepEqual(judge(old, old), SILENT);
    const more = shoot({ extensions: enabled(), workers: [docker, { ...docker, name: "c" }] });
    const verdict = judge(more, old);
    assert.match(verdict.allowed ? "" : verdict.message, /^spec\.provider\.workers\[1\]\.cri\.name/);
    const before = shoot({ workers: [docker] });
    assert.equal(judge(shoot({ extensions: enabled(), workers: [docker] }), before).allowed, false);
  });
});

describe("an object that is no Shoot", () => {
  const reasonOf = (object: unknown): string => {
    const verdict = judge(object);
    assert.ok(!verdict.allowed);
    assert.equal(verdict.code, 400);
    return verdict.message;
  };

  it("is denied with what is wrong", () => {
    for (const object of [undefined, null, 1, "Shoot", [], [{}]]) {
      assert.match(reasonOf(object), /^the object is not a Shoot/);
    }
    for (const change of [
      { kind: "Seed" },
      { kind: ["Shoot"] },
      { apiVersion: "v1" },
      { apiVersion: null },
    ]) {
      assert.match(
        reasonOf({ ...shoot({}), ...change }),
        /^the object is not a Shoot of core\.gardener\.cloud$/,
      );
    }
    assert.equal(
      reasonOf(shoot({ extensions: { type: "registry-spegel" } })),
      "spec.extensions is not a list",
    );
    assert.equal(reasonOf(shoot({ extensions: ["registry-spegel"] })), "spec.extensions[0] is not an object");
    assert.equal(reasonOf(shoot({ workers: "many" })), "spec.provider.workers is not a list");
    assert.equal(
      reasonOf(shoot({ workers: [{ cri: "containerd" }] })),
      "spec.provider.workers[0].cri is not an object",
    );
    assert.equal(
      reasonOf(shoot({ workers: [{ cri: { name: 1 } }] })),
      "spec.provider.workers[0].cri.name is not a string",
    );
    assert.equal(reasonOf({ ...shoot({}), spec: [] }), "spec is not an object");
    assert.equal(reasonOf({ ...shoot({}), metadata: 1 }), "metadata is not an object");
  });

  it("is not judged when it is deleted or connected to", () => {
    for (const operation of ["DELETE", "CONNECT"] as const) {
      assert.deepEqual(judgeShoot({ uid: "u", operation, object: null, oldObject: 1 }), ALLOWED);
    }
  });

  it("never makes the judge throw, whatever the JSON", () => {
    const anything = fc.record({
      apiVersion: fc.constant("core.gardener.cloud/v1beta1"),
      kind: fc.constant("Shoot"),
      metadata: fc.oneof(fc.jsonValue(), fc.constant({})),
      spec: fc.record({
        extensions: fc.oneof(fc.jsonValue(), fc.jsonValue().map(enabled)),
        provider: fc.record({ workers: fc.oneof(fc.jsonValue(), fc.constant(CONTAINERD)) }),
      }),
    });
    fc.assert(
      fc.property(fc.oneof(anything, fc.jsonValue()), fc.oneof(anything, fc.jsonValue()), (object, old) => {
        const verdict = judge(object, old);
        if (!verdict.allowed) assert.ok(verdict.message.length > 0);
      }),
    );
  });
});

describe("the webhook", () => {
  const webhook = createShootWebhook({ logger: silentLogger, metrics: createMetrics() }, {});
  const reviewOf = (object: unknown, more: object = {}): string =>
    JSON.stringify({
      apiVersion: "admission.k8s.io/v1",
      kind: "AdmissionReview",
      request: { uid: "u-1", operation: "CREATE", namespace: "garden-foo", name: "bar", object, ...more },
    });
  const answer = async (body: string | Uint8Array): Promise<AdmissionReview["response"]> =>
    (await webhook.review(body, { signal })).response;

  it("answers the example, the API server's versions and its warnings", async () => {
    assert.deepEqual(await answer(reviewOf(EXAMPLE)), { uid: "u-1", allowed: true });
    const beta = reviewOf(EXAMPLE).replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    const review = await webhook.review(beta, { signal });
    assert.equal(review.apiVersion, "admission.k8s.io/v1beta1");
    const warned = await answer(reviewOf(shoot({ extensions: enabled({ ...TYPE, metricsPort: 30000 }) })));
    assert.equal(warned.allowed, true);
    assert.match(warned.warnings?.[0] ?? "", /metricsPort: port 30000 lies in 30000-32767/);
  });

  it("denies garbage with 400", async () => {
    for (const body of [
      "",
      "{",
      "[]",
      "null",
      "\u0000",
      reviewOf({}).slice(0, -9),
      Buffer.from([0xff, 0xfe]),
    ]) {
      const { allowed, status } = await answer(body);
      assert.equal(allowed, false);
      assert.equal(status?.code, 400);
    }
    const { status } = await answer(reviewOf({ kind: "Seed" }));
    assert.equal(status?.code, 400);
  });

  it("reads 5 MB, refuses more than the API server would send, and says little of either", async () => {
    const labels = Object.fromEntries(Array.from({ length: 5000 }, (_, at) => [`l${at}`, "x".repeat(1000)]));
    const large = shoot({ extensions: enabled(), metadata: { labels } });
    assert.ok(reviewOf(large).length > 5_000_000);
    assert.equal((await answer(reviewOf(large))).allowed, true);
    const hostile = shoot({ extensions: enabled({ ...TYPE, ...labels }) });
    const denied = await answer(reviewOf(hostile));
    assert.equal(denied.allowed, false);
    assert.ok((denied.status?.message.length ?? 0) <= 2048);
    const workers = Array.from({ length: 20_000 }, (_, at) => ({
      name: `w${at}`,
      cri: { name: "x".repeat(99) },
    }));
    const many = await answer(reviewOf(shoot({ extensions: enabled(), workers })));
    assert.ok((many.status?.message.length ?? 0) <= 2048);
    const { status } = await answer(Buffer.alloc(MAX_REVIEW_BYTES + 1, " "));
    assert.equal(status?.code, 413);
  });

  it("survives a configuration that is nested without end", async () => {
    const depth = 500_000;
    const deep = `${"[".repeat(depth)}${"]".repeat(depth)}`;
    for (const operation of ["CREATE", "UPDATE"]) {
      const body = reviewOf(shoot({ extensions: enabled("deep") }), { operation, oldObject: shoot({}) });
      const { allowed, uid } = await answer(body.replace('"deep"', deep));
      assert.equal(allowed, false);
      assert.ok(uid === "u-1" || uid === "");
    }
    assert.equal((await answer(reviewOf(EXAMPLE))).allowed, true);
  });

  it("counts what it says, and logs why it denies but nothing else of a Shoot", async () => {
    const metrics = createMetrics();
    const lines: string[] = [];
    const logger = createLogger({ level: "DEBUG", sink: { write: (line) => void lines.push(line) } });
    const counting = createShootWebhook({ logger, metrics }, {});
    const secret = { annotations: { note: "confidential" } };
    await counting.review(reviewOf(shoot({ extensions: enabled(), metadata: secret })), { signal });
    await counting.review(reviewOf(shoot({ extensions: enabled(BAD), metadata: secret })), { signal });
    await counting.review("garbage", { signal });
    const text = await metrics.render();
    assert.match(text, /registry_spegel_admission_reviews_total\{result="allowed"\} 1/);
    assert.match(text, /registry_spegel_admission_reviews_total\{result="denied"\} 1/);
    assert.match(text, /registry_spegel_admission_reviews_total\{result="failed"\} 1/);
    assert.doesNotMatch(lines.join(), /confidential/);
    assert.match(lines.join(), /"level":"INFO".*"name":"bar".*port 10250 is reserved.*"msg":"Shoot denied"/);
  });
});
