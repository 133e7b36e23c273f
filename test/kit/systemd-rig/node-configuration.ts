// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig } from "#api/gardener";
import { addSpegel, type OSCOptions, resolveOptions } from "#osc";

/** Where the certificate of the upstream registry's authority lies on the node. */
const AUTHORITY_PATH = "/etc/ssl/rig-authority.pem";

export interface NodeConfiguration {
  readonly bootstrapURL: string;
  readonly authorityPem: string;
  /** Of the operator; `image` is what `/opt/bin/spegel` is taken from. */
  readonly options: OSCOptions;
}

/** The configuration of a worker pool as gardenlet writes it, cut down to what runs here: containerd and kubelet. */
export function plainConfiguration(authorityPem: string): OperatingSystemConfig {
  return {
    apiVersion: "extensions.gardener.cloud/v1alpha1",
    kind: "OperatingSystemConfig",
    metadata: { name: "gardener-node-agent-rig", namespace: "shoot--rig--rig" },
    spec: {
      type: "rig",
      purpose: "reconcile",
      units: [
        {
          name: "containerd.service",
          dropIns: [
            {
              name: "30-env_config.conf",
              content: `[Service]\nEnvironment=SSL_CERT_FILE=${AUTHORITY_PATH}\n`,
            },
          ],
          filePaths: [AUTHORITY_PATH],
        },
        {
          name: "kubelet.service",
          command: "start",
          enable: true,
          content: KUBELET_UNIT,
          filePaths: ["/opt/bin/kubelet"],
        },
      ],
      files: [
        inlineFile("/opt/bin/kubelet", 0o755, "#!/bin/sh\nexec sleep infinity\n"),
        inlineFile(AUTHORITY_PATH, 0o644, authorityPem),
      ],
      criConfig: {
        name: "containerd",
        cgroupDriver: "systemd",
        containerd: { sandboxImage: "registry.example.test/pause:1" },
      },
    },
  };
}

/** The same after the webhook has put spegel into it. */
export function spegelConfiguration(node: NodeConfiguration): OperatingSystemConfig {
  return addSpegel(plainConfiguration(node.authorityPem), {
    ...resolveOptions(node.options),
    bootstrapURL: node.bootstrapURL,
    caBundleSecretName: CA_SECRET,
    clientSecretName: CLIENT_SECRET,
    registryPort: 5000,
    routerPort: 5001,
    metricsPort: 9090,
  });
}

export const CA_SECRET = "ca-bootstrapper";
export const CLIENT_SECRET = "client-bootstrapper";

// As Gardener's, down to the missing dependency on spegel.
const KUBELET_UNIT = `[Unit]
Description=kubelet daemon
After=containerd.service
[Install]
WantedBy=multi-user.target
[Service]
Restart=always
RestartSec=5
EnvironmentFile=/etc/environment
ExecStart=/opt/bin/kubelet
`;

function inlineFile(path: string, permissions: number, text: string) {
  const data = Buffer.from(text).toString("base64");
  return { path, permissions, content: { inline: { encoding: "b64" as const, data } } };
}
