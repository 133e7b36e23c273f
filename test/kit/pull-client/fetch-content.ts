// SPDX-License-Identifier: Apache-2.0
import { errorMessage } from "#errors";
import { type Descriptor, isManifestMediaType } from "#oci";
import { type Asking, askHost } from "./ask-host.ts";
import { PullError } from "./errors.ts";
import type { RegistryHost } from "./load-hosts.ts";
import type { Part, Refusal } from "./report.ts";
import { nobodyHas } from "./resolve-reference.ts";
import type { Answer } from "./send-request.ts";

export interface Fetching extends Asking {
  readonly registry: string;
  readonly repository: string;
  readonly hosts: readonly RegistryHost[];
  readonly signal: AbortSignal;
  /** Called for every chunk, with the part it belongs to as it stands now. */
  readonly onBytes: (part: Part) => void;
  readonly onRefusal: (refusal: Refusal) => void;
}

// containerd's reader gives up at the fourth cut in a row; the one that ends a stretch with bytes is the first of them.
const MAX_CUTS_WITHOUT_PROGRESS = 3;

/**
 * The bytes of an object, from the first host that has it. When a body ends early the rest is asked for with
 * `Range: bytes=<offset>-`, beginning again with the first host.
 *
 * @throws PullError PULL_NOT_FOUND, PULL_REFUSED, PULL_CONNECTION_LOST, PULL_SIZE_MISMATCH
 */
export async function* fetchContent(object: Descriptor, options: Fetching): AsyncGenerator<Buffer> {
  let offset = 0;
  let cutsWithoutProgress = 0;
  do {
    const start = offset;
    const { host, answer } = await openAt(object, offset, options);
    try {
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        offset += chunk.length;
        if (offset > object.sizeBytes) throw wrongSize(object, "more");
        options.onBytes({ host: host.origin, mirror: host.mirror, offset: start, bytes: offset - start });
        yield chunk;
      }
      break;
    } catch (error) {
      options.signal.throwIfAborted();
      if (error instanceof PullError) throw error;
      // containerd takes up a body that ended early; any other failure of the connection ends the pull.
      if (answer.wasReset()) throw lost(object, host, error);
      cutsWithoutProgress = offset > start ? 1 : cutsWithoutProgress + 1;
      if (cutsWithoutProgress > MAX_CUTS_WITHOUT_PROGRESS) throw lost(object, host, error);
    }
  } while (offset < object.sizeBytes);
  if (offset < object.sizeBytes) throw wrongSize(object, "fewer");
}

async function openAt(
  object: Descriptor,
  offset: number,
  options: Fetching,
): Promise<{ readonly host: RegistryHost; readonly answer: Answer }> {
  const hosts = options.hosts.filter((host) => host.capabilities.includes("pull"));
  const refusals: Refusal[] = [];
  const section = isManifestMediaType(object.mediaType) ? "manifests" : "blobs";
  for (const [index, host] of hosts.entries()) {
    const refuse = (status: number, reason: string): void => {
      const refusal = { host: host.origin, mirror: host.mirror, status, reason };
      refusals.push(refusal);
      options.onRefusal(refusal);
    };
    try {
      const answer = await askHost(
        host,
        {
          method: "GET",
          registry: options.registry,
          repository: options.repository,
          object: `${section}/${object.digest}`,
          headers: {
            accept: `${object.mediaType}, */*`,
            ...(offset === 0 ? {} : { range: `bytes=${offset}-` }),
          },
          signal: options.signal,
        },
        { ...options, isLast: index === hosts.length - 1 },
      );
      const objection = await positionAt(answer, offset);
      if (objection === undefined) return { host, answer };
      answer.body.destroy();
      refuse(answer.status, objection);
    } catch (error) {
      options.signal.throwIfAborted();
      refuse(0, errorMessage(error));
    }
  }
  throw nobodyHas(`${section}/${object.digest}`, refusals);
}

/** Makes the body begin at `offset`. @returns why it cannot */
async function positionAt(answer: Answer, offset: number): Promise<string | undefined> {
  if (answer.status > 299) return `status ${answer.status}`;
  const coding = answer.headers["content-encoding"];
  if (coding !== undefined && coding !== "identity") return `content coding ${coding} in a registry's answer`;
  if (offset === 0) return undefined;
  const range = answer.headers["content-range"];
  if (range !== undefined)
    return range.startsWith(`bytes ${offset}-`) ? undefined : `range ${range} instead of ${offset}-`;
  // The whole body in spite of the range: what was read before is read again and dropped.
  return (await skip(answer, offset)) ? undefined : "the body is shorter than what was read before";
}

async function skip(answer: Answer, sizeBytes: number): Promise<boolean> {
  let left = sizeBytes;
  for await (const chunk of answer.body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    left -= chunk.length;
    if (left > 0) continue;
    if (left < 0) answer.body.unshift(chunk.subarray(chunk.length + left));
    return true;
  }
  return left === 0;
}

function wrongSize(object: Descriptor, how: "more" | "fewer"): PullError {
  const message = `${object.digest} has ${how} than ${object.sizeBytes} bytes`;
  return new PullError({ code: "PULL_SIZE_MISMATCH", message });
}

function lost(object: Descriptor, host: RegistryHost, cause: unknown): PullError {
  const message = `${host.origin} broke the connection while sending ${object.digest}`;
  return new PullError({ code: "PULL_CONNECTION_LOST", message, cause });
}
