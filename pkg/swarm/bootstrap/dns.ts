// SPDX-License-Identifier: Apache-2.0
import { lookup } from "node:dns/promises";
import { SwarmError } from "../errors.ts";
import { canonicalIp, formatEndpoint } from "../ip-address.ts";
import { type BootstrapSource, MAX_BOOTSTRAP_PEERS } from "./source.ts";

/** Resolves a name to all its addresses of one family. */
export type ResolveAddresses = (domain: string, family: 4 | 6) => Promise<readonly string[]>;

/** As other programs of the machine do: hosts file, search domains, resolver. */
const resolveWithSystem: ResolveAddresses = async (domain, family) => {
  const found = await lookup(domain, { all: true, family });
  return found.map(({ address }) => address);
};

/**
 * Every address of a name, usually a headless Service, is a node; A and AAAA records are asked for separately and one
 * of them may fail. Of many addresses a random choice is taken: the lowest ones may be dead, and would be everybody's choice.
 */
export function createDnsBootstrap(
  deps: { readonly resolve?: ResolveAddresses; readonly random?: () => number },
  options: { readonly domain: string; readonly defaultPort: number },
): BootstrapSource {
  const resolve = deps.resolve ?? resolveWithSystem;
  const random = deps.random ?? Math.random;
  return {
    name: "dns",
    async peers({ signal }) {
      signal.throwIfAborted();
      const families = await withAbort(
        Promise.allSettled([resolve(options.domain, 4), resolve(options.domain, 6)]),
        signal,
      );
      const found = families.flatMap((family) => (family.status === "fulfilled" ? family.value : []));
      if (families.every((family) => family.status === "rejected")) {
        const cause = families[0]?.status === "rejected" ? families[0].reason : undefined;
        throw new SwarmError({
          code: "SWARM_BOOTSTRAP_FAILED",
          message: `cannot resolve ${options.domain}`,
          cause,
        });
      }
      const ips = [...new Set(found.map((ip) => canonicalIp(ip)))].sort();
      return shuffle(ips, random)
        .slice(0, MAX_BOOTSTRAP_PEERS)
        .map((ip) => ({ id: undefined, addresses: [formatEndpoint({ ip, port: options.defaultPort })] }));
    },
  };
}

/** A resolver cannot be stopped; this stops waiting for it. */
async function withAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function shuffle<T>(items: readonly T[], random: () => number): T[] {
  const shuffled = [...items];
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [shuffled[i], shuffled[j]] = [shuffled[j] as T, shuffled[i] as T];
  }
  return shuffled;
}
