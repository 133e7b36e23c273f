// SPDX-License-Identifier: Apache-2.0
import { found, type Step } from "../step.ts";

/** Deletes certificates that no longer count, once nothing deployed refers to them. */
export const pruneCredentials: Step = async (run) => {
  await found(run.certificates, "the certificates").prune(run);
  return undefined;
};
