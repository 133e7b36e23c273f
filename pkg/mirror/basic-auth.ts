// SPDX-License-Identifier: Apache-2.0
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "#errors";

/** Credentials that protect every node's registry; containerd gets them from hosts.toml. */
export interface BasicAuth {
  /** The value of an `Authorization` header that carries them; sent to peers. */
  readonly header: string;
  /** Compares in constant time. */
  admits(authorization: string | undefined): boolean;
}

/**
 * Reads `username` and `password` from a folder, once, byte for byte (a trailing newline belongs to the secret, as
 * in Spegel). Both absent or empty: no protection, undefined.
 */
export async function readBasicAuth(directory: string): Promise<BasicAuth | undefined> {
  const [username, password] = await Promise.all([
    readPart(directory, "username"),
    readPart(directory, "password"),
  ]);
  return username === "" && password === "" ? undefined : createBasicAuth(username, password);
}

export function createBasicAuth(username: string, password: string): BasicAuth {
  const header = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
  const expected = hash(header);
  return { header, admits: (authorization) => timingSafeEqual(hash(authorization ?? ""), expected) };
}

function hash(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

async function readPart(directory: string, name: string): Promise<string> {
  try {
    return await readFile(join(directory, name), "utf8");
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return "";
    throw error;
  }
}
