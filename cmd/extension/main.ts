// SPDX-License-Identifier: Apache-2.0
/** `gardener-extension-registry-spegel`: keeps Extensions of type registry-spegel, and the webhook for node configurations. */
import { runProgram } from "#program";
import { readFlags, USAGE } from "./flags.ts";
import { openExtension } from "./wire.ts";

await runProgram(
  {
    name: "gardener-extension-registry-spegel",
    usage: USAGE,
    readFlags,
    async run(flags, { logger, signal }) {
      await using extension = await openExtension({ logger, environment: process.env, signal }, flags);
      logger.info("running", {
        health: extension.healthAddress,
        metrics: extension.metricsAddress,
        webhook: extension.webhookAddress,
        gardenerVersion: flags.gardenerVersion,
      });
      await extension.finished;
    },
  },
  process,
);
