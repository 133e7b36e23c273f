// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import { DemoError } from "./errors.ts";
import type { NodePull } from "./pull-images.ts";
import type { Daemon } from "./start-daemons.ts";

const TIMEOUT_MS = 15_000;
const POLL_INTERVAL_MS = 20;

/**
 * Waits until the mirror of every other node finds all that was pulled: nodes learn of new content through the
 * swarm, a moment after the pull.
 */
export async function awaitFindable(
  pulls: readonly NodePull[],
  daemons: readonly Daemon[],
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const deadline = AbortSignal.any([options.signal, AbortSignal.timeout(TIMEOUT_MS)]);
  for (const daemon of daemons) {
    for (const path of pulls.flatMap(pathsOf)) {
      const url = `${daemon.registry}${path}`;
      while (!(await answers(url, deadline))) {
        await sleep(POLL_INTERVAL_MS, { signal: deadline }).catch(() => {
          options.signal.throwIfAborted();
          const message = `${daemon.node.name} did not find ${path} on another node within ${TIMEOUT_MS} ms`;
          throw new DemoError({ code: "DEMO_STEP_FAILED", message });
        });
      }
    }
  }
}

function pathsOf({ image, report }: NodePull): readonly string[] {
  const registry = report.reference.slice(0, report.reference.indexOf("/"));
  const path = (object: string): string =>
    `/v2/${image.repository}/${object}?ns=${encodeURIComponent(registry)}`;
  return [
    path(`manifests/${image.tag}`),
    ...report.objects.map(({ kind, digest }) =>
      path(`${kind === "index" || kind === "manifest" ? "manifests" : "blobs"}/${digest}`),
    ),
  ];
}

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(url, { method: "HEAD", signal });
    return response.status === 200;
  } catch {
    return false;
  }
}
