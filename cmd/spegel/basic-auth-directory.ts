// SPDX-License-Identifier: Apache-2.0

/** Where a cluster without Gardener mounts the credentials of the registries. Spegel's fixed path. */
export const BASIC_AUTH_DIRECTORY = "/etc/secrets/basic-auth";
