// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import { errorMessage } from "#errors";
import {
  type Descriptor,
  type Digest,
  type ImageReference,
  isDigest,
  MANIFEST_MEDIA_TYPES,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPE_OCTET_STREAM,
  sha256Digest,
} from "#oci";
import { type Asking, askHost, type Question } from "./ask-host.ts";
import { PullError } from "./errors.ts";
import type { RegistryHost } from "./load-hosts.ts";
import type { Refusal } from "./report.ts";
import type { Answer } from "./send-request.ts";

export interface Resolved extends Descriptor {
  readonly host: RegistryHost;
}

/**
 * HEAD on each host until one knows the reference. A tag is asked for only where `resolve` is allowed, and the
 * answer's digest is believed. A digest is looked for among the manifests first, then among the blobs.
 *
 * @throws PullError PULL_NOT_FOUND, PULL_REFUSED
 */
export async function resolveReference(
  reference: ImageReference,
  options: Asking & {
    readonly hosts: readonly RegistryHost[];
    readonly signal: AbortSignal;
    readonly onRefusal: (refusal: Refusal) => void;
  },
): Promise<Resolved> {
  const { digest, tag } = reference;
  const needed = digest === undefined ? (["pull", "resolve"] as const) : (["pull"] as const);
  const hosts = options.hosts.filter((host) => needed.every((each) => host.capabilities.includes(each)));
  const objects = digest === undefined ? [`manifests/${tag}`] : [`manifests/${digest}`, `blobs/${digest}`];
  const refusals: Refusal[] = [];
  for (const object of objects) {
    for (const [index, host] of hosts.entries()) {
      const refuse = (status: number, reason: string): void => {
        const refusal = { host: host.origin, mirror: host.mirror, status, reason };
        refusals.push(refusal);
        options.onRefusal(refusal);
      };
      const question: Question = {
        ...reference,
        method: "HEAD",
        object,
        headers: { accept: ACCEPT },
        signal: options.signal,
      };
      const found = await head(host, question, {
        ...options,
        digest,
        isLast: index === hosts.length - 1,
        refuse,
      });
      if (found !== undefined) return { ...found, host };
    }
  }
  throw nobodyHas(describe(reference), refusals);
}

const ACCEPT = [...MANIFEST_MEDIA_TYPES, "*/*"].join(", ");

type HeadOptions = Asking & {
  readonly digest: Digest | undefined;
  readonly isLast: boolean;
  readonly refuse: (status: number, reason: string) => void;
};

async function head(
  host: RegistryHost,
  question: Question,
  options: HeadOptions,
): Promise<Descriptor | undefined> {
  let answer: Answer;
  try {
    answer = await askHost(host, question, options);
  } catch (error) {
    question.signal.throwIfAborted();
    options.refuse(0, errorMessage(error));
    return undefined;
  }
  answer.body.destroy();
  if (answer.status > 299) {
    options.refuse(answer.status, `status ${answer.status}`);
    return undefined;
  }
  const told = describedBy(answer, options.digest);
  if (told === "malformed") {
    throw new PullError({
      code: "PULL_REFUSED",
      message: `${host.origin} named a malformed digest for ${question.object}`,
    });
  }
  const descriptor = told ?? (await descriptorByGet(host, question, options));
  if (descriptor.sizeBytes <= MAX_MANIFEST_BYTES) return descriptor;
  options.refuse(answer.status, `a manifest of ${descriptor.sizeBytes} bytes is too large`);
  return undefined;
}

function describedBy(answer: Answer, digest: Digest | undefined): Descriptor | "malformed" | undefined {
  const length = answer.headers["content-length"];
  const named = digest ?? answer.headers["docker-content-digest"];
  if (length === undefined || named === undefined) return undefined;
  if (typeof named !== "string" || !isDigest(named)) return "malformed";
  return { digest: named, sizeBytes: Number(length), mediaType: mediaTypeOf(answer) };
}

// An answer without digest or length: the manifest itself tells both.
async function descriptorByGet(
  host: RegistryHost,
  question: Question,
  options: HeadOptions,
): Promise<Descriptor> {
  const answer = await askHost(host, { ...question, method: "GET" }, { ...options, isLast: true });
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  answer.body.on("data", (chunk: Buffer) => {
    sizeBytes += chunk.length;
    chunks.push(chunk);
    if (sizeBytes > MAX_MANIFEST_BYTES) answer.body.destroy(new Error("the manifest is too large"));
  });
  await once(answer.body, "end", { signal: question.signal });
  const digest = options.digest ?? sha256Digest(Buffer.concat(chunks));
  return { digest, sizeBytes, mediaType: mediaTypeOf(answer) };
}

function mediaTypeOf(answer: Answer): string {
  return answer.headers["content-type"]?.split(";")[0]?.trim() ?? MEDIA_TYPE_OCTET_STREAM;
}

export function describe(reference: ImageReference): string {
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** The error for something that no host delivered. */
export function nobodyHas(what: string, refusals: readonly Refusal[]): PullError {
  const reasons = refusals.map((refusal) => `${refusal.host}: ${refusal.reason}`).join("; ");
  const absent = refusals.every((refusal) => refusal.status === 404);
  return new PullError({
    code: absent ? "PULL_NOT_FOUND" : "PULL_REFUSED",
    message: `no host delivered ${what} (${reasons === "" ? "no host may be asked" : reasons})`,
  });
}
