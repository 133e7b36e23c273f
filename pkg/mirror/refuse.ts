// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import type { PullRecord } from "./mirror.ts";
import type { Pull } from "./parse-pull.ts";
import { respondEmpty, respondUnknown } from "./respond.ts";

/** 404 without a body: not a pull, or one that is filtered. */
export function refuse(response: ServerResponse, reason: string, asked?: Pull): PullRecord {
  respondEmpty(response, 404);
  return { source: "none", bytes: 0, reason, ...(asked === undefined ? {} : { pull: asked }) };
}

/** 404 with the reason in the words of the distribution specification. */
export function unknown(
  response: ServerResponse,
  asked: Pull,
  reason: string,
  detail?: Readonly<Record<string, unknown>>,
): PullRecord {
  respondUnknown(response, asked, reason, detail);
  return { pull: asked, source: "none", bytes: 0, reason };
}
