// SPDX-License-Identifier: Apache-2.0
/** `gardener-extension-registry-spegel-admission`: judges the providerConfig of Shoots, next to the virtual garden. */
import { runProgram } from "#program";
import { readFlags, USAGE } from "./flags.ts";
import { openAdmission } from "./wire.ts";

await runProgram(
  {
    name: "gardener-extension-registry-spegel-admission",
    usage: USAGE,
    readFlags,
    async run(flags, { logger, signal }) {
      await using admission = await openAdmission({ logger, environment: process.env, signal }, flags);
      logger.info("running", {
        health: admission.healthAddress,
        metrics: admission.metricsAddress,
        webhook: admission.webhookAddress,
      });
      await admission.finished;
    },
  },
  process,
);
