// SPDX-License-Identifier: Apache-2.0
/** The settings of `spegel cleanup-wait`. Names and defaults are Spegel's. */
import Type, { type Static } from "typebox";
import { duration, logLevel } from "./settings.ts";

export const CleanupWaitSettingsSchema = Type.Object(
  {
    logLevel,
    probeEndpoint: Type.String({
      pattern: "^(\\[[0-9a-fA-F:.]+\\]|[^:\\[\\]]+):[0-9]{1,5}$",
      description: "host:port of the clean-up service; every address of the host is asked. Required.",
    }),
    threshold: Type.Integer({
      minimum: 1,
      maximum: 1000,
      default: 3,
      description: "Rounds in a row in which every address must answer.",
    }),
    period: Type.String({ ...duration, default: "2s", description: "Time between two rounds." }),
  },
  { additionalProperties: false, title: "spegel cleanup-wait" },
);

export type CleanupWaitSettings = Readonly<Static<typeof CleanupWaitSettingsSchema>>;
