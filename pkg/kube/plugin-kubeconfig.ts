// SPDX-License-Identifier: Apache-2.0
/** The one import of @kubernetes/client-node: a named one, so that bundles leave out the rest of it. */
export { KubeConfig } from "@kubernetes/client-node";
