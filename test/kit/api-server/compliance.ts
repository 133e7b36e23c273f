// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";

/** An API server under test, with an admin's token. */
export interface ApiTarget {
  readonly url: string;
  /** PEM; empty for plain HTTP. */
  readonly caCertificate: string;
  readonly token: string;
}

/** The fields of any answer that the tests read. */
interface Body {
  readonly apiVersion: string;
  readonly kind: string;
  readonly code: number;
  readonly reason: string;
  readonly details: { readonly name: string };
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly generation: number;
    readonly creationTimestamp: string;
    readonly deletionTimestamp?: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly continue?: string;
  };
  readonly spec: { readonly replicas?: number; readonly holderIdentity?: string };
  readonly status?: { readonly replicas?: number };
  readonly data: Readonly<Record<string, string>>;
  readonly items: readonly Body[];
}

interface Answer {
  readonly status: number;
  readonly body: Body;
}

interface OpenStream extends Disposable {
  /** The next event that is not a bookmark. */
  next(): Promise<{ type: string; object: Body }>;
}

const MERGE = "application/merge-patch+json";
const JSON_PATCH = "application/json-patch+json";

/**
 * What every API server does, in the parts that this project relies on: run against the stand-in in this
 * folder and against kube-apiserver, so that the two cannot drift apart.
 */
export function apiServerCompliance(name: string, setup: () => Promise<ApiTarget & AsyncDisposable>): void {
  describe(`${name} behaves as a Kubernetes API server`, () => {
    const namespace = `compliance-${randomBytes(4).toString("hex")}`;
    const secrets = `/api/v1/namespaces/${namespace}/secrets`;
    const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
    const deployments = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    let target: ApiTarget & AsyncDisposable;

    before(async () => {
      target = await setup();
      const created = await call("POST", "/api/v1/namespaces", { metadata: { name: namespace } });
      assert.equal(created.status, 201);
    });
    after(async () => await target?.[Symbol.asyncDispose]());

    function open(
      method: string,
      path: string,
      body?: unknown,
      contentType = "application/json",
      token = target.token,
    ) {
      const sent = body === undefined ? undefined : JSON.stringify(body);
      return new Promise<IncomingMessage>((resolve, reject) => {
        const options = {
          method,
          agent: false as const,
          headers: {
            authorization: `Bearer ${token}`,
            // A length must be given: Node sends the body of a DELETE unframed without it.
            ...(sent !== undefined && {
              "content-type": contentType,
              "content-length": Buffer.byteLength(sent),
            }),
          },
        };
        const request = target.url.startsWith("https:")
          ? httpsRequest(target.url + path, { ...options, ca: target.caCertificate }, resolve)
          : httpRequest(target.url + path, options, resolve);
        request.on("error", reject);
        request.end(sent);
      });
    }

    async function call(
      method: string,
      path: string,
      body?: unknown,
      contentType?: string,
      token?: string,
    ): Promise<Answer> {
      const response = await open(method, path, body, contentType, token);
      const chunks: Buffer[] = [];
      for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
      return { status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString("utf8")) };
    }

    async function watch(path: string): Promise<OpenStream> {
      const response = await open("GET", `${path}${path.includes("?") ? "&" : "?"}watch=true`);
      assert.equal(response.statusCode, 200);
      const lines = createInterface({ input: response })[Symbol.asyncIterator]();
      return {
        async next() {
          for (;;) {
            const line = await lines.next();
            assert.equal(line.done, false, "the watch ended");
            const event = JSON.parse(line.value);
            if (event.type !== "BOOKMARK") return event;
          }
        },
        [Symbol.dispose]: () => void response.destroy(),
      };
    }

    const failure = (answer: Answer, status: number, reason: string): void => {
      assert.deepEqual(
        { status: answer.status, kind: answer.body.kind, code: answer.body.code, reason: answer.body.reason },
        { status, kind: "Status", code: status, reason },
      );
    };
    const secret = (secretName: string, more: object = {}): object => ({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: secretName, labels: { app: "x" } },
      type: "Opaque",
      data: { key: "dmFsdWU=" },
      ...more,
    });
    const deployment = (deploymentName: string): object => ({
      metadata: { name: deploymentName },
      spec: {
        replicas: 1,
        selector: { matchLabels: { app: "a" } },
        template: {
          metadata: { labels: { app: "a" } },
          spec: { containers: [{ name: "a", image: "a.example.org/a" }] },
        },
      },
    });

    test("create fills what the server owns and answers 201", async () => {
      const { status, body } = await call("POST", secrets, secret("created"));
      assert.equal(status, 201);
      assert.equal(body.kind, "Secret");
      assert.equal(body.apiVersion, "v1");
      assert.equal(body.metadata.namespace, namespace);
      assert.match(body.metadata.uid, /^[0-9a-f-]{36}$/);
      assert.match(body.metadata.creationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      assert.match(body.metadata.resourceVersion, /^\d+$/);
      assert.deepEqual((await call("GET", `${secrets}/created`)).body, body);
    });

    test("a second create of a name is 409 AlreadyExists", async () => {
      await call("POST", secrets, secret("twice"));
      failure(await call("POST", secrets, secret("twice")), 409, "AlreadyExists");
    });

    test("what does not exist is 404 and named, a resource that is not served is 404 without a name", async () => {
      const secretsOfNobody = "/api/v1/namespaces/no-such-namespace/secrets";
      for (const [answer, name] of [
        [await call("GET", `${secrets}/absent`), "absent"],
        [await call("DELETE", `${secrets}/absent`), "absent"],
        [await call("PATCH", `${secrets}/absent`, {}, MERGE), "absent"],
        [await call("POST", secretsOfNobody, secret("x")), "no-such-namespace"],
      ] as const) {
        failure(answer, 404, "NotFound");
        assert.equal(answer.body.details.name, name);
      }
      for (const path of ["/apis/no.such.group/v1/things", "/apis/no.such.group/v1/things/absent"]) {
        const unserved = await open("GET", path);
        assert.equal(unserved.statusCode, 404);
        assert.doesNotMatch(await text(unserved), /"name"/);
      }
    });

    test("a wrong name, kind or body is refused", async () => {
      failure(await call("POST", secrets, secret("Upper_Case")), 422, "Invalid");
      failure(await call("POST", secrets, { ...secret("other-kind"), kind: "ConfigMap" }), 400, "BadRequest");
      failure(
        await call("POST", secrets, { ...secret("x"), metadata: { name: "x", namespace: "default" } }),
        400,
        "BadRequest",
      );
      failure(await call("POST", `${secrets}?fieldValidation=Sometimes`, secret("x")), 422, "Invalid");
    });

    test("a wrong token is 401", async () => {
      failure(await call("GET", secrets, undefined, undefined, "wrong"), 401, "Unauthorized");
    });

    test("an update with a stale version is 409, with the current one it succeeds", async () => {
      const lease = { metadata: { name: "stale" }, spec: { holderIdentity: "a", leaseDurationSeconds: 15 } };
      const first = (await call("POST", leases, lease)).body;
      const second = await call("PUT", `${leases}/stale`, {
        ...first,
        spec: { ...first.spec, holderIdentity: "b" },
      });
      assert.equal(second.status, 200);
      assert.notEqual(second.body.metadata.resourceVersion, first.metadata.resourceVersion);
      failure(await call("PUT", `${leases}/stale`, first), 409, "Conflict");
      const patch = { metadata: { resourceVersion: first.metadata.resourceVersion, labels: { a: "b" } } };
      failure(await call("PATCH", `${leases}/stale`, patch, MERGE), 409, "Conflict");
    });

    test("a change that changes nothing keeps the version", async () => {
      const created = (await call("POST", secrets, secret("unchanged"))).body;
      const patched = await call(
        "PATCH",
        `${secrets}/unchanged`,
        { metadata: { labels: { app: "x" } } },
        MERGE,
      );
      assert.equal(patched.body.metadata.resourceVersion, created.metadata.resourceVersion);
    });

    test("merge patches replace lists and remove nulls; JSON patches test and change; other types are 415", async () => {
      await call("POST", secrets, secret("patched"));
      const path = `${secrets}/patched`;
      const merged = await call(
        "PATCH",
        path,
        { metadata: { labels: { app: null, b: "c" } }, data: { two: "Mg==" } },
        MERGE,
      );
      assert.deepEqual(merged.body.metadata.labels, { b: "c" });
      assert.deepEqual(merged.body.data, { key: "dmFsdWU=", two: "Mg==" });
      const operations = [
        { op: "test", path: "/data/two", value: "Mg==" },
        { op: "remove", path: "/data/two" },
      ];
      assert.deepEqual((await call("PATCH", path, operations, JSON_PATCH)).body.data, { key: "dmFsdWU=" });
      failure(await call("PATCH", path, operations, JSON_PATCH), 422, "Invalid");
      assert.equal((await call("PATCH", path, {}, "application/json")).status, 415);
    });

    test("the data of an immutable secret cannot change but its labels can", async () => {
      await call("POST", secrets, secret("fixed", { immutable: true }));
      failure(await call("PATCH", `${secrets}/fixed`, { data: { key: "bmV3" } }, MERGE), 422, "Invalid");
      failure(await call("PATCH", `${secrets}/fixed`, { immutable: false }, MERGE), 422, "Invalid");
      assert.equal(
        (await call("PATCH", `${secrets}/fixed`, { metadata: { labels: { l: "1" } } }, MERGE)).status,
        200,
      );
    });

    test("generation counts changes of the spec alone, and status has a door of its own", async () => {
      const created = await call("POST", deployments, { ...deployment("counted"), status: { replicas: 9 } });
      assert.equal(created.body.metadata.generation, 1);
      assert.notEqual(created.body.status?.replicas, 9);
      const path = `${deployments}/counted`;
      const change = { metadata: { labels: { a: "b" } }, spec: { replicas: 1 }, status: { replicas: 8 } };
      const labelled = await call("PATCH", path, change, MERGE);
      assert.equal(labelled.body.metadata.generation, 1);
      assert.notEqual(labelled.body.status?.replicas, 8);
      const status = await call(
        "PATCH",
        `${path}/status`,
        { spec: { replicas: 5 }, status: { observedGeneration: 1, replicas: 7 } },
        MERGE,
      );
      assert.equal(status.body.status?.replicas, 7);
      assert.equal(status.body.spec.replicas, 1);
      assert.equal(status.body.metadata.generation, 1);
      const scaled = await call("PATCH", path, { spec: { replicas: 3 } }, MERGE);
      assert.equal(scaled.body.metadata.generation, 2);
      assert.equal(scaled.body.status?.replicas, 7);
    });

    test("an object with a finalizer stays until its last finalizer is gone", async () => {
      await call("POST", secrets, {
        ...secret("kept"),
        metadata: { name: "kept", finalizers: ["example.org/a"] },
      });
      const path = `${secrets}/kept`;
      using events = await watch(
        `${secrets}?fieldSelector=metadata.name%3Dkept&resourceVersion=${await versionOf(secrets)}`,
      );
      const marked = await call("DELETE", path);
      assert.equal(marked.status, 200);
      assert.ok((await call("GET", path)).body.metadata.deletionTimestamp);
      const released = await call("PATCH", path, { metadata: { finalizers: null } }, MERGE);
      assert.equal(released.status, 200);
      failure(await call("GET", path), 404, "NotFound");
      assert.equal((await events.next()).type, "MODIFIED");
      const last = await events.next();
      assert.equal(last.type, "DELETED");
      assert.equal(last.object.metadata.name, "kept");
    });

    test("a delete with preconditions that do not hold is 409", async () => {
      await call("POST", secrets, secret("guarded"));
      const body = {
        kind: "DeleteOptions",
        apiVersion: "v1",
        preconditions: { uid: "00000000-0000-0000-0000-000000000000" },
      };
      failure(await call("DELETE", `${secrets}/guarded`, body), 409, "Conflict");
      assert.equal((await call("GET", `${secrets}/guarded`)).status, 200);
    });

    test("a dry run answers as if and stores nothing", async () => {
      assert.equal((await call("POST", `${secrets}?dryRun=All`, secret("dry"))).status, 201);
      failure(await call("GET", `${secrets}/dry`), 404, "NotFound");
    });

    test("a list comes in pages of one snapshot", async () => {
      for (const index of [1, 2, 3, 4, 5])
        await call("POST", leases, { metadata: { name: `page-${index}`, labels: { set: "pages" } } });
      const names: string[] = [];
      const versions = new Set<string>();
      let token = "";
      do {
        const path = `${leases}?labelSelector=set%3Dpages&limit=2&continue=${encodeURIComponent(token)}`;
        const { body } = await call("GET", path);
        assert.equal(body.kind, "LeaseList");
        assert.equal(body.items[0]?.kind, undefined);
        for (const item of body.items) names.push(item.metadata.name);
        versions.add(body.metadata.resourceVersion);
        token = body.metadata.continue ?? "";
        await call("DELETE", `${leases}/page-5`); // after the snapshot was taken
      } while (token !== "");
      assert.deepEqual(names, ["page-1", "page-2", "page-3", "page-4", "page-5"]);
      assert.equal(versions.size, 1);
    });

    test("selectors choose by label and by name", async () => {
      const named = async (query: string): Promise<string[]> => {
        const { body } = await call("GET", `${leases}?${query}`);
        return body.items.map((item) => item.metadata.name);
      };
      await call("POST", leases, { metadata: { name: "one", labels: { colour: "red" } } });
      await call("POST", leases, { metadata: { name: "two", labels: { colour: "blue", big: "yes" } } });
      assert.deepEqual(await named(`labelSelector=${encodeURIComponent("colour in (red,green)")}`), ["one"]);
      assert.deepEqual(await named(`labelSelector=${encodeURIComponent("colour,colour!=red")}`), ["two"]);
      assert.deepEqual(await named(`labelSelector=${encodeURIComponent("colour,!big")}`), ["one"]);
      assert.deepEqual(await named("fieldSelector=metadata.name%3Dtwo"), ["two"]);
    });

    test("a watch continues after a version and shows each change in order", async () => {
      const version = await versionOf(leases);
      await call("POST", leases, { metadata: { name: "watched", labels: { w: "1" } } });
      using events = await watch(
        `${leases}?resourceVersion=${version}&fieldSelector=metadata.name%3Dwatched`,
      );
      const added = await events.next();
      assert.equal(added.type, "ADDED");
      assert.equal(added.object.kind, "Lease");
      await call("PATCH", `${leases}/watched`, { metadata: { labels: { w: "2" } } }, MERGE);
      const modified = await events.next();
      assert.deepEqual([modified.type, modified.object.metadata.labels.w], ["MODIFIED", "2"]);
      await call("DELETE", `${leases}/watched`);
      const deleted = await events.next();
      assert.equal(deleted.type, "DELETED");
      assert.ok(
        Number(deleted.object.metadata.resourceVersion) > Number(modified.object.metadata.resourceVersion),
      );
    });

    test("a watch with a selector sees an object that stops matching as deleted", async () => {
      const version = await versionOf(leases);
      using events = await watch(`${leases}?resourceVersion=${version}&labelSelector=side%3Dleft`);
      await call("POST", leases, { metadata: { name: "sided", labels: { side: "left" } } });
      assert.equal((await events.next()).type, "ADDED");
      await call("PATCH", `${leases}/sided`, { metadata: { labels: { side: "right" } } }, MERGE);
      assert.equal((await events.next()).type, "DELETED");
      await call("PATCH", `${leases}/sided`, { metadata: { labels: { side: "left" } } }, MERGE);
      assert.equal((await events.next()).type, "ADDED");
    });

    async function versionOf(path: string): Promise<string> {
      return (await call("GET", `${path}?limit=1`)).body.metadata.resourceVersion;
    }
  });
}
