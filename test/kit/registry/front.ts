// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import {
  Agent,
  createServer,
  type IncomingMessage,
  request as openRequest,
  type ServerResponse,
} from "node:http";
import { createServer as createTLSServer } from "node:https";
import { pipeline } from "node:stream/promises";
import { sleep } from "#async";
import { type Authentication, createGate } from "./authentication.ts";
import { createFaultPlan, type Fault, type FaultPlan } from "./faults.ts";
import { createLedger, type Ledger } from "./ledger.ts";
import { listen } from "./listen.ts";

export interface FrontOptions {
  readonly backend: string;
  readonly address: string;
  readonly port: number;
  readonly tls?: { readonly certificate: string; readonly key: string };
  readonly authentication?: Authentication;
}

/** What clients talk to: passes requests on to the backend, counts, asks for credentials and fails on demand. */
export interface Front extends AsyncDisposable {
  readonly origin: string;
  readonly port: number;
  readonly ledger: Ledger;
  readonly faults: FaultPlan;
}

// Between front and backend: headers that belong to one connection are not passed on (RFC 9110 section 7.6.1).
const HOP_BY_HOP = new Set(["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"]);

export async function startFront(options: FrontOptions): Promise<Front> {
  const ledger = createLedger();
  const faults = createFaultPlan();
  const gate = createGate(options.authentication);
  const agent = new Agent({ keepAlive: true });
  const end = new AbortController();
  let origin = "";

  function onRequest(request: IncomingMessage, response: ServerResponse): void {
    const entry = ledger.open(request);
    response.once("error", () => {});
    const exchange = { request, response, entry, signal: end.signal };
    if (gate(request, response, origin)) {
      entry.status(response.statusCode);
      return;
    }
    const path = new URL(request.url ?? "/", origin).pathname;
    const { range } = request.headers;
    const fault = faults.take({
      method: request.method ?? "",
      path,
      ...(range === undefined ? {} : { range }),
    });
    if (fault?.kind === "hang") return;
    if (fault?.kind === "status") {
      entry.status(fault.status);
      response.writeHead(fault.status, { "content-length": 0, ...fault.headers });
      response.end();
      return;
    }
    forward(exchange, { backend: options.backend, agent, fault }).catch(() => response.destroy());
  }

  const server =
    options.tls === undefined
      ? createServer(onRequest)
      : createTLSServer({ cert: options.tls.certificate, key: options.tls.key }, onRequest);
  const listening = await listen(server, options);
  origin = `${options.tls === undefined ? "http" : "https"}://${options.address}:${listening.port}`;
  return {
    origin,
    port: listening.port,
    ledger,
    faults,
    async [Symbol.asyncDispose]() {
      end.abort();
      await listening[Symbol.asyncDispose]();
      agent.destroy();
    },
  };
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly entry: { status(code: number): void; sent(bytes: number): void };
  readonly signal: AbortSignal;
}

async function forward(
  exchange: Exchange,
  to: { readonly backend: string; readonly agent: Agent; readonly fault: Fault | undefined },
): Promise<void> {
  const { request, response, entry } = exchange;
  const outgoing = openRequest(new URL(request.url ?? "/", to.backend), {
    method: request.method,
    headers: endToEnd(request.headers),
    agent: to.agent,
  });
  response.once("close", () => outgoing.destroy());
  const answered = once(outgoing, "response") as Promise<[IncomingMessage]>;
  // Settled together: when the backend goes away mid-upload both end, and neither is left without a handler.
  const [, [incoming]] = await Promise.all([pipeline(request, outgoing), answered]);
  if (to.fault?.kind === "late") await sleep(to.fault.delayMs, { signal: exchange.signal });
  const headers = endToEnd(incoming.headers);
  if (to.fault?.kind === "no-content-length") delete headers["content-length"];
  if (to.fault?.kind === "zero-content-length") headers["content-length"] = "0";
  entry.status(incoming.statusCode ?? 0);
  response.writeHead(incoming.statusCode ?? 502, headers);
  await sendBody(incoming, exchange, to.fault);
}

async function sendBody(
  incoming: IncomingMessage,
  exchange: Exchange,
  fault: Fault | undefined,
): Promise<void> {
  const { request, response, entry } = exchange;
  const limitBytes =
    fault !== undefined && "afterBytes" in fault ? fault.afterBytes : Number.POSITIVE_INFINITY;
  let sentBytes = 0;
  for await (const whole of incoming as AsyncIterable<Buffer>) {
    if (fault?.kind === "corrupt" && sentBytes === 0 && whole.length > 0) whole[0] = (whole[0] as number) ^ 1;
    const chunk = whole.subarray(0, limitBytes - sentBytes);
    sentBytes += chunk.length;
    entry.sent(chunk.length);
    if (sentBytes >= limitBytes) return breakOff(exchange, { last: chunk, fault });
    const flushed = response.write(chunk);
    if (!flushed) await drained(response);
    if (response.destroyed || request.socket.destroyed) return;
    if (fault?.kind === "slow")
      await sleep((chunk.length / fault.bytesPerSecond) * 1000, { signal: exchange.signal });
  }
  response.end();
}

/** Resolves when more can be written, or when the client has gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.on("drain", done);
    response.on("close", done);
  });
}

// What was written must reach the client first, else "after n bytes" would depend on the buffers' mood.
async function breakOff(
  { response, request }: Exchange,
  { last, fault }: { readonly last: Buffer; readonly fault: Fault | undefined },
): Promise<void> {
  await new Promise<void>((resolve) => response.write(last, () => resolve()));
  if (fault?.kind === "cut") response.destroy();
  if (fault?.kind === "reset") request.socket.resetAndDestroy();
}

function endToEnd(headers: NodeJS.Dict<string | string[]>): Record<string, string | string[]> {
  const kept: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !HOP_BY_HOP.has(name)) kept[name] = value;
  }
  return kept;
}
