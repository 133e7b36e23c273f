// SPDX-License-Identifier: Apache-2.0
/** Words for the settings of a program; each says what it means. */
import type { Setting } from "./command-line.ts";

export function text(description: string, fallback?: string): Setting {
  return { type: "string", description, ...(fallback !== undefined && { default: fallback }) };
}

/** A whole number; bounds, both or none, are included. */
export function integer(
  description: string,
  more: { readonly default?: number } & (
    | { readonly minimum: number; readonly maximum: number }
    | { readonly minimum?: never }
  ) = {},
): Setting {
  return { type: "integer", description, ...more };
}

export function flag(description: string, fallback: boolean): Setting {
  return { type: "boolean", description, default: fallback };
}

export function list(description: string, fallback: readonly string[]): Setting {
  return { type: "array", description, default: fallback };
}

export function choice(description: string, values: readonly string[], fallback: string): Setting {
  return { type: "string", enum: values, default: fallback, description };
}
