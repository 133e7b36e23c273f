// SPDX-License-Identifier: Apache-2.0
/**
 * The configuration of `spegel registry`.
 *
 * This schema is the only place where a setting is declared: flags (`--mirror-resolve-timeout`), environment
 * (`MIRROR_RESOLVE_TIMEOUT`), file keys (`mirrorResolveTimeout`), defaults, help and docs come from it.
 * Names and defaults are Spegel's; settings that Spegel does not have say so in their description.
 */
import Type, { type Static } from "typebox";
import { dnsLabel, dnsSubdomain, duration, listenAddress, logLevel, mirroredRegistries } from "./settings.ts";

export const RegistryConfigurationSchema = Type.Object(
  {
    logLevel,
    store: Type.String({
      pattern: "^(containerd|oci-layout:.+)$",
      default: "containerd",
      description:
        "Where content is read from: containerd, or oci-layout:<dir> for an OCI image layout folder. Not in Spegel.",
    }),
    bootstrapKind: Type.Enum(["dns", "http", "static", "kubernetes"], {
      description: "How the first peers are found. Required.",
    }),
    dnsBootstrapDomain: Type.Optional(
      Type.String({ description: "Name whose A and AAAA records are peers (bootstrap kind dns)." }),
    ),
    httpBootstrapAddr: Type.Optional(
      Type.String({
        ...listenAddress,
        description:
          "Address on which this node's own peer information is served at /id. Not served when empty.",
      }),
    ),
    httpBootstrapUrl: Type.Optional(
      Type.String({
        pattern: "^https?://",
        description: "URL that returns peers as a JSON array (bootstrap kind http).",
      }),
    ),
    httpBootstrapPeer: Type.Optional(
      Type.String({
        pattern: "^https?://",
        description:
          "Base URL whose /id returns one peer; the form of Spegel up to v0.7.4 (bootstrap kind http).",
      }),
    ),
    httpBootstrapCertDir: Type.Optional(
      Type.String({
        description:
          "Folder with ca.crt, tls.crt and tls.key for the bootstrap URL; read again at every attempt.",
      }),
    ),
    staticBootstrapPeers: Type.Array(Type.String({ pattern: "^/.+/p2p/[1-9A-HJ-NP-Za-km-z]+$" }), {
      default: [],
      description: "Multiaddresses of peers, each ending in /p2p/<peer id> (bootstrap kind static).",
    }),
    kubeconfigPath: Type.Optional(
      Type.String({
        description:
          "kubeconfig file; the service account of the pod when empty (bootstrap kind kubernetes).",
      }),
    ),
    leaderElectionNamespace: Type.String({
      ...dnsLabel,
      default: "spegel",
      description: "Namespace of the Lease for which all nodes run (bootstrap kind kubernetes).",
    }),
    leaderElectionName: Type.String({
      ...dnsSubdomain,
      default: "spegel-leader-election",
      description:
        "Name of that Lease; its holder is the node where others join (bootstrap kind kubernetes).",
    }),
    metricsAddr: Type.String({
      ...listenAddress,
      default: ":9090",
      description: "Address of metrics and debug pages.",
    }),
    containerdSock: Type.String({
      default: "/run/containerd/containerd.sock",
      description: "containerd's gRPC socket.",
    }),
    containerdNamespace: Type.String({
      default: "k8s.io",
      description: "containerd namespace whose content is served.",
    }),
    containerdContentPath: Type.String({
      default: "/var/lib/containerd/io.containerd.content.v1.content",
      description: "containerd's content folder; blobs are read from it. Asked from containerd when empty.",
    }),
    dataDir: Type.Optional(
      Type.String({
        description: "Folder that keeps the node's identity. A new identity on each start when empty.",
      }),
    ),
    routerAddr: Type.String({
      ...listenAddress,
      default: ":5001",
      description: "Address of the peer-to-peer router.",
    }),
    registryAddr: Type.String({
      ...listenAddress,
      default: ":5000",
      description: "Address of the OCI registry. All nodes use the same port.",
    }),
    mirroredRegistries,
    registryFilters: Type.Array(Type.String(), {
      default: [],
      description:
        "RE2 expressions; names registry/repository:tag that match one are neither served nor announced.",
    }),
    mirrorResolveTimeout: Type.String({
      ...duration,
      default: "20ms",
      description: "How long a request waits for a peer while no peer is being asked.",
    }),
    mirrorResolveRetries: Type.Integer({
      minimum: 1,
      maximum: 20,
      default: 3,
      description: "How many peers a look-up asks for.",
    }),
    debugWebEnabled: Type.Boolean({
      default: true,
      description: "Serve /debug/web/metadata on the metrics address.",
    }),
  },
  { additionalProperties: false, title: "spegel registry" },
);

export type RegistryConfiguration = Readonly<Static<typeof RegistryConfigurationSchema>>;
