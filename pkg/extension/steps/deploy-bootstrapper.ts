// SPDX-License-Identifier: Apache-2.0
import { applyManagedResource } from "../managed-resource.ts";
import { SEED_RESOURCE_NAME } from "../names.ts";
import { bootstrapperObjects } from "../objects/bootstrapper.ts";
import { monitoringObjects } from "../objects/monitoring.ts";
import { routeObjects } from "../objects/route.ts";
import { ensureShootAccess } from "../shoot-access.ts";
import { found, type Step, unlessAsleep } from "../step.ts";

/**
 * The bootstrapper, the way to it and what the Shoot's monitoring needs, through the seed's resource manager. A
 * hibernated Shoot has no replicas.
 */
export const deployBootstrapper: Step = async (run, deps) => {
  const { isHibernated, isMonitored, ipFamilies, genericKubeconfigSecretName } = found(
    run.shoot,
    "the Shoot",
  );
  const { serverSecretName, bundleSecretName } = found(run.certificates, "the certificates");
  const { namespace } = run;
  await unlessAsleep(run, () => ensureShootAccess(deps.client, namespace, run));
  const bootstrapper = bootstrapperObjects(
    {
      namespace,
      replicas: isHibernated ? 0 : 1,
      ipFamilies,
      serverSecretName,
      bundleSecretName,
      genericKubeconfigSecretName,
    },
    deps.options,
  );
  const route = routeObjects({ namespace, host: found(run.host, "the host") }, deps.options);
  const monitoring = isMonitored ? monitoringObjects(namespace) : [];
  const objects = [...bootstrapper, ...route, ...monitoring];
  await applyManagedResource(
    deps.client,
    { name: SEED_RESOURCE_NAME, namespace, class: "seed", objects },
    run,
  );
  return undefined;
};
