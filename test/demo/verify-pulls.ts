// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { hasCode } from "#errors";
import { digestAlgorithm, digestHex } from "#oci";
import type { RequestRecord } from "../kit/registry/index.ts";
import { type AccountRow, accountSources, type DaemonBooks } from "./account-sources.ts";
import { DemoError } from "./errors.ts";
import type { NodePull } from "./pull-images.ts";
import { readCounter, readRequestLog } from "./request-log.ts";
import type { Daemon } from "./start-daemons.ts";

const SETTLE_TIMEOUT_MS = 5_000;
const POLL_INTERVAL_MS = 50;

/**
 * Checks every digest on every node and where every byte came from: node-1 from upstream, the others from peers.
 *
 * @param upstream what the registry was asked while the nodes pulled
 * @throws DemoError DEMO_CHECK_FAILED
 */
export async function verifyPulls(
  pulls: readonly NodePull[],
  daemons: readonly Daemon[],
  options: { readonly upstream: readonly RequestRecord[]; readonly signal: AbortSignal },
): Promise<readonly AccountRow[]> {
  for (const pull of pulls) await verifyContent(pull, options.signal);
  const rows = await settledAccount(pulls, daemons, options);
  for (const row of rows) {
    const expected = row.node === pulls[0]?.node.name ? "upstream" : "peer";
    if (row.source.kind === expected) continue;
    fail(
      `${row.node} got ${row.object.kind} ${row.object.digest} of ${row.image} from ${row.source.kind}, expected ${expected}`,
    );
  }
  return rows;
}

async function verifyContent({ node, image, report }: NodePull, signal: AbortSignal): Promise<void> {
  if (report.digest !== image.layout.root.digest) {
    fail(`${node.name} resolved ${image.name} to ${report.digest}, pushed was ${image.layout.root.digest}`);
  }
  if (!report.objects.some((object) => object.kind === "layer"))
    fail(`${node.name} got no layer of ${image.name}`);
  for (const { digest, sizeBytes, kind } of report.objects) {
    if (!image.layout.objects.some((object) => object.digest === digest && object.sizeBytes === sizeBytes)) {
      fail(`${node.name} pulled ${kind} ${digest}, which is no part of ${image.name}`);
    }
    const path = join(node.storeDirectory, "blobs", digestAlgorithm(digest), digestHex(digest));
    const hash = createHash(digestAlgorithm(digest));
    for await (const chunk of createReadStream(path, { signal, highWaterMark: 1024 * 1024 }))
      hash.update(chunk as Buffer);
    const found = `${digestAlgorithm(digest)}:${hash.digest("hex")}`;
    if (found !== digest) fail(`${kind} ${digest} of ${image.name} on ${node.name} has the digest ${found}`);
  }
}

// A daemon writes its line when a request has ended, a moment after the client has the last byte.
async function settledAccount(
  pulls: readonly NodePull[],
  daemons: readonly Daemon[],
  options: { readonly upstream: readonly RequestRecord[]; readonly signal: AbortSignal },
): Promise<readonly AccountRow[]> {
  const deadlineMs = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    try {
      const books = await Promise.all(daemons.map((daemon) => readBooks(daemon, options.signal)));
      return accountSources({ pulls, daemons: books, upstream: options.upstream });
    } catch (error) {
      if (!hasCode(error, "DEMO_CHECK_FAILED") || performance.now() > deadlineMs) throw error;
      await delay(POLL_INTERVAL_MS, undefined, { signal: options.signal });
    }
  }
}

async function readBooks(daemon: Daemon, signal: AbortSignal): Promise<DaemonBooks> {
  const response = await fetch(`${daemon.metrics}/metrics`, { signal });
  const exposition = await response.text();
  const sent = (source: string): number => readCounter(exposition, "spegel_sent_bytes_total", { source });
  return {
    node: daemon.node.name,
    peerId: daemon.peerId,
    requests: readRequestLog(daemon),
    sentBytes: { local: sent("local"), peer: sent("peer") },
  };
}

function fail(message: string): never {
  throw new DemoError({ code: "DEMO_CHECK_FAILED", message });
}
