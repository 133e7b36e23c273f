// SPDX-License-Identifier: Apache-2.0
/**
 * The values of both charts of charts/gardener-extension-registry-spegel-admission: gardener-operator gives the same
 * values to both.
 */
import type { TObject } from "typebox";
import { handedOver, podValues, portDefaults } from "./gardener-values.ts";
import { closed, flag, labels, text } from "./schema.ts";

export const AdmissionValuesSchema: TObject = closed({
  ...podValues("the admission", { cpu: "20m", memory: "80Mi" }),
  metrics: closed({
    enableScraping: flag(
      true,
      "Let Prometheus find the pods: by annotations, and by a ServiceMonitor where gardener-operator installs the chart or the cluster has that kind.",
    ),
    enableAlerts: flag(true, "Give it rules for alerts beside the ServiceMonitor."),
    labels: labels("Labels by which a Prometheus finds both; as they are, that of the garden.", {
      prometheus: "garden",
    }),
  }),
  defaults: portDefaults(" As in the extension."),
  projectedKubeconfig: closed({
    baseMountPath: text(
      "/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig",
      "Folder of the kubeconfig and the token.",
      { pattern: "^/" },
    ),
    genericKubeconfigSecretName: text(
      "",
      "Secret with the kubeconfig of the virtual garden. Leave it empty with gardener-operator, which brings its own.",
    ),
    tokenSecretName: text("", "Secret with the token for that kubeconfig."),
  }),
  ...handedOver,
});
