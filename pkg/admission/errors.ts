// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type AdmissionErrorCode = "ADMISSION_OBJECT_INVALID";

export class AdmissionError extends CodedError<AdmissionErrorCode> {
  override readonly name = "AdmissionError";
}
