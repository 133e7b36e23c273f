// SPDX-License-Identifier: Apache-2.0
/** The settings of `spegel cleanup`. Names and defaults are Spegel's. */
import Type, { type Static } from "typebox";
import { containerdRegistryConfigPath, listenAddress, logLevel } from "./settings.ts";

export const CleanupSettingsSchema = Type.Object(
  {
    logLevel,
    addr: Type.String({
      ...listenAddress,
      description: "Address on which /readyz says that the configuration is restored. Required.",
    }),
    containerdRegistryConfigPath,
  },
  { additionalProperties: false, title: "spegel cleanup" },
);

export type CleanupSettings = Readonly<Static<typeof CleanupSettingsSchema>>;
