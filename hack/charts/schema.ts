// SPDX-License-Identifier: Apache-2.0
/** Words for schemas of chart values: each value has a default and says what it means. */
import Type, { type TObject, type TSchema } from "typebox";

/** A group of values; unknown keys are errors. */
export const closed = (properties: Record<string, TSchema>, description?: string): TObject =>
  Type.Object(properties, {
    additionalProperties: false,
    ...(description === undefined ? {} : { description }),
  });
export const text = (fallback: string, description: string, more: object = {}): TSchema =>
  Type.String({ default: fallback, description, ...more });
export const oneOf = (values: readonly string[], fallback: string, description: string): TSchema =>
  Type.Enum([...values], { default: fallback, description });
export const flag = (fallback: boolean, description: string): TSchema =>
  Type.Boolean({ default: fallback, description });
export const integer = (minimum: number, maximum: number, fallback: number, description: string): TSchema =>
  Type.Integer({ minimum, maximum, default: fallback, description });
export const port = (fallback: number, description: string): TSchema =>
  integer(1, 65535, fallback, description);
export const strings = (
  description: string,
  fallback: readonly string[] = [],
  item: TSchema = Type.String(),
): TSchema => Type.Array(item, { default: fallback, description });
/** Kubernetes objects are passed through as they are: the API server judges them. */
export const objects = (description: string, fallback: readonly object[] = []): TSchema =>
  Type.Array(Type.Object({}), { default: fallback, description });
export const map = (description: string, fallback: object = {}): TSchema =>
  Type.Object({}, { default: fallback, description });
export const labels = (description: string, fallback: Record<string, string> = {}): TSchema =>
  Type.Object({}, { additionalProperties: { type: "string" }, default: fallback, description });
/** What Helm and Gardener put beside a chart's own values. */
export const handed = (description: string): TSchema => Type.Object({}, { description });
