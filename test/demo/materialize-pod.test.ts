// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { hasCode } from "#errors";
import { type DeploymentView, materializePod } from "./materialize-pod.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "pod-"));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

type Container = DeploymentView["spec"]["template"]["spec"]["containers"][number];
type Pod = DeploymentView["spec"]["template"]["spec"];

function deployment(
  change: { readonly container?: Partial<Container>; readonly pod?: Partial<Pod> } = {},
): DeploymentView {
  const container: Container = {
    name: "bootstrapper",
    args: [
      "--listen-address=:8443",
      "--health-address=:8081",
      "--certificate-directory=/etc/tls",
      "--limit=10",
    ],
    env: [{ name: "KUBECONFIG", value: "/var/run/kube/kubeconfig" }, { name: "POD_NAME" }],
    ports: [
      { name: "https", containerPort: 8443 },
      { name: "health", containerPort: 8081 },
    ],
    volumeMounts: [
      { name: "tls", mountPath: "/etc/tls" },
      { name: "kube", mountPath: "/var/run/kube" },
      { name: "tmp", mountPath: "/tmp" },
    ],
    readinessProbe: { httpGet: { path: "/readyz", port: "health" } },
    ...change.container,
  };
  const pod: Pod = {
    containers: [container],
    volumes: [
      {
        name: "tls",
        projected: {
          sources: [
            { secret: { name: "server" } },
            { secret: { name: "bundle", items: [{ key: "bundle.crt", path: "ca.crt" }] } },
          ],
        },
      },
      { name: "kube", secret: { secretName: "kubeconfig" } },
      { name: "tmp", emptyDir: {} },
    ],
    ...change.pod,
  };
  return { metadata: { name: "bootstrapper" }, spec: { template: { spec: pod } } };
}

const SECRETS: Readonly<Record<string, Readonly<Record<string, Uint8Array>>>> = {
  server: { "tls.crt": Buffer.from("certificate"), "tls.key": Buffer.from("key") },
  bundle: { "bundle.crt": Buffer.from("authority"), "other.crt": Buffer.from("other") },
  kubeconfig: { kubeconfig: Buffer.from('{"tokenFile":"/var/run/kube/token"}') },
};
const readSecret = (name: string): Readonly<Record<string, Uint8Array>> | undefined => SECRETS[name];

test("volumes become files, and paths and ports in arguments follow", async () => {
  const pod = await materializePod(deployment(), { root, readSecret });
  const text = (path: string): Promise<string> => readFile(join(root, path), "utf8");
  assert.equal(await text("etc/tls/tls.crt"), "certificate");
  assert.equal(await text("etc/tls/ca.crt"), "authority");
  await assert.rejects(text("etc/tls/other.crt"));
  assert.equal(await text("var/run/kube/kubeconfig"), `{"tokenFile":"${root}/var/run/kube/token"}`);
  assert.deepEqual(pod.args, [
    `--listen-address=127.0.0.1:${pod.ports.get(8443)}`,
    `--health-address=127.0.0.1:${pod.ports.get(8081)}`,
    `--certificate-directory=${root}/etc/tls`,
    "--limit=10",
  ]);
  assert.deepEqual(pod.env, { KUBECONFIG: `${root}/var/run/kube/kubeconfig` });
  assert.equal(pod.readinessURL, `http://127.0.0.1:${pod.ports.get(8081)}/readyz`);
});

for (const [what, change, message] of [
  [
    "a Secret is missing",
    { pod: { volumes: [{ name: "tls", secret: { secretName: "absent" } }] } },
    /Secret absent is missing/,
  ],
  [
    "a key is missing",
    {
      pod: { volumes: [{ name: "tls", secret: { secretName: "server", items: [{ key: "x", path: "x" }] } }] },
    },
    /Secret server has no x/,
  ],
  [
    "a path leaves the volume",
    {
      pod: {
        volumes: [
          { name: "tls", secret: { secretName: "server", items: [{ key: "tls.crt", path: "../x" }] } },
        ],
      },
    },
    /outside of its volume/,
  ],
  ["a mount has no volume", { pod: { volumes: [] } }, /no volume of it/],
  ["a volume is of another kind", { pod: { volumes: [{ name: "tls" }] } }, /neither a Secret/],
  [
    "there are two containers",
    { pod: { containers: [{ name: "a" }, { name: "b" }] } },
    /exactly one container/,
  ],
  ["there is no probe", { pod: { containers: [{ name: "a" }] } }, /no readiness probe/],
  [
    "the probe goes nowhere",
    { container: { readinessProbe: { httpGet: { port: "absent" } } } },
    /where nothing listens/,
  ],
] as const satisfies readonly (readonly [string, Parameters<typeof deployment>[0], RegExp])[]) {
  test(`a pod cannot run when ${what}`, async () => {
    await assert.rejects(
      materializePod(deployment(change), { root, readSecret }),
      (error) => hasCode(error, "DEMO_STEP_FAILED") && message.test(error.message),
    );
  });
}
