// SPDX-License-Identifier: Apache-2.0
/** The settings of `spegel configuration`. Names and defaults are Spegel's. */
import Type, { type Static } from "typebox";
import { containerdRegistryConfigPath, logLevel, mirroredRegistries } from "./settings.ts";

export const ConfigurationSettingsSchema = Type.Object(
  {
    logLevel,
    containerdRegistryConfigPath,
    mirroredRegistries,
    mirrorTargets: Type.Array(Type.String(), {
      minItems: 1,
      description: "URLs of the mirrors that containerd asks, in this order. Required.",
    }),
    resolveTags: Type.Boolean({
      default: true,
      description: "Let mirrors answer which digest a tag has.",
    }),
    prependExisting: Type.Boolean({
      default: false,
      description: "Keep the hosts that were there, after the mirrors.",
    }),
  },
  { additionalProperties: false, title: "spegel configuration" },
);

export type ConfigurationSettings = Readonly<Static<typeof ConfigurationSettingsSchema>>;
