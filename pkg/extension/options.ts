// SPDX-License-Identifier: Apache-2.0

/** What the operator decides for all Shoots of a seed. */
export interface ExtensionOptions {
  /** Image of the bootstrapper, pinned by digest. */
  readonly bootstrapperImage: string;
  /** Image with the node executable; goes into providerStatus and from there onto the nodes. */
  readonly nodeImage: string;
  /** The Istio ingress gateway that the wildcard record of the seed's ingress domain points to. */
  readonly istio: {
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly bootstrapperRequests: { readonly cpu: string; readonly memory: string };
  /** The controller runs in a Shoot with its control plane inside: there is nothing to do then. */
  readonly selfHostedShootCluster: boolean;
  /** Between looks at a ManagedResource that is awaited, once it has been for a while. */
  readonly pollIntervalMs: number;
  /** For objects to become healthy, and to be gone; below the run's three minutes, so that a failure is reported. */
  readonly healthTimeoutMs: number;
  readonly deletionTimeoutMs: number;
}

/** Defaults, apart from the images. */
export const DEFAULT_EXTENSION_OPTIONS: Omit<ExtensionOptions, "bootstrapperImage" | "nodeImage"> = {
  istio: {
    namespace: "istio-ingress",
    // gardenlet's `sni.ingress.labels`, and the role of gateways that serve the seed
    labels: { app: "istio-ingressgateway", istio: "ingressgateway", "istio-role": "seed" },
  },
  bootstrapperRequests: { cpu: "10m", memory: "48Mi" },
  selfHostedShootCluster: false,
  pollIntervalMs: 2000,
  healthTimeoutMs: 120_000,
  deletionTimeoutMs: 120_000,
};
