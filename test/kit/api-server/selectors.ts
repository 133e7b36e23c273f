// SPDX-License-Identifier: Apache-2.0
import { badRequest } from "./status.ts";
import type { ApiObject } from "./storage.ts";

type Labels = Readonly<Record<string, string>>;
type Predicate = (labels: Labels) => boolean;

/** `a=b,c!=d,e in (f,g),h notin (i),j,!k` */
export function parseLabelSelector(text: string): Predicate {
  const requirements = text
    .split(/,(?![^(]*\))/)
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map(parseRequirement);
  return (labels) => requirements.every((matches) => matches(labels));
}

function parseRequirement(text: string): Predicate {
  const set = /^([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(text);
  if (set) {
    const [, key = "", operator, list = ""] = set;
    const values = list.split(",").map((value) => value.trim());
    return (labels) => values.includes(labels[key] ?? "\0") === (operator === "in");
  }
  const equality = /^([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)$/.exec(text);
  if (equality) {
    const [, key = "", operator, value] = equality;
    return (labels) => (labels[key] === value) === (operator !== "!=");
  }
  const existence = /^(!?)([\w./-]+)$/.exec(text);
  if (existence) {
    const [, not, key = ""] = existence;
    return (labels) => Object.hasOwn(labels, key) === (not === "");
  }
  throw badRequest(`unable to parse requirement: ${text}`);
}

/** `metadata.name=x,metadata.namespace=y` */
export function parseFieldSelector(text: string): (object: ApiObject) => boolean {
  const requirements = text.split(",").map((part) => {
    const match = /^(metadata\.name|metadata\.namespace)(==|=|!=)(.*)$/.exec(part);
    if (!match) throw badRequest(`field label not supported: ${part}`);
    return {
      field: match[1] === "metadata.name" ? ("name" as const) : ("namespace" as const),
      equal: match[2] !== "!=",
      value: match[3],
    };
  });
  return (object) =>
    requirements.every(({ field, equal, value }) => (object.metadata[field] === value) === equal);
}

/** meta/v1 LabelSelector; an absent or empty one selects everything. */
export interface LabelSelector {
  readonly matchLabels?: Labels;
  readonly matchExpressions?: readonly { key: string; operator: string; values?: readonly string[] }[];
}

export function matchesLabelSelector(selector: LabelSelector | undefined, labels: Labels = {}): boolean {
  const equal = Object.entries(selector?.matchLabels ?? {}).every(([key, value]) => labels[key] === value);
  return (
    equal && (selector?.matchExpressions ?? []).every((expression) => matchesExpression(expression, labels))
  );
}

function matchesExpression(
  { key, operator, values = [] }: { key: string; operator: string; values?: readonly string[] },
  labels: Labels,
): boolean {
  const value = labels[key];
  if (operator === "In") return value !== undefined && values.includes(value);
  if (operator === "NotIn") return value === undefined || !values.includes(value);
  if (operator === "Exists") return value !== undefined;
  if (operator === "DoesNotExist") return value === undefined;
  throw badRequest(`${operator} is not a valid label selector operator`);
}
