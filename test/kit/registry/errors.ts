// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

type RegistryErrorCode = "REGISTRY_PUSH_REFUSED" | "REGISTRY_NOT_INSTALLED";

export class RegistryError extends CodedError<RegistryErrorCode> {
  override readonly name = "RegistryError";
}
