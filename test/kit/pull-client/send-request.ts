// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request as requestPlain } from "node:http";
import { request as requestSecure, Agent as SecureAgent } from "node:https";
import { isIP } from "node:net";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface TransportOptions {
  /** Where a name leads on this node: its resolver and its routes in one. Default: as it is. */
  readonly dial?: (address: Address) => Address;
  /** Source address of all connections. */
  readonly localAddress?: string;
}

export interface OutgoingRequest {
  readonly method: "GET" | "HEAD";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** PEM texts; empty means the system's. */
  readonly authorities: readonly string[];
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The body as it comes; must be read to its end or destroyed. */
  readonly body: IncomingMessage;
  /** True once the peer reset the connection. A body that just ends early was cut, not reset. */
  readonly wasReset: () => boolean;
}

/** Connections of one client, kept open between requests as containerd does. */
export interface Transport extends Disposable {
  /** One request, redirects followed. Rejects when there is no answer. */
  send(request: OutgoingRequest): Promise<Answer>;
}

const MAX_REDIRECTS = 10;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

export function createTransport(options: TransportOptions): Transport {
  const plain = new Agent({ keepAlive: true });
  const secure = new SecureAgent({ keepAlive: true });

  async function sendOnce(outgoing: OutgoingRequest): Promise<Answer> {
    const { url, method, headers, authorities, signal } = outgoing;
    const tls = url.protocol === "https:";
    const hostname = url.hostname.replace(/^\[(.*)\]$/, "$1");
    const named = { host: hostname, port: url.port === "" ? (tls ? 443 : 80) : Number(url.port) };
    const request = (tls ? requestSecure : requestPlain)({
      ...(options.dial?.(named) ?? named),
      ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
      ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
      ...(authorities.length === 0 ? {} : { ca: [...authorities] }),
      method,
      path: `${url.pathname}${url.search}`,
      headers: { ...headers, host: url.host },
      agent: tls ? secure : plain,
      signal,
    });
    let reset = false;
    request.on("error", () => {
      reset = true;
    });
    const answered = once(request, "response") as Promise<[IncomingMessage]>;
    request.end();
    const [body] = await answered;
    return { status: body.statusCode ?? 0, headers: body.headers, body, wasReset: () => reset };
  }

  return {
    async send(outgoing) {
      let current = outgoing;
      for (let redirects = 0; ; redirects++) {
        const answer = await sendOnce(current);
        const { location } = answer.headers;
        if (!REDIRECTS.has(answer.status) || location === undefined) return answer;
        answer.body.destroy();
        if (redirects >= MAX_REDIRECTS) throw new Error(`stopped after ${MAX_REDIRECTS} redirects`);
        const url = new URL(location, current.url);
        current = {
          ...current,
          url,
          headers: url.host === current.url.host ? current.headers : anonymous(current.headers),
        };
      }
    },
    [Symbol.dispose]() {
      plain.destroy();
      secure.destroy();
    },
  };
}

function anonymous(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name.toLowerCase() !== "authorization"),
  );
}
