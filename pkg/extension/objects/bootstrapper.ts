// SPDX-License-Identifier: Apache-2.0
import { secretReferences } from "../gardener-references.ts";
import { BOOTSTRAPPER_NAME, SHOOT_ACCESS_SECRET_NAME } from "../names.ts";
import type { ExtensionOptions } from "../options.ts";
import type { Manifest } from "./manifest.ts";

export interface BootstrapperSettings {
  readonly namespace: string;
  readonly replicas: 0 | 1;
  readonly ipFamilies: readonly string[];
  readonly serverSecretName: string;
  readonly bundleSecretName: string;
  /** Of the Shoot: changes when its authorities are rotated. */
  readonly genericKubeconfigSecretName: string;
}

export const SERVICE_PORT = 443;
const SERVER_PORT = 8443;
const HEALTH_PORT = 8081;
const METRICS_PORT = 8080;
const TLS_DIRECTORY = "/var/run/secrets/registry-spegel/tls";
const KUBECONFIG_DIRECTORY = "/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig";
/** `nonroot` of distroless images. */
const USER_ID = 65532;

const SELECTOR: Readonly<Record<string, string>> = { "app.kubernetes.io/name": BOOTSTRAPPER_NAME };
const LABELS = { ...SELECTOR, "gardener.cloud/role": "controlplane" };

/** The bootstrapper of one Shoot, without its routes. Equal settings give equal objects in equal order. */
export function bootstrapperObjects(settings: BootstrapperSettings, options: ExtensionOptions): Manifest[] {
  const metadata = { name: BOOTSTRAPPER_NAME, namespace: settings.namespace, labels: LABELS };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata, automountServiceAccountToken: false },
    deployment(settings, options),
    service(settings, options),
    {
      apiVersion: "policy/v1",
      kind: "PodDisruptionBudget",
      metadata,
      spec: {
        maxUnavailable: 1,
        selector: { matchLabels: SELECTOR },
        unhealthyPodEvictionPolicy: "AlwaysAllow",
      },
    },
    {
      apiVersion: "autoscaling.k8s.io/v1",
      kind: "VerticalPodAutoscaler",
      metadata,
      spec: {
        targetRef: { apiVersion: "apps/v1", kind: "Deployment", name: BOOTSTRAPPER_NAME },
        updatePolicy: { updateMode: "InPlaceOrRecreate" },
        resourcePolicy: {
          containerPolicies: [
            {
              containerName: "bootstrapper",
              controlledValues: "RequestsOnly",
              minAllowed: { memory: "40Mi" },
            },
          ],
        },
      },
    },
  ];
}

function deployment(settings: BootstrapperSettings, options: ExtensionOptions): Manifest {
  const references = secretReferences([
    settings.serverSecretName,
    settings.bundleSecretName,
    settings.genericKubeconfigSecretName,
    SHOOT_ACCESS_SECRET_NAME,
  ]);
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: {
      name: BOOTSTRAPPER_NAME,
      namespace: settings.namespace,
      // Replicas and spreading are the resource manager's to decide; it leaves 0 alone.
      labels: { ...LABELS, "high-availability-config.resources.gardener.cloud/type": "controller" },
      annotations: references,
    },
    spec: {
      replicas: settings.replicas,
      revisionHistoryLimit: 2,
      selector: { matchLabels: SELECTOR },
      template: {
        metadata: {
          labels: {
            ...LABELS,
            "networking.gardener.cloud/to-dns": "allowed",
            "networking.resources.gardener.cloud/to-kube-apiserver-tcp-443": "allowed",
          },
          annotations: references,
        },
        spec: podSpec(settings, options),
      },
    },
  };
}

function podSpec(settings: BootstrapperSettings, options: ExtensionOptions): object {
  const probe = (path: string, more: object): object => ({ httpGet: { path, port: "health" }, ...more });
  return {
    serviceAccountName: BOOTSTRAPPER_NAME,
    automountServiceAccountToken: false,
    priorityClassName: "gardener-system-200",
    securityContext: {
      runAsNonRoot: true,
      runAsUser: USER_ID,
      runAsGroup: USER_ID,
      fsGroup: USER_ID,
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [
      {
        name: "bootstrapper",
        image: options.bootstrapperImage,
        imagePullPolicy: "IfNotPresent",
        args: [
          `--listen-address=:${SERVER_PORT}`,
          `--health-address=:${HEALTH_PORT}`,
          `--metrics-address=:${METRICS_PORT}`,
          `--certificate-directory=${TLS_DIRECTORY}`,
          `--kubeconfig=${KUBECONFIG_DIRECTORY}/kubeconfig`,
          `--ip-families=${settings.ipFamilies.join(",")}`,
        ],
        ports: [
          { name: "server", containerPort: SERVER_PORT, protocol: "TCP" },
          { name: "health", containerPort: HEALTH_PORT, protocol: "TCP" },
          { name: "metrics", containerPort: METRICS_PORT, protocol: "TCP" },
        ],
        livenessProbe: probe("/healthz", { initialDelaySeconds: 10, periodSeconds: 10, failureThreshold: 3 }),
        readinessProbe: probe("/readyz", { periodSeconds: 5, failureThreshold: 3 }),
        resources: { requests: options.bootstrapperRequests },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        },
        volumeMounts: [
          { name: "tls", mountPath: TLS_DIRECTORY, readOnly: true },
          { name: "kubeconfig", mountPath: KUBECONFIG_DIRECTORY, readOnly: true },
        ],
      },
    ],
    volumes: [
      {
        name: "tls",
        projected: {
          defaultMode: 0o440,
          sources: [
            secretSource(settings.serverSecretName, { "tls.crt": "tls.crt", "tls.key": "tls.key" }),
            secretSource(settings.bundleSecretName, { "bundle.crt": "ca.crt" }),
          ],
        },
      },
      {
        name: "kubeconfig",
        projected: {
          defaultMode: 0o444,
          sources: [
            secretSource(settings.genericKubeconfigSecretName, { kubeconfig: "kubeconfig" }),
            secretSource(SHOOT_ACCESS_SECRET_NAME, { token: "token" }),
          ],
        },
      },
    ],
  };
}

function secretSource(name: string, items: Readonly<Record<string, string>>): object {
  const list = Object.entries(items).map(([key, path]) => ({ key, path }));
  return { secret: { name, items: list, optional: false } };
}

function service(settings: BootstrapperSettings, options: ExtensionOptions): Manifest {
  const scraped = JSON.stringify([{ port: METRICS_PORT, protocol: "TCP" }]);
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name: BOOTSTRAPPER_NAME,
      namespace: settings.namespace,
      labels: LABELS,
      annotations: {
        // istiod exports nothing by default; without it the gateway does not know the Service.
        "networking.istio.io/exportTo": options.istio.namespace,
        "networking.resources.gardener.cloud/from-all-scrape-targets-allowed-ports": scraped,
      },
    },
    spec: {
      type: "ClusterIP",
      selector: SELECTOR,
      ports: [
        // The prefix tells Istio that the stream is opaque.
        { name: "tls-server", port: SERVICE_PORT, targetPort: SERVER_PORT, protocol: "TCP" },
        { name: "http-metrics", port: METRICS_PORT, targetPort: METRICS_PORT, protocol: "TCP" },
      ],
    },
  };
}

/** Names under which the Service is reached inside the seed. */
export function serviceNames(namespace: string): string[] {
  const name = `${BOOTSTRAPPER_NAME}.${namespace}`;
  return [BOOTSTRAPPER_NAME, name, `${name}.svc`, `${name}.svc.cluster.local`];
}
