// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { resolveRange } from "#http";
import { sendContent } from "#transfer";
import type { PullRecord } from "./mirror.ts";
import type { Local } from "./open-local.ts";
import type { Pull } from "./parse-pull.ts";
import { unknown } from "./refuse.ts";
import { respondEmpty, writeContentHead } from "./respond.ts";

/** Sends content of this node: whole, a part, or the head alone. */
export async function sendLocal(
  asked: Pull,
  local: Extract<Local, { found: true }>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<PullRecord> {
  const { digest, mediaType, sizeBytes } = local.info;
  const range = asked.range === undefined ? undefined : resolveRange(asked.range, sizeBytes);
  if (asked.range !== undefined && range === undefined) {
    respondEmpty(response, 400);
    return { pull: asked, source: "none", bytes: 0, reason: "range not satisfiable" };
  }
  const head = {
    digest,
    mediaType,
    sizeBytes,
    namespace: asked.registry,
    ...(range === undefined ? {} : { range }),
  };
  if (asked.method === "HEAD" || sizeBytes === 0) {
    writeContentHead(response, asked, head);
    response.end();
    return { pull: asked, source: "local", bytes: 0 };
  }
  await using content = await local.open(signal);
  if (content === undefined)
    return unknown(response, asked, `could not get reader for ${asked.kind} ${digest}`);
  writeContentHead(response, asked, head);
  const outcome = await sendContent(content, range ?? { start: 0, end: sizeBytes - 1 }, response, { signal });
  return {
    pull: asked,
    source: "local",
    bytes: outcome.bytes,
    ...(outcome.ended === "complete" ? {} : { reason: outcome.ended }),
  };
}
