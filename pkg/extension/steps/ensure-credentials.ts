// SPDX-License-Identifier: Apache-2.0
import { ExtensionError } from "../errors.ts";
import { bootstrapperHost } from "../host.ts";
import { serviceNames } from "../objects/bootstrapper.ts";
import { found, type Step } from "../step.ts";

/** Names the bootstrapper's host and makes sure of the certificates for it. */
export const ensureCredentials: Step = async (run, deps) => {
  const { technicalID, ingressDomain, rotation } = found(run.shoot, "the Shoot");
  if (ingressDomain === undefined) {
    throw new ExtensionError({
      code: "EXTENSION_HOST_INVALID",
      message: "the seed has no spec.ingress.domain",
    });
  }
  run.host = bootstrapperHost(technicalID, ingressDomain);
  const serverNames = [run.host, ...serviceNames(run.namespace)];
  run.certificates = await deps.certificates.ensure({ namespace: run.namespace, serverNames, rotation }, run);
  return undefined;
};
