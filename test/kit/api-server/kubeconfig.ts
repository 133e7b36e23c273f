// SPDX-License-Identifier: Apache-2.0

/** The text of a kubeconfig for one user of one server; `authority` is PEM, or empty for plain HTTP. */
export function kubeconfigOf(
  url: string,
  authority: string,
  user: { readonly token?: string; readonly tokenFile?: string },
): string {
  const cluster = {
    server: url,
    ...(authority !== "" && { "certificate-authority-data": Buffer.from(authority).toString("base64") }),
  };
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    clusters: [{ name: "test", cluster }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    users: [{ name: "test", user }],
  });
}
