// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { KubeError } from "./errors.ts";
import type { KubeCredential } from "./kubeconfig.ts";

/** Values for the Authorization header. */
export interface Authorization {
  /** Undefined: send none. @throws KubeError KUBE_UNAUTHORIZED when a token file cannot be read. */
  header(): Promise<string | undefined>;
  /** The server refused the last value. True when asking again may give another one. */
  refused(): boolean;
}

/** The kubelet replaces a projected token when 80 % of its life is over: a minute's delay is harmless. */
const TOKEN_MAX_AGE_MS = 60_000;
const MAX_TOKEN_CHARACTERS = 64 * 1024;

export function createAuthorization(credential: KubeCredential, now: () => number): Authorization {
  switch (credential.kind) {
    case "none":
      return fixed(undefined);
    case "token":
      return fixed(`Bearer ${credential.token}`);
    case "basic":
      return fixed(
        `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString("base64")}`,
      );
    case "plugin":
      return { header: credential.authorization, refused: () => true };
    case "tokenFile":
      return fromFile(credential.path, now);
  }
}

function fixed(value: string | undefined): Authorization {
  return { header: async () => value, refused: () => false };
}

function fromFile(path: string, now: () => number): Authorization {
  let value: string | undefined;
  let readAtMs = 0;
  return {
    async header() {
      if (value === undefined || now() - readAtMs >= TOKEN_MAX_AGE_MS) {
        value = `Bearer ${await readToken(path)}`;
        readAtMs = now();
      }
      return value;
    },
    refused() {
      const mayHaveChanged = value !== undefined;
      value = undefined;
      return mayHaveChanged;
    },
  };
}

async function readToken(path: string): Promise<string> {
  let token: string;
  try {
    token = (await readFile(path, "utf8")).trim();
  } catch (cause) {
    throw new KubeError({ code: "KUBE_UNAUTHORIZED", message: `token file ${path} cannot be read`, cause });
  }
  if (token === "" || token.length > MAX_TOKEN_CHARACTERS || /\s/.test(token)) {
    throw new KubeError({ code: "KUBE_UNAUTHORIZED", message: `token file ${path} holds no token` });
  }
  return token;
}
