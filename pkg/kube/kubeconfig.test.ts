// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { loadKubeConfig, parseKubeConfig, signInWithPlugin } from "./index.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "kubeconfig-"));
});
after(async () => await rm(directory, { recursive: true }));

const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const data = Buffer.from(PEM).toString("base64");

interface Parts {
  cluster?: object;
  user?: object;
  context?: object;
  rest?: object;
}

function config(parts: Parts = {}): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "c",
    clusters: [{ name: "k", cluster: { server: "https://api.example.org:6443", ...parts.cluster } }],
    contexts: [{ name: "c", context: { cluster: "k", user: "u", ...parts.context } }],
    users: [{ name: "u", user: { ...parts.user } }],
    ...parts.rest,
  });
}

const parse = (text: string) => parseKubeConfig(text, { directory, source: "test" });
const rejects = (text: string, message: RegExp) =>
  assert.rejects(parse(text), (error: Error & { code?: string }) => {
    assert.equal(error.code, "KUBE_CONFIG_INVALID");
    assert.match(error.message, message);
    return true;
  });

test("a kubeconfig with inline data gives a complete connection", async () => {
  const text = config({
    cluster: { "certificate-authority-data": data, "tls-server-name": "kubernetes" },
    user: { "client-certificate-data": data, "client-key-data": data },
    context: { namespace: "ns" },
  });
  assert.deepEqual(await parse(text), {
    server: new URL("https://api.example.org:6443"),
    skipVerify: false,
    authoritiesPem: PEM,
    serverName: "kubernetes",
    namespace: "ns",
    clientCertificatePem: PEM,
    clientKeyPem: PEM,
    credential: { kind: "none" },
  });
});

test("tokenFile is understood, wins over token, and is relative to the file", async () => {
  const inFile = await parse(config({ user: { token: "old", tokenFile: "token" } }));
  assert.deepEqual(inFile.credential, { kind: "tokenFile", path: join(directory, "token") });
  const inline = await parse(config({ user: { token: "abc" } }));
  assert.deepEqual(inline.credential, { kind: "token", token: "abc" });
  const password = await parse(config({ user: { username: "me", password: "p" } }));
  assert.deepEqual(password.credential, { kind: "basic", username: "me", password: "p" });
});

test("authority and certificate files are read from beside the kubeconfig", async () => {
  await writeFile(join(directory, "ca.crt"), PEM);
  await writeFile(join(directory, "kubeconfig"), config({ cluster: { "certificate-authority": "ca.crt" } }));
  const connection = await loadKubeConfig({ path: join(directory, "kubeconfig"), env: {} });
  assert.equal(connection.authoritiesPem, PEM);
  const byEnv = await loadKubeConfig({ env: { KUBECONFIG: join(directory, "kubeconfig") } });
  assert.deepEqual(byEnv, connection);
});

test("without a kubeconfig the pod's service account is used", async () => {
  await writeFile(join(directory, "ca.crt"), PEM);
  await writeFile(join(directory, "namespace"), "extension-ns\n");
  const connection = await loadKubeConfig({
    env: { KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "443" },
    serviceAccountDirectory: directory,
  });
  assert.deepEqual(connection, {
    server: new URL("https://[fd00::1]:443"),
    authoritiesPem: PEM,
    skipVerify: false,
    credential: { kind: "tokenFile", path: join(directory, "token") },
    namespace: "extension-ns",
  });
  await assert.rejects(loadKubeConfig({ env: {} }), /KUBERNETES_SERVICE_HOST/);
});

test("what is missing or wrong is named", async () => {
  await rejects("", /not a kubeconfig/);
  await rejects("[]", /not a kubeconfig/);
  await rejects("{a: b: c}", /not valid YAML/);
  await rejects(config({ rest: { "current-context": undefined } }), /current-context is not set/);
  await rejects(config({ rest: { "current-context": "other" } }), /contexts has no entry "other"/);
  await rejects(config({ rest: { clusters: "x" } }), /clusters is not a list/);
  await rejects(config({ rest: { clusters: null } }), /clusters has no entry "k"/);
  await rejects(config({ rest: { users: [null, 7] } }), /users has no entry "u"/);
  await rejects(config({ cluster: { server: undefined } }), /has no server/);
  await rejects(config({ cluster: { server: "ftp://x" } }), /not an HTTP URL/);
  await rejects(config({ cluster: { "proxy-url": "http://proxy" } }), /proxy-url is not supported/);
  await rejects(config({ cluster: { "certificate-authority-data": "!!!" } }), /not base64 of PEM/);
  await rejects(config({ cluster: { "certificate-authority": "absent.crt" } }), /absent\.crt cannot be read/);
  await rejects(config({ user: { token: 7 } }), /token is not a string/);
  await rejects(config({ user: { "client-certificate-data": data } }), /only one of client-certificate/);
  await rejects(config({ user: { exec: { command: "x" } } }), /signs in with a plugin/);
  await assert.rejects(loadKubeConfig({ path: join(directory, "absent"), env: {} }), /cannot be read/);
});

test("an error about the file never quotes its secrets", async () => {
  await assert.rejects(
    parse("users: [{token: topsecret}\n  : : :"),
    (error: Error) => !/topsecret/.test(`${error.stack}${error.cause}`),
  );
});

test("an exec user signs in through the plugin each time a request asks", async () => {
  const answer = {
    apiVersion: "client.authentication.k8s.io/v1",
    kind: "ExecCredential",
    status: { token: "from-plugin" },
  };
  const exec = {
    apiVersion: "client.authentication.k8s.io/v1",
    command: process.execPath,
    args: ["-e", `console.log(${JSON.stringify(JSON.stringify(answer))})`],
    interactiveMode: "Never",
  };
  const connection = await parseKubeConfig(config({ user: { exec } }), {
    directory,
    source: "test",
    signIn: signInWithPlugin,
  });
  assert.equal(connection.credential.kind, "plugin");
  assert.ok(connection.credential.kind === "plugin");
  assert.equal(await connection.credential.authorization(), "Bearer from-plugin");
});
