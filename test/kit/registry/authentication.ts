// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";

/** What a client must present: the pair itself, or a token it gets for the pair at `/token`. */
export interface Authentication {
  readonly scheme: "basic" | "bearer";
  readonly username: string;
  readonly password: string;
}

/** Answers the request itself (401 or a token) and returns true, or returns false: the client may go on. */
export type Gate = (request: IncomingMessage, response: ServerResponse, origin: string) => boolean;

export function createGate(authentication: Authentication | undefined): Gate {
  if (authentication === undefined) return () => false;
  const basic = `Basic ${Buffer.from(`${authentication.username}:${authentication.password}`).toString("base64")}`;
  const token = randomBytes(24).toString("hex");
  const expected = authentication.scheme === "basic" ? basic : `Bearer ${token}`;
  return (request, response, origin) => {
    const presented = request.headers.authorization;
    const path = new URL(request.url ?? "/", origin).pathname;
    if (authentication.scheme === "bearer" && path === "/token") {
      if (presented !== basic) challenge(response, 'Basic realm="token"');
      else answer(response, 200, { token, expires_in: 300 });
      return true;
    }
    if (presented === expected) return false;
    const scope = `repository:${repositoryOf(path)}:pull`;
    const bearer = `Bearer realm="${origin}/token",service="registry",scope="${scope}"`;
    challenge(response, authentication.scheme === "basic" ? 'Basic realm="registry"' : bearer);
    return true;
  };
}

function repositoryOf(path: string): string {
  return /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path)?.[1] ?? "";
}

function challenge(response: ServerResponse, value: string): void {
  response.setHeader("www-authenticate", value);
  answer(response, 401, { errors: [{ code: "UNAUTHORIZED", message: "authentication required" }] });
}

function answer(response: ServerResponse, status: number, document: object): void {
  const body = Buffer.from(JSON.stringify(document));
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length });
  response.end(body);
}
