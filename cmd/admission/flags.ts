// SPDX-License-Identifier: Apache-2.0
import { judgePortDefaults } from "#admission";
import { integer, loadSettings, type Settings, text, usage } from "#config";
import { judgeWebhookFlags, type WebhookFlags, webhookSettings } from "#program";
import { COMPONENT } from "./shoot-webhook.ts";

/** The settings of `admission` after parsing. */
export interface AdmissionFlags extends WebhookFlags {
  /** Of the virtual garden. */
  readonly kubeconfig?: string;
  /** Of the cluster in which the program runs. */
  readonly runtimeKubeconfig?: string;
  readonly registryPort?: number;
  readonly routerPort?: number;
  readonly metricsPort?: number;
}

const SETTINGS: Settings = {
  kubeconfig: text(
    "Kubeconfig of the virtual garden. Default: GARDEN_KUBECONFIG, KUBECONFIG, else the pod's own cluster.",
  ),
  runtimeKubeconfig: text(
    "Kubeconfig of the cluster with the certificates and the Lease. Default: the pod's own cluster.",
  ),
  ...webhookSettings(COMPONENT),
  registryPort: integer("Port of the registry on nodes when a Shoot says nothing; as in the extension."),
  routerPort: integer("Port of the router on nodes when a Shoot says nothing; as in the extension."),
  metricsPort: integer("Port of the metrics on nodes when a Shoot says nothing; as in the extension."),
};

/** The text of `--help`. */
export const USAGE: string = usage(COMPONENT, SETTINGS);

/**
 * Reads flags, environment and file. GARDEN_KUBECONFIG is what gardener-operator puts into the pods of admissions.
 * @throws ConfigError naming every wrong setting by the place it was written
 */
export async function readFlags(input: {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}): Promise<AdmissionFlags> {
  return await loadSettings<AdmissionFlags>(
    {
      properties: SETTINGS,
      complete: (flags) => {
        const kubeconfig = flags.kubeconfig || input.environment["GARDEN_KUBECONFIG"];
        return { ...flags, ...(kubeconfig && { kubeconfig }) };
      },
      judge: (flags) => [...judgeWebhookFlags(flags), ...judgePortDefaults(flags)],
    },
    // KUBECONFIG is what every Kubernetes client reads; it is left to `loadKubeConfig`.
    { ...input, environment: { ...input.environment, KUBECONFIG: undefined } },
  );
}
