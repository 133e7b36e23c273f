// SPDX-License-Identifier: Apache-2.0
import { lookup } from "node:dns/promises";
import { get } from "node:http";
import type { CleanupWaitSettings } from "#api/config";
import { createSemaphore, sleep } from "#async";
import { parseDuration } from "#config";
import { formatHostPort, parseListenAddress } from "#http";
import type { Logger } from "#log";

const MAX_PARALLEL_CHECKS = 10;
const CHECK_TIMEOUT_MS = 1_000;

export interface CleanupWaitContext {
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** All addresses of a host; the system's resolver unless a test says otherwise. */
  readonly resolve?: (host: string) => Promise<readonly string[]>;
}

/**
 * `spegel cleanup-wait`: ends when every address of the clean-up service has answered in `threshold` rounds in a row.
 *
 * A round without addresses is a failed one: the nodes are not there yet. (To Spegel it is a success.)
 */
export async function runCleanupWait(
  settings: CleanupWaitSettings,
  context: CleanupWaitContext,
): Promise<void> {
  const { log, signal } = context;
  const { host = "localhost", port } = parseListenAddress(settings.probeEndpoint);
  const periodMs = parseDuration(settings.period, "period");
  const resolve = context.resolve ?? resolveAll;
  for (let rounds = 0; ; ) {
    const failure = await failureOfRound(await resolve(host).catch(() => []), port, signal);
    rounds = failure === undefined ? rounds + 1 : 0;
    if (failure === undefined)
      log.info("All nodes are cleaned up.", { rounds, threshold: settings.threshold });
    else log.info("Not all nodes are cleaned up yet.", { reason: failure });
    if (rounds === settings.threshold) return;
    await sleep(periodMs, { signal });
  }
}

async function resolveAll(host: string): Promise<readonly string[]> {
  const addresses = await lookup(host, { all: true });
  return [...new Set(addresses.map(({ address }) => address))];
}

/** Why a round failed; undefined when there are addresses and all answer 200. */
async function failureOfRound(
  addresses: readonly string[],
  port: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (addresses.length === 0) return "the service has no addresses";
  const slots = createSemaphore(MAX_PARALLEL_CHECKS);
  const failures = await Promise.all(
    addresses.map(async (address) => {
      using _slot = await slots.acquire({ signal });
      return await failureOf(address, port, signal);
    }),
  );
  return failures.find((failure) => failure !== undefined);
}

function failureOf(address: string, port: number, signal: AbortSignal): Promise<string | undefined> {
  signal.throwIfAborted();
  return new Promise((resolve) => {
    const at = formatHostPort(address, port);
    const limit = AbortSignal.any([signal, AbortSignal.timeout(CHECK_TIMEOUT_MS)]);
    const request = get(`http://${at}/readyz`, { signal: limit, agent: false }, (response) => {
      const { statusCode } = response;
      response.destroy(); // the status is all that counts; a body may have no end
      resolve(statusCode === 200 ? undefined : `${at} answered ${statusCode}`);
    });
    request.on("error", (error) => resolve(`${at} does not answer (${error.message})`));
  });
}
