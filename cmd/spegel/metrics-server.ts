// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Metrics } from "#metrics";

/** Answers `/metrics`, and with `debugWeb` the identity of the node at `/debug/web/metadata`; everything else is 404. */
export function answerMetrics(options: {
  readonly metrics: Metrics;
  readonly peerId: string;
  readonly debugWeb: boolean;
}): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  return async (request, response) => {
    const path = (request.url ?? "").split("?", 1)[0];
    const isRead = request.method === "GET" || request.method === "HEAD";
    if (isRead && path === "/metrics") {
      return send(response, options.metrics.contentType, await options.metrics.render());
    }
    if (isRead && options.debugWeb && path === "/debug/web/metadata") {
      return send(response, "application/json", JSON.stringify({ libp2p: { id: options.peerId } }));
    }
    response.writeHead(404, { "content-length": 0 }).end();
  };
}

function send(response: ServerResponse, type: string, text: string): void {
  const body = Buffer.from(text);
  response.writeHead(200, { "content-type": type, "content-length": body.length }).end(body);
}
