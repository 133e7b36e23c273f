// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_EXTENSION_OPTIONS } from "../options.ts";
import { routeObjects } from "./route.ts";

test("the gateway passes TLS on by host name alone, to the Service in the Shoot's namespace", () => {
  const host = "spegel-foo--bar.ingress.example.org";
  const namespace = "shoot--foo--bar";
  const service = `registry-spegel-bootstrapper.${namespace}.svc.cluster.local`;
  const options = {
    ...DEFAULT_EXTENSION_OPTIONS,
    bootstrapperImage: "b",
    nodeImage: "n",
    istio: { namespace: "istio-of-the-seed", labels: { istio: "of-the-seed" } },
  };
  const objects = routeObjects({ namespace, host }, options);
  for (const { apiVersion, metadata } of objects) {
    assert.equal(apiVersion, "networking.istio.io/v1beta1", "what the network policy controller reads");
    assert.deepEqual(metadata, { name: "registry-spegel-bootstrapper", namespace });
  }
  const exportTo = ["istio-of-the-seed"];
  assert.deepEqual(Object.fromEntries(objects.map(({ kind, ...rest }) => [kind, rest["spec"]])), {
    Gateway: {
      selector: { istio: "of-the-seed" },
      servers: [
        { hosts: [host], port: { number: 443, name: "tls", protocol: "TLS" }, tls: { mode: "PASSTHROUGH" } },
      ],
    },
    VirtualService: {
      exportTo,
      hosts: [host],
      gateways: ["registry-spegel-bootstrapper"],
      tls: [
        {
          match: [{ port: 443, sniHosts: [host] }],
          route: [{ destination: { host: service, port: { number: 443 } } }],
        },
      ],
    },
    DestinationRule: {
      exportTo,
      host: service,
      trafficPolicy: {
        connectionPool: {
          tcp: { maxConnectionDuration: "86400s", tcpKeepalive: { time: "7200s", interval: "75s" } },
        },
        loadBalancer: {
          localityLbSetting: { enabled: true, failoverPriority: ["topology.kubernetes.io/zone"] },
        },
        outlierDetection: { minHealthPercent: 0 },
        tls: { mode: "DISABLE" },
      },
    },
  });
});
