// SPDX-License-Identifier: Apache-2.0
/** The real etcd and kube-apiserver, compiled from Go modules, on loopback and in temporary folders. */
export { buildKubeParts, type KubeParts } from "./build.ts";
export { type Etcd, startEtcd } from "./etcd.ts";
export { findFreePorts } from "./free-ports.ts";
export { type APIServerFront, type FrontRequest, openFront, type Passage } from "./front.ts";
export { type KubeAPIServer, startKubeAPIServer } from "./kube-api-server.ts";
export { type AnyObject, createRawClient, type RawAnswer, type RawClient } from "./raw-client.ts";
