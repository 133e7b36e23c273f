// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { createSemaphore } from "#async";
import { errorMessage } from "#errors";
import { openPlainServer, type PlainServer } from "#http";
import { createPeerPool } from "#transfer";
import type { BasicAuth } from "./basic-auth.ts";
import { createBlobDoubts } from "./blob-doubts.ts";
import type { MirrorDeps, MirrorOptions, PullRecord } from "./mirror.ts";
import { pull } from "./pull.ts";
import { createRelayFloor } from "./relay-floor.ts";
import { respondEmpty, respondError } from "./respond.ts";

export interface RegistryServerDeps extends Omit<MirrorDeps, "pool" | "doubts" | "floor" | "verifySlots"> {
  /** Whether this node takes part in the swarm; the answer of `/readyz`. */
  ready(): boolean;
  readonly auth?: BasicAuth;
}

/** A node pulls three layers at a time; peers that together deliver less than this are worse than the upstream. */
const LEAST_RELAYED_BYTES_PER_SECOND = 768 * 1024;
/** Longer than the kubelet's longest pause between two pulls of an image, 5 minutes. */
const REMEMBER_RELAYS_MS = 6 * 60_000;
const MAX_REMEMBERED_RELAYS = 1_024;
const MAX_VERIFICATIONS = 2;
const VERIFY_TIMEOUT_MS = 15_000;

/** Where requests and answers of `/v2/` are counted. */
const V2_HANDLER = "/v2/*";

/**
 * The OCI registry that containerd and other nodes pull from (Spegel on the wire).
 *
 * `/readyz`, `/livez`, `/v2/` and pulls below it, GET and HEAD; everything else is 404 with an empty body, never
 * 405 and never 429 (containerd would come back to the same host).
 *
 * @throws the system error of listen
 */
export async function openRegistryServer(
  deps: RegistryServerDeps,
  options: Omit<MirrorOptions, "registryPort" | "authorization" | "verifyTimeoutMs"> & {
    readonly address: string;
    readonly registryPort?: number;
    /** What peers must deliver to this node in all, while it waits for them; default 768 KiB/s. */
    readonly leastBytesPerSecond?: number;
  },
): Promise<PlainServer> {
  const port = options.registryPort ?? Number(options.address.slice(options.address.lastIndexOf(":") + 1));
  const mirror: MirrorOptions = {
    ...options,
    registryPort: port,
    verifyTimeoutMs: VERIFY_TIMEOUT_MS,
    ...(deps.auth === undefined ? {} : { authorization: deps.auth.header }),
  };
  const pool = createPeerPool();
  const parts: Pick<MirrorDeps, "pool" | "doubts" | "floor" | "verifySlots"> = {
    pool,
    doubts: createBlobDoubts({
      rememberMs: REMEMBER_RELAYS_MS,
      limit: MAX_REMEMBERED_RELAYS,
      now: () => performance.now(),
    }),
    floor: createRelayFloor(options.leastBytesPerSecond ?? LEAST_RELAYED_BYTES_PER_SECOND),
    verifySlots: createSemaphore(MAX_VERIFICATIONS),
  };
  const server = await openPlainServer(
    (request, response, signal) => answer({ ...deps, ...parts }, mirror, request, response, signal),
    { address: options.address },
  );
  return {
    port: server.port,
    address: server.address,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await pool[Symbol.asyncDispose]();
    },
  };
}

type AnswerDeps = RegistryServerDeps & MirrorDeps;

async function answer(
  deps: AnswerDeps,
  options: MirrorOptions,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const path = pathOf(request.url ?? "");
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (isRead && path === "/livez") return probe(deps, request, response, path, 200);
  if (isRead && path === "/readyz") return probe(deps, request, response, path, deps.ready() ? 200 : 500);
  if (isRead && path === "/v2") {
    response.writeHead(301, { location: "/v2/", "content-length": 0 }).end();
    return;
  }
  if (!isRead || !path.startsWith("/v2/")) return respondEmpty(response, 404);
  await recorded(deps, request, response, () => answerV2(deps, options, request, response, path, signal));
}

async function answerV2(
  deps: AnswerDeps,
  options: MirrorOptions,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  signal: AbortSignal,
): Promise<PullRecord> {
  if (deps.auth !== undefined && !deps.auth.admits(request.headers.authorization)) {
    respondError(response, 401, { code: "UNAUTHORIZED", message: "invalid credentials" });
    return { source: "none", bytes: 0, reason: "invalid credentials" };
  }
  if (path === "/v2/") {
    respondEmpty(response, 200);
    return { source: "none", bytes: 0 };
  }
  return pull(deps, options, request, response, signal);
}

function probe(
  deps: RegistryServerDeps,
  request: IncomingMessage,
  response: ServerResponse,
  handler: string,
  status: number,
): void {
  const startedAt = performance.now();
  deps.metrics.started(handler);
  respondEmpty(response, status);
  const seconds = (performance.now() - startedAt) / 1000;
  deps.metrics.answered({ handler, method: request.method ?? "", status, seconds, bytes: 0 });
}

/** Runs one request and leaves one log line and its metrics, whatever happened. */
async function recorded(
  deps: RegistryServerDeps,
  request: IncomingMessage,
  response: ServerResponse,
  run: () => Promise<PullRecord>,
): Promise<void> {
  const startedAt = performance.now();
  deps.metrics.started(V2_HANDLER);
  let record: PullRecord = { source: "none", bytes: 0, reason: "client went away" };
  try {
    record = await run();
  } catch (error) {
    if (!response.destroyed) {
      record = { source: "none", bytes: 0, reason: errorMessage(error) };
      if (response.headersSent) response.destroy();
      else respondEmpty(response, 500);
    }
  } finally {
    const durationMs = performance.now() - startedAt;
    const status = response.headersSent ? response.statusCode : 0;
    const method = request.method ?? "";
    deps.metrics.answered({
      handler: V2_HANDLER,
      method,
      status,
      seconds: durationMs / 1000,
      bytes: record.bytes,
    });
    if (record.source !== "none") deps.metrics.sent(record.source, record.bytes);
    log(deps, request, record, status, durationMs);
  }
}

function log(
  deps: RegistryServerDeps,
  request: IncomingMessage,
  record: PullRecord,
  status: number,
  durationMs: number,
): void {
  const { pull: asked } = record;
  deps.log.info("Request answered.", {
    method: request.method,
    ...(asked === undefined
      ? { path: (request.url ?? "").slice(0, 512) }
      : {
          handler: asked.kind,
          registry: asked.registry,
          repository: asked.repository,
          reference: asked.digest ?? asked.tag,
          mirrored: asked.mirrored,
        }),
    ...(request.headers.range === undefined ? {} : { range: request.headers.range.slice(0, 64) }),
    status,
    bytes: record.bytes,
    source: record.source,
    ...(record.peers === undefined ? {} : { peers: record.peers.slice(0, 8) }),
    ...(record.resumes === undefined || record.resumes === 0 ? {} : { resumes: record.resumes }),
    ...(record.reason === undefined ? {} : { reason: record.reason }),
    client: request.socket.remoteAddress,
    durationMs: Math.round(durationMs * 10) / 10,
  });
}

function pathOf(url: string): string {
  const question = url.indexOf("?");
  return question < 0 ? url : url.slice(0, question);
}
