// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { hasCode } from "#errors";
import { loadHosts } from "./index.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "hosts-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function write(name: string, text: string): Promise<void> {
  await mkdir(join(folder, name), { recursive: true });
  await writeFile(join(folder, name, "hosts.toml"), text);
}

const origins = async (registry: string, signal: AbortSignal): Promise<string[]> =>
  (await loadHosts(folder, registry, { signal })).map((host) => host.origin);

test("without a folder the registry itself is asked, over TLS unless it is on loopback", async (t) => {
  assert.deepEqual(await origins("registry.example.test", t.signal), ["https://registry.example.test"]);
  assert.deepEqual(await origins("docker.io", t.signal), ["https://registry-1.docker.io"]);
  assert.deepEqual(await origins("127.0.0.5:5000", t.signal), ["http://127.0.0.5:5000"]);
  assert.deepEqual(await origins("localhost:5000", t.signal), ["http://localhost:5000"]);
  assert.deepEqual(await origins("[::1]:5000", t.signal), ["http://[::1]:5000"]);
});

test("the file that the node agent writes puts the mirror before the registry", async (t) => {
  await write(
    "_default",
    '# managed by gardener-node-agent\n[host."http://localhost:5000"]\n  capabilities = ["pull","resolve"]\n\n',
  );
  const [mirror, upstream, more] = await loadHosts(folder, "registry.example.test", { signal: t.signal });
  assert.equal(more, undefined);
  assert.deepEqual(mirror, {
    origin: "http://localhost:5000",
    path: "/v2",
    capabilities: ["pull", "resolve"],
    authorities: [],
    headers: {},
    mirror: true,
  });
  assert.equal(upstream?.mirror, false);
  assert.deepEqual(upstream?.capabilities, ["pull", "resolve", "push"]);
});

test("the most specific folder counts alone, even when it is empty", async (t) => {
  await write("_default", '[host."http://localhost:1"]');
  await write("example.test", '[host."http://localhost:2"]');
  await write("example.test:443", '[host."http://localhost:3"]');
  await write("example.test_444_", '[host."http://localhost:4"]');
  await mkdir(join(folder, "empty.test"));
  assert.equal((await origins("other.test", t.signal))[0], "http://localhost:1");
  assert.equal((await origins("example.test", t.signal))[0], "http://localhost:2");
  assert.equal((await origins("example.test:443", t.signal))[0], "http://localhost:3");
  assert.equal((await origins("example.test:444", t.signal))[0], "http://localhost:4");
  assert.equal((await origins("example.test:445", t.signal))[0], "http://localhost:2");
  assert.deepEqual(await origins("empty.test", t.signal), ["https://empty.test"]);
});

test("server, order, path, authorities and headers are taken from the file", async (t) => {
  await write(
    "example.test",
    `server = "http://upstream.test:8080"
[host."https://b.test/prefix"]
ca = "b.crt"
[host."a.test"]
capabilities = ["pull"]
[host."https://c.test/whole/path"]
override_path = true
[host."https://c.test/whole/path".header]
x-one = "1"
x-two = ["2", "3"]
`,
  );
  await writeFile(join(folder, "example.test", "b.crt"), "PEM");
  const hosts = await loadHosts(folder, "example.test", { signal: t.signal });
  assert.deepEqual(
    hosts.map((host) => host.origin + host.path),
    [
      "https://b.test/prefix/v2",
      "https://a.test/v2",
      "https://c.test/whole/path",
      "http://upstream.test:8080/v2",
    ],
  );
  assert.deepEqual(hosts[0]?.authorities, ["PEM"]);
  assert.deepEqual(hosts[1]?.capabilities, ["pull"]);
  assert.deepEqual(hosts[2]?.headers, { "x-one": "1", "x-two": "2" });
});

test("a file that containerd cannot use is refused with its path and the reason", async (t) => {
  for (const [text, reason] of [
    ["[host", /hosts.toml/],
    ['host = "x"', /host is not a table/],
    ["server = 1", /server is not a string/],
    ['[host."ftp://x"]', /neither http nor https/],
    ['[host."http://:::"]', /not a URL/],
    ['[host."http://x"]\ncapabilities = ["fly"]', /capabilities/],
    ['[host."http://x"]\nca = "absent.crt"', /absent\.crt/],
    ['[host."http://x"]\nca = 5', /ca is neither/],
    ['[host."http://x"]\nheader = { a = 5 }', /header a/],
  ] as const) {
    await write("_default", text);
    await assert.rejects(
      loadHosts(folder, "example.test", { signal: t.signal }),
      (error) => hasCode(error, "PULL_HOSTS_INVALID") && reason.test(error.message),
      text,
    );
  }
});
