// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { bringAtomicAlong, neededLibraries, stripSymbols } from "./elf.ts";

describe("the executable of the pinned Node", () => {
  let original: Buffer;
  let changed: Buffer;
  let folder: string;
  let path: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "elf-"));
    path = join(folder, "node");
    original = readFileSync(process.execPath);
    changed = stripSymbols(original);
    bringAtomicAlong(changed);
    writeFileSync(path, changed, { mode: 0o755 });
  });
  after(() => rmSync(folder, { recursive: true }));

  const run = (script: string, env: Record<string, string> = {}): string =>
    execFileSync(path, ["-e", script], { encoding: "utf8", env: { ...process.env, ...env } }).trim();

  it("needs libatomic as released and everything else but libatomic when changed", () => {
    const needed = neededLibraries(original);
    assert.ok(needed.includes("libatomic.so.1"), needed.join());
    assert.deepEqual(
      neededLibraries(changed),
      needed.filter((library) => library !== "libatomic.so.1"),
    );
  });

  it("is smaller by its debug symbols", () => {
    assert.ok(changed.length < original.length - 20_000_000, `${original.length} -> ${changed.length}`);
  });

  it("starts, also when every symbol is bound at the start", () => {
    assert.equal(run("console.log(process.version)"), process.version);
    assert.equal(run("console.log(process.version)", { LD_BIND_NOW: "1" }), process.version);
  });

  it("compiles functions in several threads at once, which is what compares and exchanges", () => {
    const script = `
      const { Worker } = require("node:worker_threads");
      const body = "let sum = 0; for (let i = 0; i < 3000; i++) sum += new Function('a', 'return a + ' + i)(1);" +
        "require('node:worker_threads').parentPort.postMessage(sum)";
      let total = 0, ended = 0;
      for (let i = 0; i < 4; i++)
        new Worker(body, { eval: true })
          .on("message", (sum) => { total += sum; })
          .on("exit", () => { if (++ended === 4) console.log(total); });
    `;
    assert.equal(run(script), String(4 * (3000 + (2999 * 3000) / 2)));
  });

  it("is not changed twice", () => {
    assert.throws(() => bringAtomicAlong(Buffer.from(changed)), /libatomic\.so\.1 is not among/);
  });
});

describe("other files", () => {
  it("are refused when they are no ELF file", () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from("#!/bin/sh\n".repeat(20)), Buffer.alloc(4096)]) {
      assert.throws(() => stripSymbols(bytes), /not a 64-bit little-endian ELF/);
      assert.throws(() => bringAtomicAlong(bytes), /not a 64-bit little-endian ELF/);
      assert.throws(() => neededLibraries(bytes), /not a 64-bit little-endian ELF/);
    }
  });

  it("are refused when they are for a machine without code", () => {
    const elf = Buffer.alloc(128);
    elf.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
    elf.writeUInt16LE(243, 18); // RISC-V
    assert.throws(() => bringAtomicAlong(elf), /no code for ELF machine 243/);
  });
});
