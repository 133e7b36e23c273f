// SPDX-License-Identifier: Apache-2.0
/** `registry-spegel-bootstrapper`: tells a starting spegel which nodes exist, over mTLS. */
import { once } from "node:events";
import { runProgram } from "#program";
import { readFlags, USAGE } from "./flags.ts";
import { openBootstrapper } from "./wire.ts";

await runProgram(
  {
    name: "registry-spegel-bootstrapper",
    usage: USAGE,
    readFlags,
    async run(flags, { logger, signal }) {
      await using bootstrapper = await openBootstrapper({ logger, environment: process.env, signal }, flags);
      logger.info("serving", {
        address: bootstrapper.address,
        health: bootstrapper.healthAddress,
        metrics: bootstrapper.metricsAddress,
      });
      if (!signal.aborted) await once(signal, "abort");
    },
  },
  process,
);
