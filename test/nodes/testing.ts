// SPDX-License-Identifier: Apache-2.0
import {
  findContainerdBinaries,
  openRig,
  type Rig,
  type RigOptions,
  spreadGenerations,
} from "../kit/node-rig/index.ts";

export const MIB = 1024 * 1024;

// On a busy machine a look-up may take longer than the 20 ms after which a pull goes upstream by default; these tests
// are about what is found, and most of them have no upstream then.
const PATIENT = "--mirror-resolve-timeout=2s";

/**
 * Opens a rig whose nodes have the generations of containerd in turn.
 *
 * A generation that cannot be had is left out and named in one line; with CI=true that is an error.
 */
export async function openNodes(
  count: number,
  options: Omit<RigOptions, "containerds" | "program">,
): Promise<Rig> {
  const { found, missing } = await findContainerdBinaries(options);
  if (found.length === 0) throw new Error(missing ?? "no containerd");
  if (missing !== undefined) {
    if (process.env["CI"] === "true") throw new Error(missing);
    console.log(`note: ${missing}`);
  }
  return openRig({
    ...options,
    containerds: spreadGenerations(found, count),
    program: ["dist/spegel"],
    flags: [PATIENT, ...(options.flags ?? [])],
  });
}

/** Looks every 20 ms until `condition` holds; the test's own timeout is the bound. */
export async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}
