// SPDX-License-Identifier: Apache-2.0
/**
 * Errors that carry a code of a closed set, and ways to read errors of others.
 *
 * Every package that throws declares one union of codes and throws `CodedError<ThatUnion>`;
 * a wrong code is then a compile error. Codes are permanent: never give an old one a new meaning.
 */

/** An error of this project. `code` is stable and meant for programs, `message` for people. */
export class CodedError<Code extends string = string> extends Error {
  override readonly name: string = "CodedError";
  readonly code: Code;

  constructor(init: { readonly code: Code; readonly message: string; readonly cause?: unknown }) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code;
  }
}

/** True when `error` is ours and has this code. */
export function hasCode<Code extends string>(error: unknown, code: Code): error is CodedError<Code> {
  return error instanceof CodedError && error.code === code;
}

/** The `code` of a Node system error (`ENOENT`, `ECONNREFUSED`, ...), else undefined. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The message of an error followed by those of its causes, each once: `a: b: c`. Bounded to 8 causes. */
export function errorMessage(error: unknown): string {
  const parts: string[] = [];
  let current: unknown = error;
  for (let depth = 0; depth < 8 && current !== undefined && current !== null; depth++) {
    const text = ownMessage(current);
    if (text !== "" && !parts.some((part) => part.includes(text))) parts.push(text);
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(": ");
}

function ownMessage(error: unknown): string {
  if (error instanceof AggregateError) {
    const inner = error.errors.slice(0, 4).map((each) => ownMessage(each));
    return [error.message, ...inner].filter((text) => text !== "").join("; ");
  }
  if (error instanceof Error)
    return error.message !== "" ? error.message : (systemErrorCode(error) ?? error.name);
  return String(error);
}

/** True for the error of an aborted signal (`AbortError`, `TimeoutError`) anywhere in the chain of causes. */
export function isAbort(error: unknown): boolean {
  let current: unknown = error;
  for (let depth = 0; depth < 8 && current instanceof Error; depth++) {
    if (current.name === "AbortError" || current.name === "TimeoutError") return true;
    current = current.cause;
  }
  return false;
}
