// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { ExtensionError } from "./errors.ts";

const PREFIX = "spegel";
const MAX_LABEL_LENGTH = 63;
const DNS_LABEL = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;
const DNS_NAME = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;

/**
 * The host name under which nodes reach the bootstrapper: one DNS label below the seed's ingress domain, because
 * its wildcard record and certificate cover just one. Gardener names its own hosts likewise (ComputeIngressHost):
 * `shoot--foo--bar` becomes `spegel-foo--bar`.
 * @throws ExtensionError EXTENSION_HOST_INVALID
 */
export function bootstrapperHost(technicalID: string, ingressDomain: string): string {
  if (!DNS_NAME.test(ingressDomain))
    throw invalid(`the seed's ingress domain ${quote(ingressDomain)} is not a DNS name`);
  const shortID = technicalID.replace(/^shoot-/, "").replace(/^-/, "");
  const readable = `${PREFIX}-${shortID}`;
  const label =
    readable.length <= MAX_LABEL_LENGTH ? readable : `${PREFIX}-${digest(technicalID).slice(0, 10)}`;
  if (!DNS_LABEL.test(label))
    throw invalid(`the Shoot's technical ID ${quote(technicalID)} is not a DNS label`);
  const host = `${label}.${ingressDomain}`;
  if (host.length > 253) throw invalid(`the host name of the bootstrapper has ${host.length} characters`);
  return host;
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex");
const quote = (text: string): string => JSON.stringify(text.slice(0, 100));

function invalid(message: string): ExtensionError {
  return new ExtensionError({ code: "EXTENSION_HOST_INVALID", message });
}
