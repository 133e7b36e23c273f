// SPDX-License-Identifier: Apache-2.0
/** Compiles etcd and kube-apiserver ahead of the tests, so that no test waits for it. */
import { buildKubeParts } from "./build.ts";

await buildKubeParts({
  report: (line) => console.log(`  ${line}`),
  signal: AbortSignal.timeout(1_800_000),
});
