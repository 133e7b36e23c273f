// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";
import { validateOSC } from "#kit/node-agent";
import type { KubeClient, Resource } from "#kube";
import { SPEGEL_UNIT_NAME } from "#nodelayout";
import { demand } from "./errors.ts";
import { readExample } from "./prepare-seed.ts";

const OSCS: Resource<OperatingSystemConfig> = {
  group: "extensions.gardener.cloud",
  version: "v1alpha1",
  plural: "operatingsystemconfigs",
  kind: "OperatingSystemConfig",
  namespaced: true,
};

/**
 * Plays gardenlet: writes the OperatingSystemConfigs of a worker pool through the API server, which asks the
 * webhook of the running extension.
 *
 * @returns the one for running nodes, as the webhook changed it
 */
export async function mutateOSC(
  client: KubeClient,
  options: { readonly signal: AbortSignal },
): Promise<OperatingSystemConfig> {
  const provision = await readExample<OperatingSystemConfig>("osc-provision.yaml");
  const stored = await client.create(OSCS, provision, options);
  demand(isDeepStrictEqual(stored.spec, provision.spec), "the webhook changed the user data of new machines");

  const original = await readExample<OperatingSystemConfig>("osc-reconcile.yaml");
  const mutated = await client.create(OSCS, original, options);
  demand(
    mutated.spec.units?.some((unit) => unit.name === SPEGEL_UNIT_NAME) === true,
    "the webhook did not add the unit of spegel",
  );
  const problems = validateOSC(mutated);
  demand(problems.length === 0, `Gardener would refuse what the webhook made: ${problems.join("; ")}`);

  // The OS extension writes the object as well: what is changed already must stay as it is.
  const again = await client.replace(OSCS, mutated, options);
  demand(isDeepStrictEqual(again.spec, mutated.spec), "the webhook changed its own result once more");
  return mutated;
}
