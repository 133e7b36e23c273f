// SPDX-License-Identifier: Apache-2.0
import { createLeaderCampaign, type LeaderCampaignDeps, type LeaseOptions } from "#kube";
import { SwarmError } from "../errors.ts";
import { type BootstrapSource, parseBootstrapPeer } from "./source.ts";

export interface KubernetesBootstrapOptions extends LeaseOptions {
  readonly defaultPort: number;
}

/** Spegel's, and those of its nodes that run for the same Lease. */
const DEFAULTS = { leaseDurationMs: 10_000, renewDeadlineMs: 5_000, retryPeriodMs: 2_000 } as const;
/** More is no address. */
const MAX_IDENTITY_CHARACTERS = 512;

/**
 * All nodes run for one Lease, and join at the node that leads. The identity of a candidate is its own address with its
 * id, as Spegel wrote it before v0.1: `/ip4/10.0.0.1/tcp/5001/p2p/12D3KooW...`. The leader knows nobody else: it is the
 * first node. While the API server is away the last known leader counts.
 */
export function createKubernetesBootstrap(
  deps: Omit<LeaderCampaignDeps, "identity">,
  options: KubernetesBootstrapOptions,
): BootstrapSource {
  let self: () => readonly string[] = () => [];
  let identity: string | undefined;
  /** The same for as long as that address is there: a leader under another name would be another one. */
  function chooseIdentity(): string | undefined {
    const own = self();
    if (identity === undefined || !own.includes(identity)) identity = own[0];
    return identity;
  }
  const campaign = createLeaderCampaign({ ...deps, identity: chooseIdentity }, { ...DEFAULTS, ...options });
  const lease = `Lease ${options.namespace}/${options.name}`;
  return {
    name: "kubernetes",
    async peers({ signal }) {
      const leader = await campaign.leader({ signal }).catch((cause: unknown) => {
        throw failed(`cannot learn from ${lease} who leads`, cause);
      });
      if (leader.length > MAX_IDENTITY_CHARACTERS)
        throw failed(`${lease} is held by somebody whose name is longer than ${MAX_IDENTITY_CHARACTERS}`);
      try {
        return [parseBootstrapPeer([leader], { defaultPort: options.defaultPort })];
      } catch (cause) {
        throw failed(
          `${lease} is held by ${JSON.stringify(leader)}, which is no node's address; give the swarm a Lease of its own`,
          cause,
        );
      }
    },
    async run(context, { signal }) {
      self = context.self;
      await campaign.run({ signal });
    },
  };
}

function failed(message: string, cause?: unknown): SwarmError {
  return new SwarmError({ code: "SWARM_BOOTSTRAP_FAILED", message, cause });
}
