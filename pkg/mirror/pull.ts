// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { fetchTrusted, noteAsked, noteRelayed } from "./fetch-trusted.ts";
import type { MirrorDeps, MirrorOptions, PullRecord } from "./mirror.ts";
import { type Local, openLocal } from "./open-local.ts";
import { type Pull, parsePull } from "./parse-pull.ts";
import { refuse, unknown } from "./refuse.ts";
import { sendFromPeers } from "./send-from-peers.ts";
import { sendLocal } from "./send-local.ts";

/**
 * Answers one pull: from local content, else from a peer, else 404 so that containerd goes upstream.
 *
 * `parsePull -> admit -> openLocal -> findPeers -> raceFetch -> relay (resume at byte n) -> record`.
 * A pull of another node leaves after `openLocal`. See docs/flows/pull.md.
 */
export async function pull(
  deps: MirrorDeps,
  options: MirrorOptions,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<PullRecord> {
  const asked = parsePull(request);
  if (asked === undefined) return refuse(response, "not a pull");
  if (!deps.filters.admitsName(asked)) return refuse(response, "filtered", asked);

  const local = await openLocalOrNone(deps, asked, signal);
  if (local.found) return sendLocal(asked, local, response, signal);
  if (asked.mirrored || local.present) return unknown(response, asked, local.reason);

  noteAsked(deps, asked);
  const source = await fetchTrusted(deps, options, asked, asked.range, signal);
  if (!("response" in source)) {
    deps.metrics.mirrored(asked.registry, false);
    return unknown(response, asked, source.message, { attempts: source.attempts });
  }
  const sent = await sendFromPeers(deps, options, asked, source, response, signal);
  noteRelayed(deps, asked, source, sent);
  deps.metrics.mirrored(asked.registry, sent.complete);
  return {
    pull: asked,
    source: "peer",
    bytes: sent.bytes,
    peers: sent.peers,
    resumes: sent.resumes,
    ...(sent.complete ? {} : { reason: "cut" }),
  };
}

/** A store that cannot answer is a store that has nothing: peers and upstream still can. */
async function openLocalOrNone(deps: MirrorDeps, asked: Pull, signal: AbortSignal): Promise<Local> {
  try {
    return await openLocal(deps.store, asked, signal);
  } catch (error) {
    signal.throwIfAborted();
    deps.log.warn("The content store did not answer.", { store: deps.store.name, err: error });
    return { found: false, present: false, reason: `could not get ${asked.kind} ${asked.key}` };
  }
}
