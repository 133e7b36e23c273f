// SPDX-License-Identifier: Apache-2.0
import { apiServerCompliance } from "#kit/api-server";
import { buildKubeParts, startEtcd, startKubeAPIServer } from "../kit/kube-parts/index.ts";

apiServerCompliance("kube-apiserver", async () => {
  const signal = AbortSignal.timeout(900_000);
  await using parts = new AsyncDisposableStack();
  const paths = await buildKubeParts({ report: console.log, signal });
  const etcd = parts.use(await startEtcd({ path: paths.etcd, signal }));
  const server = parts.use(
    await startKubeAPIServer({ path: paths.kubeAPIServer, etcdURL: etcd.url, prefix: "registry", signal }),
  );
  const running = parts.move();
  return { ...server, [Symbol.asyncDispose]: () => running.disposeAsync() };
});
