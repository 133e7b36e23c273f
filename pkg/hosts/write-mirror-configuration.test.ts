// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import nodeFS, { lstat, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { hasCode } from "#errors";
import { silentLogger } from "#log";
import { configure, type Files, openTestFolder, restore, TARGET } from "./testing.ts";

const MIRROR = `[host.'${TARGET}']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'`;

describe("hosts.toml files are Spegel's, byte for byte", () => {
  const cases: readonly {
    readonly name: string;
    readonly settings: Parameters<typeof configure>[1];
    readonly before?: Files;
    readonly after: Files;
  }[] = [
    { name: "a wildcard has no server line", settings: {}, after: { "_default/hosts.toml": MIRROR } },
    ...["*", "_default"].map((wildcard) => ({
      name: `${wildcard} is the wildcard`,
      settings: { mirroredRegistries: [wildcard] },
      after: { "_default/hosts.toml": MIRROR },
    })),
    {
      name: "targets keep their order, with an empty line between",
      settings: {
        mirroredRegistries: ["http://foo.bar:5000"],
        mirrorTargets: ["http://127.0.0.1:5000", "http://127.0.0.2:5000", "http://127.0.0.1:5001"],
      },
      after: {
        "foo.bar:5000/hosts.toml": `server = 'http://foo.bar:5000'

[host.'http://127.0.0.1:5000']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'

[host.'http://127.0.0.2:5000']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'

[host.'http://127.0.0.1:5001']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'`,
      },
    },
    {
      name: "docker.io is served by registry-1.docker.io, and tags may be off",
      settings: { mirroredRegistries: ["https://docker.io", "https://quay.io"], resolveTags: false },
      after: {
        "docker.io/hosts.toml": `server = 'https://registry-1.docker.io'

[host.'${TARGET}']
capabilities = ['pull']
dial_timeout = '200ms'`,
        "quay.io/hosts.toml": `server = 'https://quay.io'

[host.'${TARGET}']
capabilities = ['pull']
dial_timeout = '200ms'`,
      },
    },
    {
      name: "a list and a wildcard give both",
      settings: { mirroredRegistries: ["https://quay.io", "*"] },
      after: {
        "quay.io/hosts.toml": `server = 'https://quay.io'\n\n${MIRROR}`,
        "_default/hosts.toml": MIRROR,
      },
    },
    {
      name: "credentials follow each target without an empty line, readable for the owner alone",
      settings: {
        mirrorTargets: ["http://127.0.0.1:5000", "http://127.0.0.1:5001"],
        authorization: "Basic aGVsbG86d29ybGQ=",
      },
      after: {
        "_default/hosts.toml": {
          mode: 0o600,
          text: `[host.'http://127.0.0.1:5000']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'
[host.'http://127.0.0.1:5000'.header]
Authorization = 'Basic aGVsbG86d29ybGQ='

[host.'http://127.0.0.1:5001']
capabilities = ['pull', 'resolve']
dial_timeout = '200ms'
[host.'http://127.0.0.1:5001'.header]
Authorization = 'Basic aGVsbG86d29ybGQ='`,
        },
      },
    },
    {
      name: "every IPv6 target gets its brackets",
      settings: {
        mirrorTargets: ["http://fc00:f853:ccd:e793::2:30020", "http://::1:30021", "http://[fd00::1]:30022"],
      },
      after: {
        "_default/hosts.toml": ["[fc00:f853:ccd:e793::2]:30020", "[::1]:30021", "[fd00::1]:30022"]
          .map(
            (host) => `[host.'http://${host}']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'`,
          )
          .join("\n\n"),
      },
    },
    {
      name: "the mode of the file that was there stays",
      settings: { mirroredRegistries: ["https://quay.io"] },
      before: { "quay.io/hosts.toml": { text: "server = 'https://other'", mode: 0o600 } },
      after: { "quay.io/hosts.toml": { text: `server = 'https://quay.io'\n\n${MIRROR}`, mode: 0o600 } },
    },
    {
      name: "what was there is in the backup only",
      settings: { mirroredRegistries: ["https://docker.io"] },
      before: {
        "docker.io/hosts.toml": "hello = 'world'",
        "ghcr.io/hosts.toml": "foo = 'bar'",
        "a.txt": "a",
      },
      after: { "docker.io/hosts.toml": `server = 'https://registry-1.docker.io'\n\n${MIRROR}` },
    },
  ];
  for (const { name, settings, before = {}, after } of cases) {
    it(name, async () => {
      await using folder = await openTestFolder(before);
      await configure(folder, settings);
      assert.deepEqual(folder.list(), after);
      const backup = Object.entries(before).map(([path, value]) => [`_backup/${path}`, value]);
      assert.deepEqual(folder.list({ withBackup: true }), {
        ...(backup.length === 0 ? { "_backup/": "" } : {}),
        ...Object.fromEntries(backup),
        ...after,
      });
      await restore(folder);
      assert.deepEqual(folder.list({ withBackup: true }), before);
    });
  }
});

describe("prepend keeps what containerd used", () => {
  it("writes existing hosts after ours as go-toml does", async () => {
    const existing = `# a comment
server = "https://registry-1.docker.io"
[host."https://mirror.registry"]
  capabilities = ["pull"]
  ca = "/etc/certs/mirror.pem"
  skip_verify = false
  [host."https://mirror.registry".header]
    x-custom-2 = ["value1", "value2"]

[host]

[host."https://mirror-bak.registry/us"]
  skip_verify = true
  capabilities = ["pull"]

[host."https://test-1.registry"]
  capabilities = ["pull", "resolve", "push"]
  ca = ["/etc/certs/test-1-ca.pem", "/etc/certs/special.pem"]
  client = [["/etc/certs/client.cert", "/etc/certs/client.key"],["/etc/certs/client.pem", ""]]

[host."https://non-compliant-mirror.registry/v2/upstream"]
  capabilities = ["pull"]
  override_path = true
`;
    await using folder = await openTestFolder({
      "docker.io/hosts.toml": existing,
      "docker.io/hello.txt": "Hello",
      "docker.io/nested/cert.tls": "Foo Bar",
    });
    await configure(folder, { mirroredRegistries: ["https://docker.io"], prependExisting: true });
    assert.deepEqual(folder.list(), {
      "docker.io/hello.txt": "Hello",
      "docker.io/nested/cert.tls": "Foo Bar",
      "docker.io/hosts.toml": `server = 'https://registry-1.docker.io'

${MIRROR}

[host.'https://mirror.registry']
ca = '/etc/certs/mirror.pem'
capabilities = ['pull']
skip_verify = false

[host.'https://mirror.registry'.header]
x-custom-2 = ['value1', 'value2']

[host.'https://mirror-bak.registry/us']
capabilities = ['pull']
skip_verify = true

[host.'https://test-1.registry']
ca = ['/etc/certs/test-1-ca.pem', '/etc/certs/special.pem']
capabilities = ['pull', 'resolve', 'push']
client = [['/etc/certs/client.cert', '/etc/certs/client.key'], ['/etc/certs/client.pem', '']]

[host.'https://non-compliant-mirror.registry/v2/upstream']
capabilities = ['pull']
override_path = true`,
    });
  });

  it("keeps the server, its options and hosts that exist through a sub-table alone", async () => {
    await using folder = await openTestFolder({
      "quay.io/hosts.toml": `server = 'https://cache.example.com'
ca = "ca.pem"
override_path = true
[header]
x-team = "a'b"
[host.'https://only.example.com'.header]
x = 'y'
["host"."https://quoted.example.com"]
`,
    });
    await configure(folder, { mirroredRegistries: ["https://quay.io"], prependExisting: true });
    assert.equal(
      folder.list()["quay.io/hosts.toml"],
      `server = 'https://cache.example.com'
ca = 'ca.pem'
override_path = true

[header]
x-team = "a'b"

${MIRROR}

[host.'https://only.example.com']
[host.'https://only.example.com'.header]
x = 'y'

[host.'https://quoted.example.com']`,
    );
  });

  it("puts the mirror into every folder that would shadow the wildcard, and keeps the rest", async () => {
    const before = {
      "_default/hosts.toml": "[host.'https://old.example.com']\ncapabilities = ['pull']",
      "quay.io/hosts.toml": "server = 'https://quay.example.com'",
      README: "notes",
      "shared/ca.pem": "PEM",
      "empty.example.com/": "",
    };
    await using folder = await openTestFolder(before);
    await configure(folder, { prependExisting: true });
    assert.deepEqual(folder.list(), {
      "_default/hosts.toml": `${MIRROR}\n\n[host.'https://old.example.com']\ncapabilities = ['pull']`,
      "quay.io/hosts.toml": `server = 'https://quay.example.com'\n\n${MIRROR}`,
      "empty.example.com/hosts.toml": MIRROR,
      README: "notes",
      "shared/ca.pem": "PEM",
    });
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), before);
  });

  it("leaves folders of unlisted registries as they were", async () => {
    const other = { "ghcr.io/hosts.toml": "server = 'https://ghcr.example.com'", "ghcr.io/ca.crt": "PEM" };
    await using folder = await openTestFolder(other);
    await configure(folder, { mirroredRegistries: ["https://quay.io"], prependExisting: true });
    assert.deepEqual(folder.list(), {
      ...other,
      "quay.io/hosts.toml": `server = 'https://quay.io'\n\n${MIRROR}`,
    });
  });

  it("writes into the folder that containerd prefers for a host with a port", async () => {
    const old = "server = 'https://a.example.com:5000'\nca = 'ca.crt'";
    await using folder = await openTestFolder({
      "a.example.com_5000_/hosts.toml": old,
      "a.example.com_5000_/ca.crt": "PEM",
      "a.example.com:5000/hosts.toml": "server = 'https://shadowed'",
    });
    await configure(folder, { mirroredRegistries: ["https://a.example.com:5000"], prependExisting: true });
    assert.deepEqual(folder.list(), {
      "a.example.com_5000_/hosts.toml": `${old}\n\n${MIRROR}`,
      "a.example.com_5000_/ca.crt": "PEM",
      "a.example.com:5000/hosts.toml": "server = 'https://shadowed'",
    });
  });

  it("names the certificates that containerd took by their file names", async () => {
    await using folder = await openTestFolder({
      "a.example.com/ca.crt": "PEM",
      "a.example.com/client.cert": "PEM",
      "a.example.com/client.key": "PEM",
      "b.example.com/alone.cert": "PEM",
      "b.example.com/hosts.toml": "",
    });
    await configure(folder, { prependExisting: true });
    const files = folder.list();
    assert.equal(
      files["a.example.com/hosts.toml"],
      `ca = ['ca.crt']\nclient = [['client.cert', 'client.key']]\n\n${MIRROR}`,
    );
    assert.equal(files["b.example.com/hosts.toml"], `client = ['alone.cert']\n\n${MIRROR}`);
  });

  it("does not ask a mirror twice", async () => {
    await using folder = await openTestFolder({
      "_default/hosts.toml": `[host."${TARGET}"]\n[host."https://b.example.com"]`,
    });
    await configure(folder, { prependExisting: true });
    assert.equal(folder.list()["_default/hosts.toml"], `${MIRROR}\n\n[host.'https://b.example.com']`);
  });
});

describe("hostile and broken folders", () => {
  for (const [what, text] of [
    ["no TOML", "[host.'https://a'\ncapabilities ="],
    ["a capability that containerd refuses", "[host.'https://a']\ncapabilities = ['fetch']"],
    ["a host that is no table", "[host]\n'https://a' = 1"],
    ["deep nesting", `a = ${"[".repeat(2000)}${"]".repeat(2000)}`],
    ["an unsafe key", "[host.__proto__]\ncapabilities = ['pull']"],
  ] as const) {
    it(`takes a file with ${what} as containerd does: its certificates count, its hosts do not`, async () => {
      const before = { "quay.io/hosts.toml": text, "quay.io/ca.crt": "PEM" };
      await using folder = await openTestFolder(before);
      await configure(folder, { prependExisting: true });
      assert.equal(folder.list()["quay.io/hosts.toml"], `ca = ['ca.crt']\n\n${MIRROR}`);
      await restore(folder);
      assert.deepEqual(folder.list({ withBackup: true }), before);
    });
  }

  it("reads through links, also to files that the backup holds, and restores them", async () => {
    const before = {
      "common.toml": "[host.'https://common.example.com']",
      "quay.io/hosts.toml": { link: "../common.toml" },
      "ghcr.io/hosts.toml": { link: "../quay.io/hosts.toml" },
    };
    await using folder = await openTestFolder(before);
    for (let run = 0; run < 2; run++) {
      await configure(folder, { prependExisting: true });
      const files = folder.list();
      assert.equal(files["quay.io/hosts.toml"], `${MIRROR}\n\n[host.'https://common.example.com']`);
      assert.equal(files["ghcr.io/hosts.toml"], files["quay.io/hosts.toml"]);
      assert.equal(files["common.toml"], before["common.toml"]);
    }
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), before);
  });

  it("leaves what it cannot read as it is: loops, linked folders, huge files, a folder named hosts.toml", async () => {
    const before = {
      "loop.example.com/hosts.toml": { link: "hosts.toml" },
      "gone.example.com/hosts.toml": { link: "/nonexistent/hosts.toml" },
      "linked.example.com": { link: "../elsewhere" },
      "huge.example.com/hosts.toml": `# ${"x".repeat(1024 * 1024)}`,
      "folder.example.com/hosts.toml/a": "a",
    };
    await using folder = await openTestFolder(before);
    await configure(folder, { prependExisting: true });
    assert.deepEqual(folder.list(), { ...before, "_default/hosts.toml": MIRROR });
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), before);
  });

  it("never writes through a link that stands in its place", async () => {
    await using outside = await openTestFolder({ "hosts.toml": "untouched" });
    const before = {
      "quay.io": { link: outside.root },
      "docker.io/hosts.toml": { link: join(outside.root, "hosts.toml") },
      "ghcr.io": "a file",
      "gcr.io/hosts.toml/deep/file": "b",
    };
    await using folder = await openTestFolder(before);
    const mirroredRegistries = ["quay.io", "docker.io", "ghcr.io", "gcr.io"].map((host) => `https://${host}`);
    await configure(folder, { mirroredRegistries });
    assert.deepEqual(outside.list(), { "hosts.toml": "untouched" });
    assert.deepEqual(
      Object.keys(folder.list()),
      ["docker.io", "gcr.io", "ghcr.io", "quay.io"].map((host) => `${host}/hosts.toml`),
    );
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), before);
  });

  it("refuses a backup that is no folder, and folders beyond all measure, before it changes anything", async () => {
    await using linked = await openTestFolder({ _backup: { link: "/tmp" }, "a.txt": "a" });
    await assert.rejects(configure(linked), (error) => hasCode(error, "HOSTS_TREE_UNSUPPORTED"));
    await using deep = await openTestFolder({ [`${"d/".repeat(12)}file`]: "a" });
    await assert.rejects(configure(deep), /8 levels/);
    assert.deepEqual(deep.list({ withBackup: true }), { [`${"d/".repeat(12)}file`]: "a" });
  });

  it("names the file that cannot be read", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    const fs = new Proxy(nodeFS, {
      get(target, name: keyof typeof nodeFS) {
        if (name !== "readFile") return target[name];
        return (path: string) =>
          path.endsWith("quay.io/hosts.toml")
            ? Promise.reject(Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" }))
            : readFile(path, "utf8");
      },
    });
    await assert.rejects(
      configure(folder, { prependExisting: true }, fs),
      (error) =>
        hasCode(error, "HOSTS_ACCESS_FAILED") && /quay\.io\/hosts\.toml cannot be read/.test(error.message),
    );
    assert.equal(folder.list()["quay.io/hosts.toml"], "server = 'https://a'");
  });

  it("refuses URLs that are no plain registry", async () => {
    await using folder = await openTestFolder();
    const bad = [
      "quay.io",
      "ftp://quay.io",
      "https://quay.io/path",
      "https://user:secret@quay.io",
      "https://quay.io?x",
      "https://a'b",
      "https://..",
      "https://a\nb",
    ];
    for (const url of bad) {
      const isRefused = (error: unknown): boolean => hasCode(error, "HOSTS_SETTING_INVALID");
      await assert.rejects(configure(folder, { mirroredRegistries: [url] }), isRefused, url);
      await assert.rejects(configure(folder, { mirrorTargets: [url] }), isRefused, url);
    }
    await assert.rejects(configure(folder, { mirrorTargets: ["*"] }), /mirror target/);
    await assert.rejects(configure(folder, { mirrorTargets: [] }), /no mirror target/);
    assert.deepEqual(folder.list({ withBackup: true }), {});
  });

  it("copies where links are impossible", async () => {
    const before = {
      "quay.io/hosts.toml": { text: "server = 'https://a'", mode: 0o640 },
      "quay.io/ca.crt": { link: "/etc/ca.crt" },
    };
    await using folder = await openTestFolder(before);
    const fs = new Proxy(nodeFS, {
      get: (target, name: keyof typeof nodeFS) =>
        name === "link"
          ? () => Promise.reject(Object.assign(new Error("EXDEV"), { code: "EXDEV" }))
          : target[name],
    });
    await configure(folder, {}, fs);
    assert.deepEqual(folder.list(), { "_default/hosts.toml": MIRROR });
    await restore(folder, fs);
    assert.deepEqual(folder.list({ withBackup: true }), before);
  });
});

describe("what is told", () => {
  async function warningsOf(files: Files, settings: Parameters<typeof configure>[1]): Promise<string[]> {
    await using folder = await openTestFolder();
    await configure(folder);
    folder.put(files);
    const warnings: string[] = [];
    await configure(folder, settings, undefined, {
      ...silentLogger,
      warn: (message, fields) => warnings.push(`${message} ${JSON.stringify(fields)}`),
    });
    return warnings;
  }

  it("is nothing when all is well", async () => {
    assert.deepEqual(await warningsOf({ "quay.io/hosts.toml": "server = 'https://a'" }, {}), []);
  });

  it("names the file that containerd refuses, with line and column", async () => {
    const files = { "quay.io/hosts.toml": "server = 'https://a'\nca = " };
    const [kept = "", warning = "", ...more] = await warningsOf(files, { prependExisting: true });
    assert.match(kept, /in the backup.*quay\.io\/hosts\.toml/);
    assert.match(warning, /containerd refuses this file.*quay\.io\/hosts\.toml.*line 2, column/);
    assert.deepEqual(more, []);
  });

  it("is that old containerds cannot read IPv6 addresses", async () => {
    const [warning = ""] = await warningsOf({}, { mirrorTargets: ["http://fd00::7:30020"] });
    assert.match(warning, /before 2\.0 .*\[fd00::7\]/);
  });

  it("is that a later folder keeps containerd from the mirror", async () => {
    const files = { "a.example.com_5000_/hosts.toml": "server = 'https://a'" };
    const [warning = ""] = await warningsOf(files, { mirroredRegistries: ["https://a.example.com:5000"] });
    assert.match(warning, /the mirror is not asked.*a\.example\.com_5000_/);
  });
});

describe("what people change after the first run", () => {
  it("stays in place where we write nothing", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    await configure(folder);
    const later = {
      "new.example.com/hosts.toml": "server = 'https://b'",
      "_default/notes": "n",
      "late/": "",
    };
    folder.put(later);
    await configure(folder);
    assert.deepEqual(folder.list(), { ...later, "_default/hosts.toml": MIRROR });
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      ...later,
      "quay.io/hosts.toml": "server = 'https://a'",
    });
  });

  it("gets the mirror in front with prepend", async () => {
    await using folder = await openTestFolder();
    await configure(folder, { prependExisting: true });
    folder.put({ "new.example.com/hosts.toml": "server = 'https://b'" });
    await configure(folder, { prependExisting: true });
    assert.equal(folder.list()["new.example.com/hosts.toml"], `server = 'https://b'\n\n${MIRROR}`);
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "new.example.com/hosts.toml": "server = 'https://b'",
    });
  });

  it("is kept when it took the place of our file: the newer one comes back, the older beside it", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://v1'" });
    const settings = { mirroredRegistries: ["https://quay.io"] };
    await configure(folder, settings);
    for (const version of ["server = 'https://v2'", "no toml ["]) {
      await writeFile(join(folder.root, "quay.io/hosts.toml"), version);
      await configure(folder, settings);
      assert.match(JSON.stringify(folder.list()["quay.io/hosts.toml"]), /10\.0\.0\.7/);
    }
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "quay.io/hosts.toml": "no toml [",
      "quay.io/hosts.toml.spegel-replaced": "server = 'https://v2'",
    });
  });

  it("is kept beside the original when it is an edited copy of our file", async () => {
    await using folder = await openTestFolder({ "_default/hosts.toml": "server = 'https://v1'" });
    await configure(folder);
    const edited = MIRROR.replace("200ms", "900ms");
    await writeFile(join(folder.root, "_default/hosts.toml"), edited);
    // The target changes at the same time: the record still knows the one in the file.
    await configure(folder, { mirrorTargets: ["http://10.0.0.8:30020"] });
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "_default/hosts.toml": "server = 'https://v1'",
      "_default/hosts.toml.spegel-edited": edited,
    });
  });

  it("survives a clean-up that comes before the next run", async () => {
    await using folder = await openTestFolder({ "_default/hosts.toml": "server = 'https://v1'" });
    await configure(folder);
    await writeFile(join(folder.root, "_default/hosts.toml"), "server = 'https://v2'");
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "_default/hosts.toml": "server = 'https://v2'",
      "_default/hosts.toml.spegel-replaced": "server = 'https://v1'",
    });
  });
});

describe("running again", () => {
  it("changes nothing with the same settings: the very same files stay", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    const settings = { prependExisting: true };
    await configure(folder, settings);
    const inode = (await lstat(join(folder.root, "quay.io/hosts.toml"))).ino;
    const files = folder.list({ withBackup: true });
    await configure(folder, settings);
    assert.deepEqual(folder.list({ withBackup: true }), files);
    assert.equal((await lstat(join(folder.root, "quay.io/hosts.toml"))).ino, inode);
  });

  it("removes files of settings that no longer hold", async () => {
    const before = { "quay.io/hosts.toml": "server = 'https://a'", "quay.io/ca.crt": "PEM" };
    await using folder = await openTestFolder(before);
    await configure(folder, { prependExisting: true });
    await configure(folder, {
      mirroredRegistries: ["https://docker.io"],
      mirrorTargets: ["http://10.0.0.8:1"],
    });
    assert.deepEqual(Object.keys(folder.list()), ["docker.io/hosts.toml"]);
    await configure(folder, { prependExisting: true });
    assert.deepEqual(Object.keys(folder.list()), [
      "_default/hosts.toml",
      "quay.io/ca.crt",
      "quay.io/hosts.toml",
    ]);
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), before);
  });

  it("gives back the very same files", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    const path = join(folder.root, "quay.io/hosts.toml");
    const before = await lstat(path);
    await configure(folder);
    await restore(folder);
    const after = await lstat(path);
    assert.deepEqual([after.ino, after.mode, after.mtimeMs], [before.ino, before.mode, before.mtimeMs]);
  });

  it("takes over from Spegel, which keeps no record", async () => {
    await using folder = await openTestFolder({
      "_backup/quay.io/hosts.toml": "server = 'https://a'",
      "_backup/quay.io/ca.crt": "PEM",
      "quay.io/hosts.toml": `server = 'https://quay.io'\n\n${MIRROR}`,
      "quay.io/ca.crt": "PEM",
      "ghcr.io/hosts.toml": `server = 'https://ghcr.io'\n\n${MIRROR}`,
      "mine.example.com/hosts.toml": "server = 'https://mine'",
    });
    await configure(folder);
    assert.deepEqual(folder.list(), {
      "_default/hosts.toml": MIRROR,
      "mine.example.com/hosts.toml": "server = 'https://mine'",
    });
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "mine.example.com/hosts.toml": "server = 'https://mine'",
      "quay.io/ca.crt": "PEM",
      "quay.io/hosts.toml": "server = 'https://a'",
    });
  });

  it("does not take its own files for originals when the backup was deleted", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    await configure(folder);
    await rm(join(folder.root, "_backup"), { recursive: true });
    await configure(folder);
    await rm(join(folder.root, "_backup"), { recursive: true });
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {});
  });

  it("cleans up where there is nothing to clean up", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    await restore(folder);
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "quay.io/hosts.toml": "server = 'https://a'",
    });
    await using absent = await openTestFolder();
    await restore(absent);
    assert.deepEqual(absent.list(), {});
  });

  it("works with a damaged record", async () => {
    await using folder = await openTestFolder({ "quay.io/hosts.toml": "server = 'https://a'" });
    await configure(folder);
    await writeFile(join(folder.root, "_spegel.json"), '{"version":1,"files":{"a":1}');
    await configure(folder, { mirroredRegistries: ["https://docker.io"] });
    assert.deepEqual(Object.keys(folder.list()), ["docker.io/hosts.toml"]);
    await restore(folder);
    assert.deepEqual(folder.list({ withBackup: true }), {
      "quay.io/hosts.toml": "server = 'https://a'",
    });
  });

  it("stops at an aborted signal", async () => {
    await using folder = await openTestFolder();
    const { writeMirrorConfiguration } = await import("./index.ts");
    const { silentLogger } = await import("#log");
    await assert.rejects(
      writeMirrorConfiguration(
        { fs: nodeFS, log: silentLogger },
        {
          directory: folder.root,
          mirroredRegistries: [],
          mirrorTargets: [TARGET],
          resolveTags: true,
          prependExisting: false,
        },
        { signal: AbortSignal.abort() },
      ),
      { name: "AbortError" },
    );
    assert.deepEqual(folder.list({ withBackup: true }), {});
  });
});
