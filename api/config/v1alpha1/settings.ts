// SPDX-License-Identifier: Apache-2.0
/** Settings that several commands have, and the forms of their values. */
import Type, { type TArray, type TEnum, type TString } from "typebox";

/** Go's duration syntax: `20ms`, `1.5s`, `1m30s`. */
export const duration = { pattern: "^([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h))+$" } as const;

/** `host:port` with an optional host, as Go's net.Listen takes it. */
export const listenAddress = { pattern: "^(\\[[0-9a-fA-F:.]+\\]|[^:\\[\\]]*):[0-9]{1,5}$" } as const;

/** Name of a namespace (RFC 1123 label). */
export const dnsLabel = { pattern: "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" } as const;

/** Name of most objects of Kubernetes (RFC 1123 subdomain). */
export const dnsSubdomain = { pattern: "^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$" } as const;

export const logLevel: TEnum<["DEBUG", "INFO", "WARN", "ERROR"]> = Type.Enum(
  ["DEBUG", "INFO", "WARN", "ERROR"],
  { default: "INFO", description: "Least severe level that is logged." },
);

export const mirroredRegistries: TArray<TString> = Type.Array(Type.String(), {
  default: [],
  description: "Registries that are mirrored, as URLs; all when empty or when one is * or _default.",
});

export const containerdRegistryConfigPath: TString = Type.String({
  default: "/etc/containerd/certs.d",
  description: "Folder of containerd's registry configuration (config_path).",
});
