// SPDX-License-Identifier: Apache-2.0
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { generateKeyPairFromSeed } from "@libp2p/crypto/keys";
import type { Ed25519PrivateKey } from "@libp2p/interface";
import { systemErrorCode } from "#errors";
import type { Logger } from "#log";
import { SwarmError } from "./errors.ts";

export const IDENTITY_FILE = "private.key";
/** Where a damaged file is moved; an older one is overwritten. */
export const DAMAGED_IDENTITY_FILE = "private.key.damaged";
/** An Ed25519 key in PEM takes 119 bytes; whatever is longer than this is something else. */
const MAX_FILE_BYTES = 16 * 1024;

/**
 * The key pair that names this node. With a data directory it lives in `private.key`: PKCS#8 in PEM, as Spegel and
 * `openssl genpkey -algorithm ed25519` write it. A damaged file is moved aside and replaced; where nothing can be read
 * or written the node gets a name for this run only: a mirror without a lasting name serves better than none.
 */
export async function openIdentity(
  deps: { readonly logger: Logger },
  options: { readonly dataDirectory: string | undefined; readonly signal: AbortSignal },
): Promise<Ed25519PrivateKey> {
  const { dataDirectory, signal } = options;
  if (dataDirectory === undefined || dataDirectory === "") return toLibp2pKey(createKey());
  try {
    return await toLibp2pKey(await loadOrCreate(deps.logger, { dataDirectory, signal }));
  } catch (err) {
    signal.throwIfAborted();
    if (systemErrorCode(err) === undefined) throw err;
    deps.logger.warn("identity cannot be kept, using one for this run", { directory: dataDirectory, err });
    return toLibp2pKey(createKey());
  }
}

async function loadOrCreate(
  logger: Logger,
  options: { readonly dataDirectory: string; readonly signal: AbortSignal },
): Promise<KeyObject> {
  const { dataDirectory, signal } = options;
  const path = join(dataDirectory, IDENTITY_FILE);
  await mkdir(dataDirectory, { recursive: true, mode: 0o755 });
  const pem = await readIfPresent(path, signal);
  if (pem !== undefined) {
    try {
      return parseIdentity(pem);
    } catch (err) {
      logger.warn("identity file is damaged, replacing it", { path, movedTo: DAMAGED_IDENTITY_FILE, err });
      await rename(path, join(dataDirectory, DAMAGED_IDENTITY_FILE));
    }
  }
  const key = createKey();
  await writeWhole(path, key.export({ type: "pkcs8", format: "pem" }) as string);
  return key;
}

async function readIfPresent(path: string, signal: AbortSignal): Promise<Buffer | undefined> {
  try {
    return await readFile(path, { signal });
  } catch (err) {
    if (systemErrorCode(err) === "ENOENT") return undefined;
    throw err;
  }
}

/** @throws SwarmError SWARM_IDENTITY_INVALID unless the PEM holds one PKCS#8 Ed25519 private key. */
function parseIdentity(pem: Uint8Array): KeyObject {
  if (pem.length > MAX_FILE_BYTES) throw invalid(`${pem.length} bytes are too many for a key`);
  const text = Buffer.from(pem).toString("latin1");
  if (!text.includes("-----BEGIN PRIVATE KEY-----")) throw invalid("no PEM block PRIVATE KEY");
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: text, format: "pem" });
  } catch (cause) {
    throw invalid("not a PKCS#8 private key", cause);
  }
  if (key.asymmetricKeyType !== "ed25519") throw invalid(`key type is ${key.asymmetricKeyType}, not ed25519`);
  return key;
}

function invalid(message: string, cause?: unknown): SwarmError {
  return new SwarmError({ code: "SWARM_IDENTITY_INVALID", message, cause });
}

function createKey(): KeyObject {
  return generateKeyPairSync("ed25519").privateKey;
}

/** A reader sees the whole file or none: written beside, flushed, renamed. */
async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (err) {
    await rm(draft, { force: true });
    throw err;
  }
}

async function toLibp2pKey(key: KeyObject): Promise<Ed25519PrivateKey> {
  const seed = key.export({ format: "jwk" }).d as string;
  return generateKeyPairFromSeed("Ed25519", Buffer.from(seed, "base64url"));
}
