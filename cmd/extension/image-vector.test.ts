// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ConfigError } from "#config";
import { readFlags } from "./flags.ts";
import { type Images, overwriteImages } from "./image-vector.ts";

const GIVEN = {
  nodeImage: "registry.example.com:5000/a/spegel:v1@sha256:aa",
  bootstrapperImage: "registry.example.com/a/bootstrapper:v1",
};

describe("an image vector", () => {
  let directory: string;
  let count = 0;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "image-vector-"));
  });
  after(() => rm(directory, { recursive: true }));

  async function write(text: string): Promise<string> {
    const file = join(directory, `${count++}.yaml`);
    await writeFile(file, text);
    return file;
  }

  const overwritten = async (text: string, given: Images = GIVEN): Promise<Images> =>
    overwriteImages(given, await write(text));

  async function problemsOf(text: string, given: Images = GIVEN): Promise<string[]> {
    try {
      return [JSON.stringify(await overwritten(text, given))];
    } catch (error) {
      assert.ok(error instanceof ConfigError, String(error));
      return error.problems.map(({ path, message }) => `${path}: ${message}`);
    }
  }

  it("replaces the images that it names, and no others", async () => {
    const text = `
images:
- name: spegel
  sourceRepository: github.com/example/registry-spegel
  repository: mirror.example.com/spegel
  tag: sha256:bb
  labels: [{name: cve, value: low}]
- name: etcd
  repository: mirror.example.com/etcd
caBundle: {inline: x}
`;
    assert.deepEqual(await overwritten(text), { ...GIVEN, nodeImage: "mirror.example.com/spegel@sha256:bb" });
    const ref = "images: [{name: registry-spegel-bootstrapper, ref: 'm.example.com/b:v2@sha256:cc'}]";
    assert.deepEqual(await overwritten(ref), { ...GIVEN, bootstrapperImage: "m.example.com/b:v2@sha256:cc" });
    assert.deepEqual(await overwritten("images: []"), GIVEN);
  });

  it("takes what an entry leaves out from the image that is given", async () => {
    for (const [entry, given, image] of [
      ["repository: m.example.com/s", "r.example.com:5000/s:v1", "m.example.com/s:v1"],
      ["repository: m.example.com/s", "r.example.com:5000/s:v1@sha256:aa", "m.example.com/s:v1@sha256:aa"],
      ["repository: m.example.com/s", "r.example.com:5000/s@sha256:aa", "m.example.com/s@sha256:aa"],
      ["tag: v2", "r.example.com:5000/s:v1@sha256:aa", "r.example.com:5000/s:v2"],
      ["tag: v2", "r.example.com:5000/s", "r.example.com:5000/s:v2"],
    ]) {
      const images = await overwritten(`images: [{name: spegel, ${entry}}]`, { nodeImage: given as string });
      assert.equal(images.nodeImage, image);
    }
  });

  it("names the field that is wrong, and what to do", async () => {
    const one = (entry: string): string => `images: [{name: spegel, ${entry}}]`;
    for (const [text, message] of [
      ["[]", /images: is not a list$/],
      [
        "components: [{name: a, imageVectorOverwrite: b}]",
        /is not a list; .*the imageVectorOverwrite of one/,
      ],
      ["images: [1]", /images\[0\]: has no name/],
      [one("repository: a, tag: 1.0"), /images\[0\]\.tag: is not a text; put it in quotes/],
      [one("ref: a, tag: b"), /images\[0\]: has a ref, and repository or tag/],
      [one("version: v1"), /images\[0\]: has neither ref nor repository nor tag/],
      [one("ref: a, targetVersion: '>= 1.30'"), /images\[0\]\.targetVersion: cannot be followed/],
      [one("ref: a, architectures: [arm64]"), /images\[0\]\.architectures: cannot be followed/],
      ["images: [{name: spegel, ref: a}, {name: spegel, ref: b}]", /images: names spegel 2 times/],
    ] as const) {
      const problems = await problemsOf(text);
      assert.equal(problems.length, 1, problems.join());
      assert.match(problems[0] ?? "", message);
      assert.match(problems[0] ?? "", /^IMAGEVECTOR_OVERWRITE /);
    }
    assert.match((await problemsOf(one("repository: a"), {}))[0] ?? "", /spegel: has no tag/);
    assert.match((await problemsOf(one("tag: a"), {}))[0] ?? "", /spegel: has no repository/);
  });

  it("that cannot be read is an error with its name", async () => {
    await assert.rejects(overwriteImages(GIVEN, join(directory, "absent.yaml")), /absent\.yaml/);
    assert.match((await problemsOf("images: ["))[0] ?? "", /\.yaml: is not valid YAML or JSON/);
    assert.match((await problemsOf(`images: [] # ${"x".repeat(2 ** 20)}`))[0] ?? "", /larger/);
  });

  it("makes the flags of its images needless, and is judged as they are", async () => {
    const file = await write(
      "images: [{name: spegel, ref: 'n:v1'}, {name: registry-spegel-bootstrapper, ref: 'b:v1'}]",
    );
    const flags = await readFlags({ argv: [], environment: { IMAGEVECTOR_OVERWRITE: file } });
    assert.deepEqual([flags.nodeImage, flags.bootstrapperImage], ["n:v1", "b:v1"]);
    const bad = await write("images: [{name: spegel, ref: 'a b'}]");
    await assert.rejects(
      readFlags({ argv: ["--bootstrapper-image=b"], environment: { IMAGEVECTOR_OVERWRITE: bad } }),
      /--node-image: is not an image reference/,
    );
    const absent = readFlags({ argv: [], environment: { IMAGEVECTOR_OVERWRITE: "" } });
    await assert.rejects(absent, /--node-image: is required/);
  });
});
