// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { Agent, createServer, request as sendRequest } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { createFaultPlan, type FaultAction, type FaultMatch, misbehave } from "../api-server/faults.ts";
import { kubeconfigOf } from "../api-server/kubeconfig.ts";

/** What stands before an API server: it makes every write strict, remembers requests, and misbehaves on demand. */
export interface APIServerFront extends AsyncDisposable {
  readonly url: string;
  readonly caCertificate: string;
  /** Requests so far, oldest first, at most 50,000. */
  readonly requests: readonly FrontRequest[];
  clearRequests(): void;
  /** Answers of the API server with a warning, e.g. of a deprecated version. */
  readonly warnings: readonly string[];
  /** Misbehaves for matching requests until disposed or used up. */
  inject(match: FaultMatch, action: FaultAction): Disposable;
  /** Asked about every request, until another one is set: what becomes of it. */
  gate: ((request: FrontRequest) => Passage) | undefined;
  /** Cuts every connection, as a load balancer in front of API servers does. */
  dropConnections(): void;
  /** `token` or `tokenFile` of another user than the admin. */
  kubeconfig(user?: { readonly token?: string; readonly tokenFile?: string }): string;
}

/** `refuse` cuts the connection; `swallow` has the request handled, and cuts the connection then. */
export type Passage = "pass" | "refuse" | "swallow";

export interface FrontRequest {
  readonly method: string;
  /** Without query. */
  readonly path: string;
  readonly isWatch: boolean;
  readonly userAgent: string;
  /** 0 for one that got no answer. */
  readonly status: number;
}

/** The server behind; every one of its values may be that of a server which is restarted. */
export interface FrontTarget {
  readonly url: string;
  readonly caCertificate: string;
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly token: string;
}

const MAX_REQUESTS = 50_000;
const WRITES = new Set(["POST", "PUT", "PATCH"]);

/**
 * Listens before an API server. Every object that passes is sent with `fieldValidation=Strict`: a field that its
 * schema does not know is an error then, and not silently dropped.
 */
export async function openFront(target: FrontTarget): Promise<APIServerFront> {
  const plan = createFaultPlan();
  const requests: FrontRequest[] = [];
  const warnings: string[] = [];
  const sockets = new Set<Socket>();
  const agent = new Agent({ keepAlive: true, ca: target.caCertificate, maxSockets: 512 });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "GET", url = "/" } = request;
    const isWatch = /[?&]watch=(true|1)/.test(url);
    const record = {
      method,
      path: url.split("?")[0] ?? "",
      isWatch,
      userAgent: request.headers["user-agent"] ?? "",
      status: 0,
    };
    if (requests.push(record) > MAX_REQUESTS) requests.shift();
    const passage = front.gate?.(record) ?? "pass";
    if (passage === "refuse") return void request.socket.destroy();
    const fault = plan.take({ method, path: url, watch: isWatch });
    if (fault !== undefined && (await misbehave(fault, request, response))) return;
    forward(request, response, record, passage);
  }

  function forward(
    request: IncomingMessage,
    response: ServerResponse,
    record: { status: number; readonly method: string; readonly path: string },
    passage: Passage,
  ): void {
    const url = strict(record.method, request.url ?? "/");
    const onward = sendRequest(
      new URL(url, target.url),
      { method: record.method, agent, headers: { ...request.headers, host: new URL(target.url).host } },
      (answered) => {
        if (passage === "swallow") return void request.socket.destroy();
        record.status = answered.statusCode ?? 0;
        const warning = answered.headers["warning"];
        if (warning !== undefined) warnings.push(`${record.method} ${record.path}: ${warning}`);
        response.writeHead(record.status, answered.headers);
        answered.pipe(response);
        answered.on("error", () => response.destroy());
        // A watch that is quiet at first must still be seen to be open.
        response.flushHeaders();
      },
    );
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  }

  const server = createServer(
    { cert: target.certificatePem, key: target.keyPem, keepAliveTimeout: 60_000 },
    (request, response) => void answer(request, response),
  );
  server.on("secureConnection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {}); // it was cut; the requests on it tell
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve, reject) => server.once("listening", resolve).once("error", reject));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const front: APIServerFront = {
    gate: undefined,
    url,
    caCertificate: target.caCertificate,
    requests,
    warnings,
    clearRequests: () => void requests.splice(0),
    inject: plan.inject,
    dropConnections: () => sockets.forEach((socket) => socket.destroy()),
    kubeconfig: (user = { token: target.token }) => kubeconfigOf(url, target.caCertificate, user),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      agent.destroy();
    },
  };
  return front;
}

function strict(method: string, url: string): string {
  if (!WRITES.has(method) || url.includes("fieldValidation=")) return url;
  return `${url}${url.includes("?") ? "&" : "?"}fieldValidation=Strict`;
}
