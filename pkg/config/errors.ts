// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type ConfigErrorCode = "CONFIG_INVALID" | "CONFIG_FILE_UNREADABLE" | "CONFIG_DURATION_INVALID";

/** One thing that is wrong, with the place where the user wrote it: a flag, an environment name, a file key, a path. */
export interface ConfigProblem {
  readonly path: string;
  readonly message: string;
}

export class ConfigError extends CodedError<ConfigErrorCode> {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(init: {
    readonly code: ConfigErrorCode;
    readonly problems: readonly ConfigProblem[];
    readonly cause?: unknown;
  }) {
    super({
      code: init.code,
      message: init.problems.map((problem) => `${problem.path}: ${problem.message}`).join("; "),
      cause: init.cause,
    });
    this.problems = init.problems;
  }
}
