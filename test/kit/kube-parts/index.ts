// SPDX-License-Identifier: Apache-2.0
/** The real etcd and kube-apiserver, compiled from Go modules, on loopback and in temporary folders. */
export { buildKubeParts } from "./build.ts";
export { startEtcd } from "./etcd.ts";
export { type APIServerFront, type FrontRequest, openFront, type Passage } from "./front.ts";
export { type KubeAPIServer, startKubeAPIServer } from "./kube-api-server.ts";
export { type AnyObject, createRawClient, type RawClient } from "./raw-client.ts";
