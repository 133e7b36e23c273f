// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from "node:url";

/** How to start a program: from its sources, or as it is shipped, from dist/, for measurements. */
export function programCommand(name: "gardener-extension-registry-spegel" | "registry-spegel-bootstrapper"): {
  readonly command: string;
  readonly args: readonly string[];
} {
  if (process.env["PROGRAMS"] === "built") {
    return { command: fileURLToPath(new URL(`../../dist/${name}`, import.meta.url)), args: [] };
  }
  const folder = name === "registry-spegel-bootstrapper" ? "bootstrapper" : "extension";
  const main = fileURLToPath(new URL(`../../cmd/${folder}/main.ts`, import.meta.url));
  return { command: process.execPath, args: ["--disable-warning=ExperimentalWarning", main] };
}
