// SPDX-License-Identifier: Apache-2.0
/** docs/reference/spegel-config.md: the API of the extension, from its schemas. */
import { SPEGEL_API_VERSION, SpegelConfigSchema } from "../api/spegel/v1alpha1/config.ts";
import { CONTESTED_PORTS, type PortRange, RESERVED_PORTS } from "../api/spegel/v1alpha1/reserved-ports.ts";
import { SpegelStatusSchema } from "../api/spegel/v1alpha1/status.ts";

interface Field {
  readonly type?: string;
  readonly const?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: unknown;
  readonly description?: string;
}

interface Schema {
  readonly properties: Readonly<Record<string, Field>>;
  readonly required?: readonly string[];
}

/** The fields that differ from object to object; `apiVersion` and `kind` are constants. */
function rows(source: unknown): string[] {
  const { properties, required = [] } = JSON.parse(JSON.stringify(source)) as Schema;
  const fields = Object.entries(properties).filter(([, field]) => field.const === undefined);
  return fields.map(([name, field]) => {
    const type =
      field.maximum === undefined ? field.type : `${field.type}, ${field.minimum}-${field.maximum}`;
    const value = field.default === undefined ? "" : `\`${JSON.stringify(field.default)}\``;
    const about = field.description ?? "As configured, or by default, when the Shoot was last reconciled.";
    return `| \`${name}\` | ${type} | ${required.includes(name) ? "yes" : "no"} | ${value} | ${about} |`;
  });
}

const ports = (ranges: readonly PortRange[]): string[] =>
  ranges.map(({ first, last, owner }) => `| ${first === last ? first : `${first}-${last}`} | ${owner} |`);

export function spegelConfigPage(): string {
  const head = ["| field | type | required | default | meaning |", "|---|---|---|---|---|"];
  const owners = ["| port | of |", "|---|---|"];
  return [
    "# SpegelConfig and SpegelStatus",
    "",
    `Generated from \`api/spegel/v1alpha1\`. Both are \`apiVersion: ${SPEGEL_API_VERSION}\`.`,
    "",
    "## SpegelConfig",
    "What a Shoot may set in `spec.extensions[type=registry-spegel].providerConfig`, see",
    "[the example](../../example/spegelconfig.yaml). All of it may be absent, which is the normal case; the operator may have",
    "set other defaults. As soon as anything is set, `apiVersion` and `kind` must be too, and fields that are not listed are",
    "errors.",
    "",
    ...head,
    ...rows(SpegelConfigSchema),
    "",
    "The ports must differ from each other. These are refused, because something else on nodes listens there:",
    "",
    ...owners,
    ...ports(RESERVED_PORTS),
    "",
    "These are accepted with a warning:",
    "",
    ...owners,
    ...ports(CONTESTED_PORTS),
    "",
    "## SpegelStatus",
    "What the controller reports in `status.providerStatus` of the Extension, and the webhook puts on nodes. It names Secrets",
    "and never holds their content.",
    "",
    ...head,
    ...rows(SpegelStatusSchema),
    "",
  ].join("\n");
}
