// SPDX-License-Identifier: Apache-2.0
import { BOOTSTRAPPER_NAME } from "../names.ts";
import type { ExtensionOptions } from "../options.ts";
import { SERVICE_PORT } from "./bootstrapper.ts";
import type { Manifest } from "./manifest.ts";

/**
 * The way from a node to the bootstrapper: the seed's ingress gateway looks at the host name of the TLS hello and
 * passes the stream on untouched, so that the bootstrapper itself demands and verifies client certificates. An
 * Ingress could not do that: its controller would end TLS, and seeds no longer have one.
 */
export function routeObjects(
  settings: { readonly namespace: string; readonly host: string },
  options: ExtensionOptions,
): Manifest[] {
  const { namespace, host } = settings;
  const metadata = { name: BOOTSTRAPPER_NAME, namespace };
  const service = `${BOOTSTRAPPER_NAME}.${namespace}.svc.cluster.local`;
  const exportTo = [options.istio.namespace];
  const apiVersion = "networking.istio.io/v1beta1";
  return [
    {
      apiVersion,
      kind: "Gateway",
      metadata,
      spec: {
        // Always the gateway of the wildcard record, never a zonal one or one of an exposure class.
        selector: options.istio.labels,
        servers: [
          {
            hosts: [host],
            port: { number: 443, name: "tls", protocol: "TLS" },
            tls: { mode: "PASSTHROUGH" },
          },
        ],
      },
    },
    {
      apiVersion,
      kind: "VirtualService",
      metadata,
      spec: {
        exportTo,
        hosts: [host],
        gateways: [BOOTSTRAPPER_NAME],
        tls: [
          {
            match: [{ port: 443, sniHosts: [host] }],
            route: [{ destination: { host: service, port: { number: SERVICE_PORT } } }],
          },
        ],
      },
    },
    {
      apiVersion,
      kind: "DestinationRule",
      metadata,
      spec: {
        exportTo,
        host: service,
        trafficPolicy: {
          connectionPool: {
            tcp: { maxConnectionDuration: "86400s", tcpKeepalive: { time: "7200s", interval: "75s" } },
          },
          loadBalancer: {
            localityLbSetting: { enabled: true, failoverPriority: ["topology.kubernetes.io/zone"] },
          },
          outlierDetection: { minHealthPercent: 0 }, // without it Istio ignores localities
          tls: { mode: "DISABLE" }, // the stream is TLS already
        },
      },
    },
  ];
}
