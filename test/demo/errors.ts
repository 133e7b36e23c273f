// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type DemoErrorCode =
  /** A part of the product did not do what the next step needs. */
  | "DEMO_STEP_FAILED"
  /** Everything ran, and what came out is wrong. */
  | "DEMO_CHECK_FAILED";

export class DemoError extends CodedError<DemoErrorCode> {
  override readonly name = "DemoError";
}

/** @throws DemoError DEMO_STEP_FAILED unless `condition` holds */
export function demand(condition: boolean, message: string): asserts condition {
  if (!condition) throw new DemoError({ code: "DEMO_STEP_FAILED", message });
}
