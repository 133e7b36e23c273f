// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { sleep } from "#async";
import type { Landscape } from "./landscape.ts";

/** Writes node configurations until the API server calls a webhook that answers. */
export async function webhookAnswers(landscape: Landscape, namespace: string, pool: string): Promise<void> {
  for (;;) {
    try {
      const osc = await landscape.gardenlet.writeOSC(namespace, { pool });
      if (/spegel\.service/.test(JSON.stringify(osc))) return;
    } catch (error) {
      assert.match(String(error), /failed calling webhook/);
    }
    landscape.signal.throwIfAborted();
    await sleep(50, landscape);
  }
}
