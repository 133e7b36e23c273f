// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "#errors";
import { sha256Digest } from "#oci";
import type { ImageLayout } from "../kit/image-maker/index.ts";
import type { Part, PulledObject } from "../kit/pull-client/index.ts";
import type { RequestRecord } from "../kit/registry/index.ts";
import { accountSources, type Books, type DaemonBooks } from "./account-sources.ts";
import { formatReport } from "./format-report.ts";
import type { NodePull } from "./pull-images.ts";
import type { AnsweredRequest } from "./request-log.ts";

const SIZE = 1000;
const digest = sha256Digest("layer");
const image = { name: "app", repository: "demo/app", tag: "v1", layout: {} as ImageLayout };
const MIRROR: Part = { host: "http://localhost:5000", mirror: true, offset: 0, bytes: SIZE };
const UPSTREAM: Part = { host: "https://registry.example.test", mirror: false, offset: 0, bytes: SIZE };

function pullOf(number: number, parts: readonly Part[]): NodePull {
  const name = `node-${number}`;
  const address = `127.0.0.${10 + number}`;
  const object: PulledObject = {
    digest,
    sizeBytes: SIZE,
    mediaType: "application/vnd.oci.image.layer.v1.tar",
    kind: "layer",
    parts,
    refusals: [],
    durationMs: 12.3,
  };
  return {
    node: { name, address, root: "/", hostsDirectory: "/", storeDirectory: "/" },
    image,
    report: { reference: "r", digest, resolvedBy: "h", objects: [object], durationMs: 20 },
  };
}

function booksOf(number: number, requests: readonly Partial<AnsweredRequest>[]): DaemonBooks {
  const all = requests.map(
    (request): AnsweredRequest => ({
      method: "GET",
      reference: digest,
      mirrored: false,
      bytes: SIZE,
      source: "local",
      peers: [],
      durationMs: 0,
      ...request,
    }),
  );
  const total = (source: string): number =>
    all.filter((request) => request.source === source).reduce((sum, request) => sum + request.bytes, 0);
  return {
    node: `node-${number}`,
    peerId: `id-${number}`,
    requests: all,
    sentBytes: { local: total("local"), peer: total("peer") },
  };
}

const upstreamRecord: RequestRecord = {
  method: "GET",
  path: `/v2/demo/app/blobs/${digest}`,
  client: "127.0.0.11",
  status: 200,
  bytes: SIZE,
  durationMs: 1,
};

/** node-1 pulled from upstream, node-2 from node-1. */
function goodBooks(): Books {
  return {
    pulls: [pullOf(1, [UPSTREAM]), pullOf(2, [MIRROR])],
    daemons: [
      booksOf(1, [{ source: "none", bytes: 0 }, { mirrored: true }]),
      booksOf(2, [{ source: "peer", peers: ["id-1"] }]),
    ],
    upstream: [{ ...upstreamRecord, method: "HEAD", bytes: 0 }, upstreamRecord],
  };
}

test("bytes that all sides agree on are accounted to their source", () => {
  const rows = accountSources(goodBooks());
  assert.deepEqual(
    rows.map((row) => [row.node, row.source, row.bytes]),
    [
      ["node-1", { kind: "upstream" }, SIZE],
      ["node-2", { kind: "peer", nodes: ["node-1"] }, SIZE],
    ],
  );
});

test("a peer that sent more than was used is no contradiction", () => {
  const books = goodBooks();
  const [first, second] = books.daemons;
  assert.ok(first && second);
  const hedged = booksOf(1, [{ mirrored: true }, { mirrored: true, bytes: 200 }]);
  assert.equal(accountSources({ ...books, daemons: [hedged, second] }).length, 2);
});

for (const [what, change, message] of [
  [
    "the registry sent less than the client says",
    { upstream: [{ ...upstreamRecord, bytes: SIZE - 1 }] },
    /the registry sent node-1/,
  ],
  [
    "the registry sent to another node",
    { upstream: [{ ...upstreamRecord, client: "127.0.0.12" }] },
    /the registry sent node-1/,
  ],
  [
    "the registry sent something that nobody asked for",
    { upstream: [upstreamRecord, { ...upstreamRecord, path: "/v2/other/blobs/sha256:1" }] },
    /sent to anybody/,
  ],
  [
    "the client got fewer bytes than the object has",
    { pulls: [pullOf(1, [{ ...UPSTREAM, bytes: 5 }])] },
    /parts that add up to/,
  ],
  [
    "the mirror says another number than the client",
    {
      daemons: [
        booksOf(1, [{ mirrored: true }]),
        booksOf(2, [{ source: "peer", peers: ["id-1"], bytes: SIZE + 1 }]),
      ],
    },
    /the mirror of node-2 sent/,
  ],
  [
    "the node had the bytes already",
    { daemons: [booksOf(1, [{ mirrored: true }]), booksOf(2, [{ source: "local" }])] },
    /from "local"/,
  ],
  [
    "nobody in the swarm sent what was received",
    { daemons: [booksOf(1, []), booksOf(2, [{ source: "peer", peers: ["id-1"] }])] },
    /peers sent 0/,
  ],
  [
    "the named peer sent nothing",
    {
      daemons: [
        booksOf(1, []),
        booksOf(2, [{ source: "peer", peers: ["id-1"] }]),
        booksOf(3, [{ mirrored: true }]),
      ],
    },
    /names node-1/,
  ],
  [
    "the peer is not one of the nodes",
    { daemons: [booksOf(1, [{ mirrored: true }]), booksOf(2, [{ source: "peer", peers: ["id-9"] }])] },
    /unknown peer id-9/,
  ],
  [
    "the mirror does not say who sent it",
    { daemons: [booksOf(1, [{ mirrored: true }]), booksOf(2, [{ source: "peer" }])] },
    /does not say who/,
  ],
  [
    "the metrics count otherwise than the log",
    {
      daemons: [
        { ...booksOf(1, [{ mirrored: true }]), sentBytes: { local: 1, peer: 0 } },
        booksOf(2, [{ source: "peer", peers: ["id-1"] }]),
      ],
    },
    /the metrics of node-1/,
  ],
] as const satisfies readonly (readonly [string, Partial<Books>, RegExp])[]) {
  test(`the account is refused when ${what}`, () => {
    assert.throws(
      () => accountSources({ ...goodBooks(), ...change }),
      (error) => hasCode(error, "DEMO_CHECK_FAILED") && message.test(error.message),
    );
  });
}

test("a blob that came partly from upstream, partly from peers is refused", () => {
  const parts = [
    { ...MIRROR, bytes: 400 },
    { ...UPSTREAM, offset: 400, bytes: 600 },
  ];
  const books: Books = {
    pulls: [pullOf(1, parts)],
    daemons: [booksOf(1, [{ source: "peer", peers: ["id-1"], bytes: 400 }])],
    upstream: [{ ...upstreamRecord, bytes: 600 }],
  };
  assert.throws(() => accountSources(books), /partly from upstream/);
});

test("the report shows each object, the sums by source and what was saved", () => {
  const lines = formatReport(accountSources(goodBooks())).split("\n");
  assert.match(lines[0] ?? "", /^NODE +IMAGE +LAYER +SOURCE +BYTES +TIME$/);
  assert.match(lines[1] ?? "", /^node-1 +app +layer +sha256:[0-9a-f]{12} +upstream +1 000 +12 ms$/);
  assert.match(lines[2] ?? "", /^node-2 +app +layer +sha256:[0-9a-f]{12} +peer node-1 +1 000 +12 ms$/);
  assert.ok(lines.some((line) => /^from peer node-1 .* 50\.0 %$/.test(line)));
  assert.match(lines.at(-1) ?? "", /^Saved: 0\.0 MB \(50\.0 %\)\.$/);
});
