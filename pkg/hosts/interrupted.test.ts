// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  configure,
  containerdView,
  type Files,
  Killed,
  killedAfter,
  openTestFolder,
  restore,
  type TestFolder,
} from "./testing.ts";

/** A folder with all that certs.d may hold. */
const BEFORE: Files = {
  "_default/hosts.toml": "[host.'https://cache.example.com']\ncapabilities = ['pull']",
  "docker.io/hosts.toml": "server = 'https://docker.example.com'\nca = 'ca.crt'",
  "docker.io/ca.crt": "PEM",
  "docker.io/nested/deep.pem": "PEM",
  "quay.io/hosts.toml": { text: "server = 'https://quay.example.com'", mode: 0o600 },
  "certs.example.com/ca.crt": "PEM",
  "a.example.com_5000_/hosts.toml": "server = 'http://a.example.com:5000'",
  "linked.example.com/hosts.toml": { link: "../quay.io/hosts.toml" },
  "notes.txt": "notes",
  "empty/": "",
};
const HOSTS = [
  "docker.io",
  "quay.io",
  "certs.example.com",
  "a.example.com:5000",
  "other.example.com",
  "new.example.com",
];

const LATER: Files = {
  "new.example.com/hosts.toml": "server = 'https://new.example.com'",
  "quay.io/later.txt": "later",
};

type Step = (folder: TestFolder, fs?: Parameters<typeof configure>[2]) => Promise<unknown> | void;

const LIST = ["https://docker.io", "https://quay.io", "http://a.example.com:5000"];
const SCENARIOS: readonly { readonly name: string; readonly earlier: readonly Step[]; readonly cut: Step }[] =
  [
    { name: "a first run", earlier: [], cut: (folder, fs) => configure(folder, {}, fs) },
    {
      name: "a first run with a list",
      earlier: [],
      cut: (folder, fs) => configure(folder, { mirroredRegistries: LIST }, fs),
    },
    {
      name: "a first run with prepend",
      earlier: [],
      cut: (folder, fs) => configure(folder, { prependExisting: true }, fs),
    },
    {
      name: "a run with other settings, after files were added",
      earlier: [(folder) => configure(folder, { prependExisting: true }), (folder) => folder.put(LATER)],
      cut: (folder, fs) => configure(folder, { mirroredRegistries: LIST, resolveTags: false }, fs),
    },
    {
      name: "a run that changes to prepend, after files were added",
      earlier: [(folder) => configure(folder), (folder) => folder.put(LATER)],
      cut: (folder, fs) => configure(folder, { prependExisting: true }, fs),
    },
    {
      name: "a clean-up",
      earlier: [(folder) => configure(folder), (folder) => folder.put({ ...LATER, "_default/mine": "m" })],
      cut: restore,
    },
    {
      name: "a clean-up after prepend",
      earlier: [(folder) => configure(folder, { prependExisting: true }), (folder) => folder.put(LATER)],
      cut: restore,
    },
  ];

async function prepared(earlier: readonly Step[]): Promise<TestFolder> {
  const folder = await openTestFolder(BEFORE);
  for (const step of earlier) await step(folder);
  return folder;
}

async function viewOf(folder: TestFolder): Promise<readonly string[]> {
  return await Promise.all(HOSTS.map((host) => containerdView(folder.root, host)));
}

describe("a run that is killed anywhere", () => {
  for (const { name, earlier, cut } of SCENARIOS) {
    it(`can be repeated, and never leaves containerd without configuration: ${name}`, async () => {
      await using whole = await prepared(earlier);
      const foreign = earlier.length > 0;
      const oldView = await viewOf(whole);
      const counted = killedAfter(Number.POSITIVE_INFINITY);
      await cut(whole, counted.fs);
      const [files, newView] = [whole.list({ withBackup: true }), await viewOf(whole)];
      assert.ok(counted.count() > 20, `only ${counted.count()} changes`);

      for (let steps = 0; steps < counted.count(); steps++) {
        const at = `killed at change ${steps} of ${counted.count()}`;
        await using folder = await prepared(earlier);
        await assert.rejects(async () => cut(folder, killedAfter(steps).fs), Killed, at);
        const view = await viewOf(folder);
        for (const [index, host] of HOSTS.entries()) {
          const allowed = [oldView[index], newView[index]];
          assert.ok(
            allowed.includes(view[index]),
            `${at}: ${host} has ${view[index]}, not ${allowed.join(" or ")}`,
          );
        }
        await cut(folder);
        assert.deepEqual(folder.list({ withBackup: true }), files, at);
      }
      assert.equal(
        foreign,
        Object.keys(LATER).every((path) => path in files || `_backup/${path}` in files),
      );
    });

    it(`can be cleaned up right away: ${name}`, async () => {
      await using whole = await prepared(earlier);
      const changes = killedAfter(Number.POSITIVE_INFINITY);
      await cut(whole, changes.fs);
      await restore(whole);
      const files = whole.list({ withBackup: true });
      for (const [path, value] of Object.entries(BEFORE)) assert.deepEqual(files[path], value, path);
      for (let steps = 0; steps < changes.count(); steps += 3) {
        await using folder = await prepared(earlier);
        await assert.rejects(async () => cut(folder, killedAfter(steps).fs), Killed);
        await restore(folder);
        assert.deepEqual(folder.list({ withBackup: true }), files, `killed at change ${steps}`);
      }
    });
  }
});
