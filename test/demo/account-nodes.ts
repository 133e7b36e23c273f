// SPDX-License-Identifier: Apache-2.0
/** Where every byte of a real containerd's pull came from, told by those who sent it: the registry and the mirrors. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { digestAlgorithm, digestHex } from "#oci";
import type { ImageObject } from "../kit/image-maker/index.ts";
import type { ContainerdNode, SpegelNode } from "../kit/node-rig/index.ts";
import type { RequestRecord } from "../kit/registry/index.ts";
import type { AccountRow } from "./account-sources.ts";
import type { DemoImage } from "./demo-image.ts";
import { DemoError } from "./errors.ts";
import { readRequestLog } from "./request-log.ts";

/** A node of the rig, with a name for the table. */
export interface RigNode {
  readonly name: string;
  readonly containerd: Pick<ContainerdNode, "contentPath"> & {
    readonly namespace: Pick<ContainerdNode["namespace"], "address">;
  };
  readonly spegel: { readonly process: Pick<SpegelNode["process"], "output"> };
}

const SETTLE_TIMEOUT_MS = 5_000;
const POLL_INTERVAL_MS = 50;

/**
 * One row for each object of an image on a node, after checking its digest there and that its bytes add up.
 *
 * @param expected the only place where bytes may have come from
 * @throws DemoError DEMO_CHECK_FAILED
 */
export async function accountNode(
  node: RigNode,
  image: DemoImage,
  context: {
    readonly expected: "upstream" | "peer";
    readonly nodes: readonly RigNode[];
    readonly upstream: readonly RequestRecord[];
    /** How long a mirror may take to write down what it did; default 5 s. */
    readonly settleTimeoutMs?: number;
  },
): Promise<readonly AccountRow[]> {
  // A mirror writes its line when a request has ended, a moment after containerd has the last byte.
  const deadlineMs = performance.now() + (context.settleTimeoutMs ?? SETTLE_TIMEOUT_MS);
  const settled = async (account: () => AccountRow): Promise<AccountRow> => {
    for (;;) {
      try {
        return account();
      } catch (error) {
        if (performance.now() > deadlineMs) throw error;
        await delay(POLL_INTERVAL_MS);
      }
    }
  };
  const rows: AccountRow[] = [];
  for (const object of image.layout.objects) {
    await verifyContent(node, image, object);
    rows.push(await settled(() => accountObject(node, image, object, context)));
  }
  return rows;
}

function accountObject(
  node: RigNode,
  image: DemoImage,
  object: ImageObject,
  context: Parameters<typeof accountNode>[2],
): AccountRow {
  const { digest, sizeBytes, kind } = object;
  const fromUpstream = context.upstream.filter(
    (record) =>
      record.method === "GET" &&
      record.client === node.containerd.namespace.address &&
      record.path.endsWith(`/${digest}`),
  );
  const fromMirror = readRequestLog(node.spegel).filter(
    (request) => !request.mirrored && request.reference === digest && request.bytes > 0,
  );
  const isPeer = context.expected === "peer";
  const [right, wrong] = isPeer ? [fromMirror, fromUpstream] : [fromUpstream, fromMirror];
  if (sum(wrong) > 0) {
    fail(`${node.name} got ${sum(wrong)} bytes of ${kind} ${digest} of ${image.name} from the wrong place`);
  }
  if (sum(right) !== sizeBytes) {
    fail(`${node.name} got ${sum(right)} bytes of ${kind} ${digest} of ${image.name}, it has ${sizeBytes}`);
  }
  const strange = fromMirror.find((request) => request.source !== "peer");
  if (strange !== undefined) fail(`the mirror of ${node.name} gave ${digest} from "${strange.source}"`);
  const ids = new Set(fromMirror.flatMap((request) => request.peers));
  const nodes = [...ids].map((id) => nodeOf(id, context.nodes).name).sort();
  const durationMs = right.reduce((total, each) => total + each.durationMs, 0);
  return {
    node: node.name,
    image: image.name,
    object: { ...object, parts: [], refusals: [], durationMs },
    source: isPeer ? { kind: "peer", nodes } : { kind: "upstream" },
    bytes: sizeBytes,
  };
}

async function verifyContent(node: RigNode, image: DemoImage, object: ImageObject): Promise<void> {
  const algorithm = digestAlgorithm(object.digest);
  const path = join(node.containerd.contentPath, "blobs", algorithm, digestHex(object.digest));
  const hash = createHash(algorithm);
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
      hash.update(chunk as Buffer);
  } catch (error) {
    throw new DemoError({
      code: "DEMO_CHECK_FAILED",
      message: `${node.name} does not have ${object.kind} ${object.digest} of ${image.name}`,
      cause: error,
    });
  }
  const found = hash.digest("hex");
  if (found !== digestHex(object.digest))
    fail(`${object.kind} ${object.digest} of ${image.name} on ${node.name} has the digest ${found}`);
}

function nodeOf(peerId: string, nodes: readonly RigNode[]): RigNode {
  const serving = (node: RigNode): boolean =>
    node.spegel.process.output.lines.some(
      ({ text }) => text.includes('"msg":"Serving."') && text.includes(`"peer":"${peerId}"`),
    );
  return nodes.find(serving) ?? fail(`bytes came from an unknown peer ${peerId}`);
}

function sum(entries: readonly { readonly bytes: number }[]): number {
  return entries.reduce((total, entry) => total + entry.bytes, 0);
}

function fail(message: string): never {
  throw new DemoError({ code: "DEMO_CHECK_FAILED", message });
}
