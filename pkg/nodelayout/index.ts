// SPDX-License-Identifier: Apache-2.0
/**
 * Paths, ports and unit names on a Shoot node: what `osc` writes and `spegel` and the node agent read.
 */

/** Gardener's folder for binaries on nodes. */
const BINARY_DIRECTORY = "/opt/bin";

export const SPEGEL_BINARY_PATH = `${BINARY_DIRECTORY}/spegel`;
/** Where the executable lies in the node image (imageRef's `filePathInImage`). */
export const SPEGEL_BINARY_PATH_IN_IMAGE = "/spegel";
/**
 * What the executable needs beside glibc: on the node, and in the node image. It looks in `lib` beside itself first, so
 * an operating system without them, or with older ones, will do.
 */
export const SPEGEL_LIBRARIES = ["libgcc_s.so.1", "libstdc++.so.6"].map((name) => ({
  path: `${BINARY_DIRECTORY}/lib/${name}`,
  pathInImage: `/lib/${name}`,
}));
export const SPEGEL_METRICS_SCRIPT_PATH = `${BINARY_DIRECTORY}/spegel_metrics.sh`;

export const SPEGEL_UNIT_NAME = "spegel.service";
export const SPEGEL_METRICS_UNIT_NAME = "spegel-metrics.service";

/** Client certificate for the bootstrapper. The file names are fixed by `--http-bootstrap-cert-dir`. */
export const CERTIFICATE_DIRECTORY = "/var/lib/spegel/certs";
export const CA_CERTIFICATE_FILE = "ca.crt";
export const CLIENT_CERTIFICATE_FILE = "tls.crt";
export const CLIENT_KEY_FILE = "tls.key";

/** Settings of the daemon that have no place on a command line; only there when something is set. */
export const CONFIGURATION_FILE = "/var/lib/spegel/registry.json";

/** Identity of the node in the swarm (`private.key`). */
export const DATA_DIRECTORY = "/var/lib/spegel/data";
export const IDENTITY_KEY_FILE = "private.key";

export const CONTAINERD_SOCKET = "/run/containerd/containerd.sock";
export const CONTAINERD_CONTENT_PATH = "/var/lib/containerd/io.containerd.content.v1.content";
export const CONTAINERD_NAMESPACE = "k8s.io";
export const CONTAINERD_CERTS_DIRECTORY = "/etc/containerd/certs.d";
/** containerd's name for the mirror that is asked for every registry without a folder of its own. */
export const DEFAULT_UPSTREAM = "_default";

/** node-exporter's textfile collector on Gardener nodes. */
export const TEXTFILE_DIRECTORY = "/var/lib/node-exporter/textfile-collector";
export const TEXTFILE_NAME = "spegel.prom";

export const DEFAULT_REGISTRY_PORT = 5000;
export const DEFAULT_ROUTER_PORT = 5001;
export const DEFAULT_METRICS_PORT = 9090;

/** Path of the bootstrapper's only resource. */
export const BOOTSTRAP_NODES_PATH = "/bootstrap-nodes";
