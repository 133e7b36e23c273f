// SPDX-License-Identifier: Apache-2.0
import type { Settings } from "./command-line.ts";

/** A validator of settings, in the form of those that are compiled ahead of time. */
export interface Validate {
  (value: unknown): boolean;
  errors?:
    | readonly {
        readonly instancePath: string;
        readonly keyword: string;
        readonly message?: string;
        readonly params: Readonly<Record<string, unknown>>;
      }[]
    | null;
}

type TypeProblem = NonNullable<Validate["errors"]>[number];

/**
 * A validator for settings that have no compiled schema: names, types and enumerations. What values mean together
 * is judged by the program.
 */
export function createTypeValidator(settings: Settings): Validate {
  const validate: Validate = (value) => {
    const problems = Object.entries(value as Record<string, unknown>).flatMap(
      ([key, given]): TypeProblem[] => {
        const setting = Object.hasOwn(settings, key) ? settings[key] : undefined;
        if (setting === undefined) {
          return [{ instancePath: "", keyword: "additionalProperties", params: { additionalProperty: key } }];
        }
        const isKnown = setting.enum === undefined || setting.enum.includes(String(given));
        if (isKnown && isOfType(given, setting.type)) return [];
        const keyword = isKnown ? "type" : "enum";
        return [{ instancePath: `/${key}`, keyword, message: `must be ${setting.type}`, params: {} }];
      },
    );
    validate.errors = problems;
    return problems.length === 0;
  };
  return validate;
}

function isOfType(value: unknown, type: string | undefined): boolean {
  if (type === "integer") return Number.isInteger(value);
  if (type === "array") return Array.isArray(value) && value.every((each) => typeof each === "string");
  return typeof value === type;
}
