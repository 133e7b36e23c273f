// SPDX-License-Identifier: Apache-2.0
/**
 * The values of both charts of charts/gardener-extension-registry-spegel-admission: gardener-operator gives the same
 * values to both.
 */
import type { TObject } from "typebox";
import { handedOver, podValues, portDefaults } from "./gardener-values.ts";
import { closed, text } from "./schema.ts";

export const AdmissionValuesSchema: TObject = closed({
  ...podValues("the admission", { cpu: "20m", memory: "80Mi" }),
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
