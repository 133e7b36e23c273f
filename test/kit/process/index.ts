// SPDX-License-Identifier: Apache-2.0
/**
 * Programs as child processes: started, awaited until they answer, read, and ended by pid.
 *
 * A child never outlives its parent, whatever the parent dies of: see `startGuard`.
 */
export { createOutput, type Output, type OutputLine } from "./output.ts";
export {
  type Exit,
  ProcessError,
  type ProcessErrorCode,
  type Readiness,
  type RunningProcess,
  type StartOptions,
  startProcess,
} from "./start-process.ts";
