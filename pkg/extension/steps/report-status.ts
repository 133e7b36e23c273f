// SPDX-License-Identifier: Apache-2.0
import { SPEGEL_API_VERSION, SPEGEL_STATUS_KIND } from "#api/spegel";
import { BOOTSTRAP_NODES_PATH } from "#nodelayout";
import { found, type Step } from "../step.ts";

/** What the webhook needs to write node configurations: names and ports, never the content of a secret. */
export const reportStatus: Step = async (run, deps) => {
  const { bundleSecretName, clientSecretName } = found(run.certificates, "the certificates");
  const providerStatus = {
    apiVersion: SPEGEL_API_VERSION,
    kind: SPEGEL_STATUS_KIND,
    bootstrapURL: `https://${found(run.host, "the host")}${BOOTSTRAP_NODES_PATH}`,
    caBundleSecretName: bundleSecretName,
    clientSecretName,
    ...found(run.ports, "the ports"),
    image: deps.options.nodeImage,
  } as const;
  return { kind: "report", providerStatus };
};
