// SPDX-License-Identifier: Apache-2.0
import type { Transport } from "./send-request.ts";

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

const MAX_TOKEN_BYTES = 256 * 1024;

/**
 * The `Authorization` value that answers a 401 challenge, or undefined when there is none: unknown scheme, or
 * the token server refuses.
 */
export async function authorize(
  challenge: string | undefined,
  options: {
    readonly credentials: Credentials;
    readonly transport: Transport;
    readonly authorities: readonly string[];
    readonly signal: AbortSignal;
  },
): Promise<string | undefined> {
  const { credentials, transport, authorities, signal } = options;
  const basic = `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64")}`;
  if (/^basic\b/i.test(challenge ?? "")) return basic;
  if (!/^bearer\b/i.test(challenge ?? "")) return undefined;
  const parameters = new Map(
    [...(challenge ?? "").matchAll(/([a-z]+)="([^"]*)"/g)].map((match) => [match[1], match[2] ?? ""]),
  );
  const realm = parameters.get("realm") ?? "";
  if (!URL.canParse(realm)) return undefined;
  const url = new URL(realm);
  for (const name of ["service", "scope"]) {
    const value = parameters.get(name);
    if (value !== undefined) url.searchParams.set(name, value);
  }
  const answer = await transport.send({
    method: "GET",
    url,
    headers: { authorization: basic },
    authorities,
    signal,
  });
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_TOKEN_BYTES) return undefined;
    chunks.push(chunk);
  }
  if (answer.status !== 200) return undefined;
  const { token, access_token: accessToken } = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Record<
    string,
    unknown
  >;
  const chosen = typeof token === "string" ? token : accessToken;
  return typeof chosen === "string" ? `Bearer ${chosen}` : undefined;
}
