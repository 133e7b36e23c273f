// SPDX-License-Identifier: Apache-2.0
import type { BootstrapNodeList } from "#api/nodelist";
import type { HTTPAnswer, HTTPRequest, HTTPRoute } from "#http";
import type { CounterInstrument, Metrics } from "#metrics";
import { BOOTSTRAP_NODES_PATH } from "#nodelayout";
import { type IPFamily, keepReachable, limit, order } from "./choose.ts";
import type { NodeAddressEntry, NodeSource } from "./node-source.ts";

export interface NodeListMetrics {
  readonly requests: CounterInstrument;
}

export function createNodeListMetrics(metrics: Metrics, source: NodeSource): NodeListMetrics {
  metrics.observedGauge(
    { name: "spegel_bootstrapper_nodes", help: "Number of nodes known to the bootstrapper." },
    () => source.nodes()?.length ?? 0,
  );
  return {
    requests: metrics.counter({
      name: "spegel_bootstrapper_requests_total",
      help: "Total number of requests for the node list.",
      labels: ["code"],
    }),
  };
}

export interface NodeListDeps {
  readonly source: NodeSource;
  readonly metrics: NodeListMetrics;
}

export interface NodeListOptions {
  /** Families that the cluster uses, the preferred one first. */
  readonly families: readonly IPFamily[];
  /** Nodes in an answer, at most; default 10. */
  readonly limit?: number;
}

const DEFAULT_LIMIT = 10;
/** id-kp-clientAuth, RFC 5280 §4.2.1.12. */
const CLIENT_AUTH_OID = "1.3.6.1.5.5.7.3.2";

/**
 * `GET /bootstrap-nodes`: the nodes a starting daemon may dial, as `#api/nodelist` describes.
 *
 * 403 without a client certificate for client authentication, 503 before the nodes were seen for the first time,
 * else 200; the list may be empty.
 */
export function createNodeListRoute(deps: NodeListDeps, options: NodeListOptions): HTTPRoute {
  const { source, metrics } = deps;
  const orderedBySource = memoizeLast((nodes: readonly NodeAddressEntry[]) =>
    order(keepReachable(nodes, options.families)),
  );
  let turn = 0;

  function serveBootstrapNodes(request: HTTPRequest): HTTPAnswer {
    if (!requireClientCertificate(request)) return problem(403, "a client certificate is required");
    const nodes = source.nodes();
    if (nodes === undefined) return problem(503, "the nodes are not known yet");
    const ordered = orderedBySource(nodes);
    const limited = limit(ordered, { limit: options.limit ?? DEFAULT_LIMIT, turn: turn++ });
    return respond(limited);
  }

  return {
    method: "GET",
    path: BOOTSTRAP_NODES_PATH,
    handle(request) {
      const answer = serveBootstrapNodes(request);
      metrics.requests.add({ code: String(answer.status) });
      return answer;
    },
  };
}

/** Many isolated nodes may ask every few seconds; filtering and sorting is done once per change. */
function memoizeLast<A extends object, R>(compute: (argument: A) => R): (argument: A) => R {
  let last: { readonly argument: A; readonly result: R } | undefined;
  return (argument) => {
    if (last?.argument !== argument) last = { argument, result: compute(argument) };
    return last.result;
  };
}

/** The handshake has verified the chain; a certificate without the usage may belong to something else of that CA. */
function requireClientCertificate({ clientCertificate }: HTTPRequest): boolean {
  return clientCertificate?.extendedKeyUsages.includes(CLIENT_AUTH_OID) ?? false;
}

/** Without ports: a client adds its own router port, which all nodes share. Without ids: it learns them by dialling. */
function respond(nodes: readonly NodeAddressEntry[]): HTTPAnswer {
  const list: BootstrapNodeList = nodes.map((node) => ({ ID: "", Addrs: node.addresses.map(toMultiaddr) }));
  return { status: 200, contentType: "application/json", body: JSON.stringify(list) };
}

function toMultiaddr(address: string): string {
  return `/${address.includes(":") ? "ip6" : "ip4"}/${address}`;
}

function problem(status: number, message: string): HTTPAnswer {
  return { status, contentType: "application/json", body: JSON.stringify({ message }) };
}
