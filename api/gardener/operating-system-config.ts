// SPDX-License-Identifier: Apache-2.0
import type { JSONValue, KubernetesObject } from "./meta.ts";

/** `extensions.gardener.cloud/v1alpha1 OperatingSystemConfig`, as far as it is read or written here. */
export interface OperatingSystemConfig extends KubernetesObject {
  readonly spec: OperatingSystemConfigSpec;
}

/** Lists may be absent or null: the API server treats both as empty. */
export interface OperatingSystemConfigSpec {
  readonly type: string;
  /** `provision` becomes cloud user data; `reconcile` is applied by the gardener-node-agent. */
  readonly purpose: "provision" | "reconcile";
  readonly units?: readonly Unit[] | null;
  readonly files?: readonly File[] | null;
  /** Absent when the worker pool has no container runtime section. */
  readonly criConfig?: CRIConfig | null;
}

/** A systemd unit. */
export interface Unit {
  readonly name: string;
  readonly command?: "start" | "restart" | "stop";
  readonly enable?: boolean;
  /** The whole unit file. */
  readonly content?: string;
  readonly dropIns?: readonly DropIn[] | null;
  /** Paths of files of the same OperatingSystemConfig; a change of one restarts the unit. */
  readonly filePaths?: readonly string[] | null;
}

export interface DropIn {
  readonly name: string;
  readonly content: string;
}

export interface File {
  /** Absolute and unique. */
  readonly path: string;
  /** Mode bits as a decimal number (0755 is 493); the node's default is 0600. */
  readonly permissions?: number | null;
  readonly content: FileContent;
  /** The file goes to the node of this name only. */
  readonly hostName?: string | null;
}

/** Exactly one of `inline`, `secretRef` and `imageRef` is set. */
export interface FileContent {
  readonly inline?: { readonly encoding: "" | "b64"; readonly data: string } | null;
  readonly secretRef?: { readonly name: string; readonly dataKey: string } | null;
  readonly imageRef?: { readonly image: string; readonly filePathInImage: string } | null;
  readonly transmitUnencoded?: boolean;
}

export interface CRIConfig {
  readonly name: string;
  readonly cgroupDriver?: string;
  /** Only with purpose `reconcile`. */
  readonly containerd?: ContainerdConfig | null;
}

export interface ContainerdConfig {
  readonly sandboxImage: string;
  readonly registries?: readonly RegistryConfig[] | null;
  readonly plugins?: readonly PluginConfig[] | null;
}

export type RegistryCapability = "pull" | "resolve" | "push";

/** One `certs.d/<upstream>/hosts.toml`. */
export interface RegistryConfig {
  /** `host[:port]` or `_default`; unique. */
  readonly upstream: string;
  /** URL of the registry itself, asked after all hosts. */
  readonly server?: string | null;
  /** Asked in this order. */
  readonly hosts?: readonly RegistryHost[] | null;
  /** The node waits for every host to answer before it writes the file. */
  readonly readinessProbe?: boolean | null;
}

export interface RegistryHost {
  readonly url: string;
  /** Absent means pull and resolve. */
  readonly capabilities?: readonly RegistryCapability[] | null;
  readonly caCerts?: readonly string[] | null;
  readonly overridePath?: boolean | null;
}

/** A change of containerd's config.toml below `plugins`. */
export interface PluginConfig {
  /** Absent means `add`. The node restarts containerd when the list changes, even from absent to `add`. */
  readonly op?: "add" | "remove";
  readonly path: readonly string[];
  readonly values?: JSONValue;
}
