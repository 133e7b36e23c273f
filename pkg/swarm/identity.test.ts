// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { peerIdFromPrivateKey } from "@libp2p/peer-id";
import { createLogger, silentLogger } from "#log";
import { DAMAGED_IDENTITY_FILE, IDENTITY_FILE, openIdentity } from "./identity.ts";

/** Written by `openssl genpkey -algorithm ed25519`; the peer id is what Spegel makes of it. */
const OPENSSL_KEY = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`;
const OPENSSL_PEER_ID = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";

describe("an identity", () => {
  const signal = AbortSignal.timeout(60_000);
  let directory: string;
  let path: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "identity-"));
    path = join(directory, IDENTITY_FILE);
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  async function idIn(dataDirectory: string | undefined, warnings: string[] = []): Promise<string> {
    const logger = createLogger({ level: "WARN", sink: { write: (line) => void warnings.push(line) } });
    return peerIdFromPrivateKey(await openIdentity({ logger }, { dataDirectory, signal })).toString();
  }

  it("is read from a key file that Spegel or openssl wrote", async () => {
    await writeFile(path, OPENSSL_KEY);
    assert.equal(await idIn(directory), OPENSSL_PEER_ID);
    assert.equal(await readFile(path, "utf8"), OPENSSL_KEY, "the file stays as it is");
  });

  it("is created with the folder, for the owner's eyes only, and found again", async () => {
    const nested = join(directory, "var", "data");
    const id = await idIn(nested);
    assert.equal(await idIn(nested), id);
    assert.equal((await stat(join(nested, IDENTITY_FILE))).mode & 0o777, 0o600);
    assert.equal((await stat(nested)).mode & 0o777, 0o755);
    assert.deepEqual(await readdir(nested), [IDENTITY_FILE], "no draft is left behind");
    assert.match(
      await readFile(join(nested, IDENTITY_FILE), "utf8"),
      /^-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI/,
    );
  });

  it("leaves the modes of a file and a folder that it finds as they are", async () => {
    for (const [fileMode, folderMode] of [
      [0o400, 0o700],
      [0o640, 0o750],
      [0o600, 0o755],
    ] as const) {
      await rm(path, { force: true });
      await writeFile(path, OPENSSL_KEY);
      await chmod(path, fileMode);
      await chmod(directory, folderMode);
      assert.equal(await idIn(directory), OPENSSL_PEER_ID);
      assert.equal((await stat(path)).mode & 0o777, fileMode);
      assert.equal((await stat(directory)).mode & 0o777, folderMode);
    }
    await writeFile(path, "damaged");
    await chmod(directory, 0o700);
    await idIn(directory);
    assert.equal(
      (await stat(path)).mode & 0o777,
      0o600,
      "a key that replaces another is for the owner alone",
    );
    assert.equal((await stat(join(directory, DAMAGED_IDENTITY_FILE))).mode & 0o777, 0o600);
    assert.equal((await stat(directory)).mode & 0o777, 0o700);
  });

  const other = (type: "rsa" | "x25519"): string =>
    (type === "rsa"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : generateKeyPairSync("x25519")
    ).privateKey
      .export({ type: "pkcs8", format: "pem" })
      .toString();
  for (const [what, content] of [
    ["empty", ""],
    ["cut", OPENSSL_KEY.slice(0, 60)],
    ["no PEM", "\u0000\u0001garbage"],
    ["of another block type", OPENSSL_KEY.replaceAll("PRIVATE KEY", "EC PRIVATE KEY")],
    ["an RSA key", other("rsa")],
    ["an X25519 key", other("x25519")],
    [
      "a public key",
      generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "pem" }).toString(),
    ],
    ["too long", `${OPENSSL_KEY}${"\n".repeat(100_000)}`],
  ] as const) {
    it(`replaces a file that is ${what}, keeps it aside and says so`, async () => {
      await writeFile(path, content);
      const warnings: string[] = [];
      const id = await idIn(directory, warnings);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0] ?? "", /identity file is damaged/);
      assert.equal(await readFile(join(directory, DAMAGED_IDENTITY_FILE), "utf8"), content);
      assert.equal(await idIn(directory), id);
    });
  }

  it("is a new one each time without a folder", async () => {
    assert.notEqual(await idIn(undefined), await idIn(undefined));
    assert.notEqual(await idIn(""), await idIn(""));
  });

  it("lives for one run where nothing can be kept", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    const warnings: string[] = [];
    const id = await idIn(join(file, "data"), warnings);
    assert.match(id, /^12D3KooW/);
    assert.match(warnings[0] ?? "", /identity cannot be kept/);
  });

  it("lives for one run when a folder is in the place of the file, and leaves it alone", async () => {
    await mkdir(path);
    await chmod(directory, 0o755);
    const warnings: string[] = [];
    assert.match(await idIn(directory, warnings), /^12D3KooW/);
    assert.equal(warnings.length, 1);
    assert.ok((await stat(path)).isDirectory());
  });

  it("is not opened when the start is given up", async () => {
    await assert.rejects(
      openIdentity({ logger: silentLogger }, { dataDirectory: directory, signal: AbortSignal.abort() }),
      { name: "AbortError" },
    );
  });
});
