// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import type { Fetched } from "./fetch-from-peer.ts";
import { fetchTrusted } from "./fetch-trusted.ts";
import type { MirrorDeps, MirrorOptions } from "./mirror.ts";
import type { Pull } from "./parse-pull.ts";
import { type Relayed, relay } from "./relay.ts";
import { writeContentHead } from "./respond.ts";

const MAX_IDLE_RESUMES = 3;
const MAX_RESUMES = 100;
/** How long another peer is waited for in the middle of a body: giving up there costs more than at the start. */
const RESUME_RESOLVE_TIMEOUT_MS = 300;

/** Sends what a peer has answered with; relays its body, and goes on with others when it is lost. */
export async function sendFromPeers(
  deps: MirrorDeps,
  options: MirrorOptions,
  asked: Pull,
  source: Fetched,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<Relayed> {
  const { digest, mediaType, sizeBytes, range } = source;
  writeContentHead(response, asked, {
    digest,
    mediaType,
    sizeBytes,
    ...(range === undefined ? {} : { range }),
  });
  if (asked.method === "HEAD" || sizeBytes === 0) {
    await source.response[Symbol.asyncDispose]();
    response.end();
    return { bytes: 0, complete: true, resumes: 0, peers: [source.peer.id] };
  }
  using _relay = deps.floor.enter();
  const resolveTimeoutMs = Math.max(options.resolveTimeoutMs, RESUME_RESOLVE_TIMEOUT_MS);
  return await relay(
    response,
    source,
    {
      // The rest is always asked for by digest: a tag may have moved in between.
      resume: (rest, lost) =>
        fetchTrusted(
          deps,
          { ...options, resolveTimeoutMs },
          byDigest(asked, digest),
          rest,
          signal,
          lost.peer.id,
        ),
      onSourceLost(lost, ended, moved) {
        deps.metrics.sourceLost(ended);
        // A connection that broke after it had moved may be tried again; a silent or slow one wasted time already.
        if (ended === "source-stalled" || ended === "source-slow" || !moved) deps.health.avoid(lost.peer.id);
        deps.log.debug("A peer was lost in the middle of a body.", {
          peer: lost.peer.id,
          key: asked.key,
          reason: ended,
        });
      },
    },
    {
      stallTimeoutMs: options.stallTimeoutMs,
      leastBytesPerSecond: deps.floor.leastBytesPerSecond,
      maxIdleResumes: MAX_IDLE_RESUMES,
      maxResumes: MAX_RESUMES,
      signal,
    },
  );
}

function byDigest(asked: Pull, digest: Fetched["digest"]): Pull {
  return { ...asked, digest, tag: undefined, key: digest, kind: asked.kind };
}
