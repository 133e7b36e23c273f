// SPDX-License-Identifier: Apache-2.0
import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { createSemaphore, sleep } from "#async";
import { systemErrorCode } from "#errors";
import { createAuthorization } from "./authorization.ts";
import { errorOfStatus, KubeError, type StatusBody } from "./errors.ts";
import type { KubeConnection } from "./kubeconfig.ts";
import { createRateLimit } from "./rate-limit.ts";

export interface TransportOptions {
  readonly userAgent: string;
  /** Until the answer is complete; default 30 s. Watches have none. */
  readonly timeoutMs?: number;
  /** Requests at a time, watches aside; default 32. */
  readonly maxInFlight?: number;
  /** Default 100, with bursts of 130. */
  readonly requestsPerSecond?: number;
  readonly burst?: number;
  /** Largest answer that is read; default 64 MiB. */
  readonly maxResponseBytes?: number;
  readonly now?: () => number;
}

export interface TransportRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With query. */
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string;
}

/** HTTP towards one API server. */
export interface Transport extends AsyncDisposable {
  /** The JSON of a 2xx answer. @throws KubeError */
  json(request: TransportRequest, options: { readonly signal: AbortSignal }): Promise<unknown>;
  /** The open body of a 200 answer; it ends when the signal aborts. @throws KubeError */
  stream(request: TransportRequest, options: { readonly signal: AbortSignal }): Promise<IncomingMessage>;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
const MAX_STATUS_BYTES = 64 * 1024;
/** A server that asks for patience (429) is asked again this often, and obeyed up to this long each time. */
const THROTTLE_ATTEMPTS = 3;
const MAX_RETRY_AFTER_MS = 10_000;

export function createTransport(connection: KubeConnection, options: TransportOptions): Transport {
  const secure = connection.server.protocol === "https:";
  const base = connection.server.pathname.replace(/\/$/, "");
  const authorization = createAuthorization(connection.credential, options.now ?? Date.now);
  const places = createSemaphore(options.maxInFlight ?? 32);
  const rate = createRateLimit(
    { perSecond: options.requestsPerSecond ?? 100, burst: options.burst ?? 130 },
    options.now ?? Date.now,
  );
  const agentOptions = {
    keepAlive: true,
    keepAliveMsecs: 30_000,
    maxFreeSockets: 4,
    scheduling: "lifo" as const,
  };
  const agent = secure
    ? new HttpsAgent({ ...agentOptions, ...tlsOptions(connection) })
    : new HttpAgent(agentOptions);
  const send = secure ? httpsRequest : httpRequest;

  /** Sends once and resolves with the answer's head. */
  async function open(request: TransportRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
    const header = await authorization.header();
    const requestOptions: RequestOptions = {
      method: request.method,
      agent,
      signal,
      headers: {
        accept: "application/json",
        "user-agent": options.userAgent,
        ...(header !== undefined && { authorization: header }),
        ...(body && {
          "content-type": request.contentType ?? "application/json",
          "content-length": body.length,
        }),
      },
    };
    return await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = send(new URL(base + request.path, connection.server), requestOptions, resolve);
      sent.on("error", (error) => reject(new ConnectionFailure(error, sent.reusedSocket)));
      sent.end(body);
    });
  }

  /** Sends, once more with a fresh token after 401, and once more when an idle connection turned out to be closed. */
  async function attempt(request: TransportRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const response = await open(request, signal).catch(async (error: unknown) => {
      const closedWhileIdle = error instanceof ConnectionFailure && error.reusedSocket && !signal.aborted;
      if (closedWhileIdle && request.method === "GET") return await open(request, signal);
      throw error;
    });
    if (response.statusCode !== 401 || !authorization.refused()) return response;
    response.resume();
    return await open(request, signal);
  }

  async function exchange(request: TransportRequest, signal: AbortSignal): Promise<IncomingMessage> {
    for (let count = 1; ; count++) {
      await rate.wait({ signal });
      const response = await attempt(request, signal);
      const retryAfter = Number(response.headers["retry-after"]);
      if (response.statusCode !== 429 || !(retryAfter >= 0) || count === THROTTLE_ATTEMPTS) return response;
      response.resume();
      await sleep(Math.min(retryAfter * 1000, MAX_RETRY_AFTER_MS), { signal });
    }
  }

  return {
    async json(request, { signal }) {
      const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
      const limited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      const what = describe(request);
      try {
        using _place = await places.acquire({ signal: limited });
        const response = await exchange(request, limited);
        const status = response.statusCode ?? 0;
        const ok = status >= 200 && status < 300;
        const bytes = await readBytes(
          response,
          ok ? (options.maxResponseBytes ?? DEFAULT_MAX_RESPONSE_BYTES) : MAX_STATUS_BYTES,
          what,
        );
        if (!ok) throw errorOfStatus(what, status, parseStatus(bytes));
        return parseJson(bytes, what);
      } catch (error) {
        throw mapped(error, what, signal, timeoutMs);
      }
    },
    async stream(request, { signal }) {
      const what = describe(request);
      try {
        const response = await exchange(request, signal);
        if (response.statusCode === 200) return response;
        throw errorOfStatus(
          what,
          response.statusCode ?? 0,
          parseStatus(await readBytes(response, MAX_STATUS_BYTES, what)),
        );
      } catch (error) {
        throw mapped(error, what, signal);
      }
    },
    async [Symbol.asyncDispose]() {
      agent.destroy();
    },
  };
}

class ConnectionFailure extends Error {
  readonly reusedSocket: boolean;

  constructor(cause: Error, reusedSocket: boolean) {
    super(cause.message !== "" ? cause.message : (systemErrorCode(cause) ?? "connection failed"), { cause });
    this.reusedSocket = reusedSocket;
  }
}

function tlsOptions(connection: KubeConnection): object {
  return {
    minVersion: "TLSv1.2" as const,
    rejectUnauthorized: !connection.skipVerify,
    ...(connection.authoritiesPem !== undefined && { ca: connection.authoritiesPem }),
    ...(connection.serverName !== undefined && { servername: connection.serverName }),
    ...(connection.clientCertificatePem !== undefined && { cert: connection.clientCertificatePem }),
    ...(connection.clientKeyPem !== undefined && { key: connection.clientKeyPem }),
  };
}

/** `GET /api/v1/secrets`: without query, which may be long. */
function describe(request: TransportRequest): string {
  return `${request.method} ${request.path.split("?")[0]}`;
}

/** The caller's abort passes through; everything else that is not ours becomes a KubeError. */
function mapped(error: unknown, what: string, signal: AbortSignal, timeoutMs?: number): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof KubeError) return error;
  const timedOut = isTimeout(error);
  return new KubeError({
    code: timedOut ? "KUBE_TIMEOUT" : "KUBE_UNAVAILABLE",
    message: timedOut ? `${what} was not answered within ${timeoutMs} ms` : `${what} failed`,
    cause: error,
  });
}

function isTimeout(error: unknown): boolean {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (current.name === "AbortError" || current.name === "TimeoutError") return true;
  }
  return false;
}

async function readBytes(response: IncomingMessage, limitBytes: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limitBytes) {
      response.destroy();
      throw new KubeError({
        code: "KUBE_RESPONSE_INVALID",
        message: `${what}: the answer is larger than ${limitBytes} bytes`,
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

function parseStatus(bytes: Buffer): StatusBody | undefined {
  try {
    const body: unknown = JSON.parse(bytes.toString("utf8"));
    return typeof body === "object" && body !== null ? body : undefined;
  } catch {
    return undefined; // a proxy's error page; the status code says enough
  }
}

function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw new KubeError({ code: "KUBE_RESPONSE_INVALID", message: `${what}: the answer is not JSON`, cause });
  }
}
