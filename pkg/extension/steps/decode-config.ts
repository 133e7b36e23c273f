// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";
import { ExtensionError } from "../errors.ts";
import type { Step } from "../step.ts";

/** Decodes the providerConfig. What the user has to mend is reported so that the Shoot is not retried meanwhile. */
export const decodeConfig: Step = async (run, deps) => {
  try {
    run.ports = deps.decodeConfig(run.extension.spec.providerConfig);
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    throw new ExtensionError({
      code: "EXTENSION_CONFIG_INVALID",
      message: "the providerConfig is not valid",
      cause: error,
      gardenerCodes: ["ERR_CONFIGURATION_PROBLEM"],
      retry: "never",
    });
  }
  return undefined;
};
