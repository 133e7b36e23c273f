// SPDX-License-Identifier: Apache-2.0
import { type Static, type TString, Type } from "typebox";
import { PortSchema, SPEGEL_API_VERSION, SPEGEL_STATUS_KIND } from "./config.ts";

/** A Secret's name: DNS-1123 subdomain. */
function secretNameSchema(description: string): TString {
  return Type.String({
    pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    maxLength: 253,
    description,
  });
}

/**
 * `Extension.status.providerStatus` of `registry-spegel`: what the webhook needs to change an OperatingSystemConfig.
 *
 * It carries names of Secrets, never their content. The values end up in unit files on nodes, so the patterns
 * leave out everything systemd or a line break could give a meaning to.
 */
export const SpegelStatusSchema = Type.Object(
  {
    apiVersion: Type.Literal(SPEGEL_API_VERSION),
    kind: Type.Literal(SPEGEL_STATUS_KIND),
    bootstrapURL: Type.String({
      pattern: "^https://[A-Za-z0-9.\\[\\]:-]+(/[A-Za-z0-9._~/-]*)?$",
      maxLength: 2048,
      description:
        "Full URL of the bootstrapper's node list, e.g. https://spegel-foo--bar.ingress.example/bootstrap-nodes.",
    }),
    caBundleSecretName: secretNameSchema(
      "Secret in the Shoot's namespace whose `bundle.crt` verifies the bootstrapper.",
    ),
    clientSecretName: secretNameSchema(
      "Secret in the Shoot's namespace with the nodes' client certificate (`tls.crt`, `tls.key`).",
    ),
    registryPort: PortSchema,
    routerPort: PortSchema,
    metricsPort: PortSchema,
    image: Type.Optional(
      Type.String({
        pattern: "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
        maxLength: 1024,
        description:
          "Image with the node executable that the last reconciliation chose; absent: the operator's.",
      }),
    ),
  },
  { additionalProperties: false },
);

export type SpegelStatus = Static<typeof SpegelStatusSchema>;
