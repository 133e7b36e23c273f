// SPDX-License-Identifier: Apache-2.0
/**
 * Where every byte came from, told three times: by the client that got it, by the registry or node that sent it,
 * and by the daemon between them. An account is only given when all of them agree.
 */
import type { Digest } from "#oci";
import type { PulledObject } from "../kit/pull-client/index.ts";
import type { RequestRecord } from "../kit/registry/index.ts";
import { DemoError } from "./errors.ts";
import type { NodePull } from "./pull-images.ts";
import type { AnsweredRequest } from "./request-log.ts";

export type Source =
  | { readonly kind: "upstream" }
  | { readonly kind: "peer"; readonly nodes: readonly string[] };

/** One object on one node. */
export interface AccountRow {
  readonly node: string;
  readonly image: string;
  readonly object: PulledObject;
  readonly source: Source;
  readonly bytes: number;
}

/** What one daemon says. */
export interface DaemonBooks {
  readonly node: string;
  readonly peerId: string;
  readonly requests: readonly AnsweredRequest[];
  /** `spegel_sent_bytes_total` by source. */
  readonly sentBytes: { readonly local: number; readonly peer: number };
}

export interface Books {
  readonly pulls: readonly NodePull[];
  readonly daemons: readonly DaemonBooks[];
  /** What the upstream registry was asked while the nodes pulled. */
  readonly upstream: readonly RequestRecord[];
}

/** @throws DemoError DEMO_CHECK_FAILED with the first entry that does not agree */
export function accountSources(books: Books): readonly AccountRow[] {
  const rows = books.pulls.flatMap((pull) =>
    pull.report.objects.flatMap((object) => accountObject(pull, object, books)),
  );
  checkUpstreamTotals(books);
  checkPeers(rows, books);
  for (const daemon of books.daemons) checkCounters(daemon);
  return rows;
}

// An object comes whole from upstream or whole from peers here: nothing breaks down in the middle of a blob.
function accountObject(pull: NodePull, object: PulledObject, books: Books): readonly AccountRow[] {
  const node = pull.node.name;
  const row = { node, image: pull.image.name, object };
  const fromUpstream = sum(object.parts.filter((part) => !part.mirror));
  const fromMirror = sum(object.parts.filter((part) => part.mirror));
  // Two images may share a layer: what the node has is not fetched again.
  if (object.parts.length === 0) return [];
  expectEqual(
    fromUpstream + fromMirror,
    object.sizeBytes,
    `${node} got ${object.digest} in parts that add up to`,
  );

  const sent = sum(
    books.upstream.filter((record) => isGetOf(record, object.digest) && record.client === pull.node.address),
  );
  expectEqual(sent, fromUpstream, `the registry sent ${node} of ${object.digest}`);

  const answered = daemonOf(node, books).requests.filter(
    (request) => !request.mirrored && request.reference === object.digest && request.bytes > 0,
  );
  expectEqual(sum(answered), fromMirror, `the mirror of ${node} sent of ${object.digest}`);

  const local = answered.find((request) => request.source !== "peer");
  if (local !== undefined)
    fail(
      `the mirror of ${node} sent ${object.digest} from "${local.source}", though the node had to pull it`,
    );
  if (fromMirror > 0 && fromUpstream > 0)
    fail(`${node} got ${object.digest} partly from upstream, partly from peers`);
  if (fromUpstream > 0) return [{ ...row, source: { kind: "upstream" }, bytes: fromUpstream }];
  const ids = new Set(answered.flatMap((request) => request.peers));
  const nodes = [...ids].map((id) => nodeOf(id, books)).sort();
  if (nodes.length === 0) fail(`the mirror of ${node} does not say who sent ${object.digest}`);
  return [{ ...row, source: { kind: "peer", nodes }, bytes: fromMirror }];
}

function checkUpstreamTotals({ pulls, upstream }: Books): void {
  const received = sum(
    pulls.flatMap(({ report }) =>
      report.objects.flatMap((object) => object.parts.filter((part) => !part.mirror)),
    ),
  );
  expectEqual(
    sum(upstream.filter((record) => record.method === "GET")),
    received,
    "the registry sent to anybody",
  );
}

// Peers may have sent more than was used, when two of them were asked at the same time; never less.
function checkPeers(rows: readonly AccountRow[], { daemons }: Books): void {
  const byDigest = Map.groupBy(
    rows.filter((row) => row.source.kind === "peer"),
    (row) => row.object.digest,
  );
  for (const [digest, received] of byDigest) {
    const serving = daemons.map((daemon) => ({
      node: daemon.node,
      bytes: sum(daemon.requests.filter((request) => request.mirrored && request.reference === digest)),
    }));
    if (sum(serving) < sum(received)) {
      fail(`nodes received ${sum(received)} bytes of ${digest} from peers, but peers sent ${sum(serving)}`);
    }
    for (const { source, node } of received) {
      const named = source.kind === "peer" ? source.nodes : [];
      const silent = named.find((name) => !serving.some((each) => each.node === name && each.bytes > 0));
      if (silent !== undefined)
        fail(`${node} names ${silent} as the source of ${digest}, and ${silent} sent none of it`);
    }
  }
}

function checkCounters(daemon: DaemonBooks): void {
  for (const source of ["local", "peer"] as const) {
    const logged = sum(daemon.requests.filter((request) => request.source === source));
    expectEqual(daemon.sentBytes[source], logged, `the metrics of ${daemon.node} count from ${source}`);
  }
}

function isGetOf(record: RequestRecord, digest: Digest): boolean {
  return record.method === "GET" && record.path.endsWith(`/${digest}`);
}

function daemonOf(node: string, books: Books): DaemonBooks {
  return books.daemons.find((daemon) => daemon.node === node) ?? fail(`there is no daemon on ${node}`);
}

function nodeOf(peerId: string, books: Books): string {
  return (
    books.daemons.find((daemon) => daemon.peerId === peerId)?.node ??
    fail(`bytes came from an unknown peer ${peerId}`)
  );
}

function sum(entries: readonly { readonly bytes: number }[]): number {
  return entries.reduce((total, entry) => total + entry.bytes, 0);
}

function expectEqual(actual: number, expected: number, what: string): void {
  if (actual !== expected) fail(`${what} ${actual} bytes, expected ${expected}`);
}

function fail(message: string): never {
  throw new DemoError({ code: "DEMO_CHECK_FAILED", message });
}
