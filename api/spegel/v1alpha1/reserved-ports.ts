// SPDX-License-Identifier: Apache-2.0

/** An inclusive range of TCP ports and who listens there. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
  readonly owner: string;
}

/**
 * Ports that something else on a Gardener node listens on; spegel must not be given one of them.
 *
 * Two daemons on one port would leave spegel in a restart loop that no node condition shows.
 */
export const RESERVED_PORTS: readonly PortRange[] = [
  { first: 1, last: 1023, owner: "privileged ports (sshd, DNS, BGP, HTTPS)" },
  { first: 2751, last: 2752, owner: "gardener-node-agent" },
  { first: 3001, last: 3001, owner: "valitail" },
  { first: 4240, last: 4240, owner: "cilium health" },
  { first: 4244, last: 4244, owner: "cilium hubble" },
  { first: 5473, last: 5473, owner: "calico typha" },
  { first: 6443, last: 6443, owner: "kube-apiserver" },
  { first: 8053, last: 8053, owner: "node-local-dns upstream" },
  { first: 8099, last: 8099, owner: "node-local-dns health" },
  { first: 9091, last: 9091, owner: "calico felix metrics" },
  { first: 9098, last: 9098, owner: "calico typha health" },
  { first: 9099, last: 9099, owner: "calico felix health" },
  { first: 9253, last: 9253, owner: "node-local-dns metrics" },
  { first: 9353, last: 9353, owner: "node-local-dns error metrics" },
  { first: 9878, last: 9879, owner: "cilium agent health" },
  { first: 9890, last: 9893, owner: "cilium agent" },
  { first: 9962, last: 9965, owner: "cilium metrics" },
  { first: 10248, last: 10250, owner: "kubelet and kube-proxy" },
  { first: 10255, last: 10257, owner: "kubelet, kube-proxy and kube-controller-manager" },
  { first: 10259, last: 10259, owner: "kube-scheduler" },
  { first: 13133, last: 13133, owner: "OpenTelemetry collector health" },
  { first: 16909, last: 16909, owner: "node-exporter" },
  { first: 16910, last: 16910, owner: "apiserver-proxy" },
  { first: 18888, last: 18888, owner: "OpenTelemetry collector metrics" },
  { first: 20257, last: 20257, owner: "node-problem-detector" },
];

/**
 * Ports that may be chosen, but where something else can get in the way: a warning, not an error
 * (the proposal's own example lies in the last range).
 */
export const CONTESTED_PORTS: readonly PortRange[] = [
  { first: 30000, last: 32767, owner: "Kubernetes NodePorts" },
  { first: 32768, last: 65535, owner: "outgoing connections of the node (ephemeral ports)" },
];
