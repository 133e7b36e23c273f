// SPDX-License-Identifier: Apache-2.0

/** One setting of a program, as plain JSON schema. */
export interface SettingSchema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly items?: { readonly type: string; readonly pattern?: string };
  readonly default?: unknown;
  readonly description?: string;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
}

/**
 * All settings of a program: a closed JSON object schema. The files in gen/ are typed by it.
 * @public
 */
export interface SettingsSchema {
  readonly type: string;
  readonly title: string;
  readonly required: readonly string[];
  readonly properties: Readonly<Record<string, SettingSchema>>;
  readonly additionalProperties: boolean;
}

/** A validator compiled by Ajv. */
export interface ValidateSettings {
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
