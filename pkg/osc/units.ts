// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig, Unit } from "#api/gardener";
import {
  CERTIFICATE_DIRECTORY,
  CONFIGURATION_FILE,
  CONTAINERD_CONTENT_PATH,
  CONTAINERD_NAMESPACE,
  CONTAINERD_SOCKET,
  DATA_DIRECTORY,
  SPEGEL_BINARY_PATH,
  SPEGEL_LIBRARIES,
  SPEGEL_METRICS_SCRIPT_PATH,
  SPEGEL_METRICS_UNIT_NAME,
  SPEGEL_UNIT_NAME,
  TEXTFILE_DIRECTORY,
  TEXTFILE_NAME,
} from "#nodelayout";
import type { NodeSettings } from "./context.ts";
import { upsertFile, upsertUnit } from "./draft.ts";
import { CERTIFICATE_PATHS, hasConfiguration, scriptFile } from "./files.ts";
import { METRICS_SCRIPT } from "./metrics-script.ts";
import { oncePerNode } from "./once-per-node.ts";

const STATE_ROOT = "/var/lib/";
const SCRIPT = scriptFile(SPEGEL_METRICS_SCRIPT_PATH, METRICS_SCRIPT);
const TEXTFILE_PATH = `${TEXTFILE_DIRECTORY}/${TEXTFILE_NAME}`;

/** Both units and the script. `filePaths` names every file a unit consumes, so that a change restarts it. */
export function addUnits(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  return upsertUnit(upsertUnit(upsertFile(osc, SCRIPT), spegelUnit(node)), metricsUnit(node));
}

/** The registry port of the `spegel.service` an earlier call has written into this object, if any. */
export function writtenRegistryPort(osc: OperatingSystemConfig): number | undefined {
  const content = osc.spec.units?.find((unit) => unit.name === SPEGEL_UNIT_NAME)?.content;
  const port = /--registry-addr=:([0-9]{1,5})(?![0-9])/.exec(content ?? "")?.[1];
  return port === undefined ? undefined : Number(port);
}

const spegelUnit = oncePerNode(
  (node): Unit => ({
    name: SPEGEL_UNIT_NAME,
    command: "start",
    enable: true,
    content: spegelUnitText(node),
    filePaths: [
      SPEGEL_BINARY_PATH,
      ...SPEGEL_LIBRARIES.map(({ path }) => path),
      ...CERTIFICATE_PATHS,
      ...(hasConfiguration(node) ? [CONFIGURATION_FILE] : []),
    ],
  }),
);

const metricsUnit = oncePerNode(
  (node): Unit => ({
    name: SPEGEL_METRICS_UNIT_NAME,
    command: "start",
    enable: true,
    content: metricsUnitText(node),
    filePaths: [SPEGEL_METRICS_SCRIPT_PATH],
  }),
);

/**
 * The daemon. It starts before kubelet, and kubelet never waits for it: `Type=simple` counts as started at once.
 *
 * Stopping is cut short because a restart of containerd waits for it. The sandbox leaves what the daemon needs:
 * reading containerd's root-owned content, its socket, the network, and its own state folder.
 */
function spegelUnitText(node: NodeSettings): string {
  const flags = [
    "--log-level=INFO",
    `--registry-addr=:${node.registryPort}`,
    `--router-addr=:${node.routerPort}`,
    // The listener also serves profiles, hence loopback only.
    `--metrics-addr=127.0.0.1:${node.metricsPort}`,
    "--debug-web-enabled=false",
    "--bootstrap-kind=http",
    `--http-bootstrap-url=${node.bootstrapURL}`,
    `--http-bootstrap-cert-dir=${CERTIFICATE_DIRECTORY}`,
    `--containerd-sock=${CONTAINERD_SOCKET}`,
    `--containerd-namespace=${CONTAINERD_NAMESPACE}`,
    `--containerd-content-path=${CONTAINERD_CONTENT_PATH}`,
    `--data-dir=${DATA_DIRECTORY}`,
    ...(hasConfiguration(node) ? [`--config=${CONFIGURATION_FILE}`] : []),
  ];
  const watchdog =
    node.watchdogSeconds === 0 ? [] : ["NotifyAccess=main", `WatchdogSec=${node.watchdogSeconds}`];
  return unitText([
    "[Unit]",
    "Description=spegel daemon",
    "Documentation=https://github.com/spegel-org/spegel",
    "After=containerd.service",
    "Requires=containerd.service",
    "Before=kubelet.service",
    "StartLimitIntervalSec=0",
    "[Install]",
    "WantedBy=multi-user.target",
    // Whoever stops containerd and starts it again gets the daemon back.
    "WantedBy=containerd.service",
    "[Service]",
    "Restart=always",
    "RestartSec=5",
    "TimeoutStopSec=10",
    ...watchdog,
    `MemoryHigh=${node.memoryHigh}`,
    `MemoryMax=${node.memoryMax}`,
    // One heap for all threads of the C library: 6 MiB less at the peak.
    "Environment=MALLOC_ARENA_MAX=1",
    "EnvironmentFile=-/etc/environment",
    // A core would hold the node's keys, and writing it would hold up the restart of a hung daemon.
    "LimitCORE=0",
    `StateDirectory=${DATA_DIRECTORY.slice(STATE_ROOT.length)}`,
    "StateDirectoryMode=0700",
    "UMask=0077",
    "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
    ...SANDBOX,
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    `ExecStart=${[`${SPEGEL_BINARY_PATH} registry`, ...flags].join(" \\\n  ")}`,
  ]);
}

/** Follows the daemon's life, and takes the metrics away when it ends. */
function metricsUnitText(node: NodeSettings): string {
  return unitText([
    "[Unit]",
    "Description=spegel metrics daemon",
    "Documentation=https://github.com/spegel-org/spegel",
    `After=${SPEGEL_UNIT_NAME}`,
    `BindsTo=${SPEGEL_UNIT_NAME}`,
    "StartLimitIntervalSec=0",
    "[Install]",
    `WantedBy=multi-user.target ${SPEGEL_UNIT_NAME}`,
    "[Service]",
    "Restart=always",
    "RestartSec=5",
    "TimeoutStopSec=10",
    "CapabilityBoundingSet=",
    ...SANDBOX,
    // The collector's folder may have to be made, hence no stricter.
    "ProtectSystem=full",
    "RestrictAddressFamilies=AF_UNIX AF_INET",
    `ExecStart=${SPEGEL_METRICS_SCRIPT_PATH} ${node.metricsPort} ${TEXTFILE_PATH}`,
    `ExecStopPost=/bin/rm -f ${TEXTFILE_PATH} ${TEXTFILE_PATH}.raw ${TEXTFILE_PATH}.tmp`,
  ]);
}

/** What neither unit needs. */
const SANDBOX: readonly string[] = [
  "NoNewPrivileges=yes",
  "PrivateDevices=yes",
  "ProtectHome=yes",
  "ProtectClock=yes",
  "ProtectControlGroups=yes",
  "ProtectHostname=yes",
  "ProtectKernelLogs=yes",
  "ProtectKernelModules=yes",
  "ProtectKernelTunables=yes",
  "ProtectProc=invisible",
  "RestrictNamespaces=yes",
  "RestrictRealtime=yes",
  "RestrictSUIDSGID=yes",
  "LockPersonality=yes",
  "SystemCallArchitectures=native",
  "SystemCallFilter=@system-service",
  // As an old kernel answers, so that the C library uses what an old systemd knows.
  "SystemCallErrorNumber=ENOSYS",
];

function unitText(lines: readonly string[]): string {
  return `${lines.join("\n")}\n`;
}
