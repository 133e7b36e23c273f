// SPDX-License-Identifier: Apache-2.0
import type { RequestOptions } from "node:https";
import type { PluginSignIn } from "./kubeconfig.ts";

/**
 * Signs in as an `exec` or `auth-provider` user of a kubeconfig, by @kubernetes/client-node.
 *
 * The library is loaded only now: importing it costs some 20 MB and 0.1 s, and programs in a cluster never need
 * it. Of it only the sign-in is used; its watch and informer have gaps that `createInformer` does not have.
 */
export const signInWithPlugin: PluginSignIn = async (text) => {
  const { KubeConfig } = await import("./plugin-kubeconfig.ts");
  const config = new KubeConfig();
  config.loadFromString(text);
  const first = await requestOptions();
  return {
    authorization: async () => authorizationOf(await requestOptions()),
    ...(isPem(first.cert) && { clientCertificatePem: first.cert.toString() }),
    ...(isPem(first.key) && { clientKeyPem: first.key.toString() }),
  };

  async function requestOptions(): Promise<RequestOptions> {
    const options: RequestOptions = { headers: {} };
    await config.applyToHTTPSOptions(options);
    return options;
  }
};

function isPem(value: unknown): value is string | Buffer {
  return typeof value === "string" || Buffer.isBuffer(value);
}

function authorizationOf(options: RequestOptions): string | undefined {
  const headers = (options.headers ?? {}) as Record<string, unknown>;
  const value = headers["Authorization"] ?? headers["authorization"];
  return typeof value === "string" ? value : undefined;
}
