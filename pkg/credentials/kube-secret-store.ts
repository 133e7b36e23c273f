// SPDX-License-Identifier: Apache-2.0
import { hasCode } from "#errors";
import { type KubeClient, SECRETS, type Secret } from "#kube";
import { LABEL, MANAGED_BY, type SecretStore, type StoredSecret } from "./model.ts";

/** The secrets of one identity in one namespace of a cluster. */
export function createKubeSecretStore(
  client: KubeClient,
  options: { readonly namespace: string; readonly identity: string },
): SecretStore {
  const { namespace, identity } = options;
  const labelSelector = `${LABEL.managedBy}=${MANAGED_BY},${LABEL.identity}=${identity}`;
  return {
    async list(cancel) {
      const { items } = await client.list(SECRETS, { namespace, labelSelector }, cancel);
      return items.filter((secret) => secret.metadata.deletionTimestamp === undefined).map(storedSecret);
    },
    async create(secret, cancel) {
      const { name, labels, type } = secret;
      const data = Object.fromEntries(
        Object.entries(secret.data).map(([key, text]) => [key, toBase64(text)]),
      );
      try {
        await client.create(
          SECRETS,
          { metadata: { name, namespace, labels }, type, immutable: true, data },
          cancel,
        );
        return "created";
      } catch (error) {
        if (hasCode(error, "KUBE_ALREADY_EXISTS")) return "exists";
        throw error;
      }
    },
    async setLabels(name, labels, cancel) {
      try {
        await client.mergePatch(SECRETS, { namespace, name }, { metadata: { labels } }, cancel);
      } catch (error) {
        if (!hasCode(error, "KUBE_NOT_FOUND")) throw error;
      }
    },
    async delete(name, cancel) {
      await client.delete(SECRETS, { namespace, name }, cancel);
    },
  };
}

function storedSecret(secret: Secret): StoredSecret {
  const { name, labels, creationTimestamp } = secret.metadata;
  const createdMs = Date.parse(creationTimestamp ?? "");
  return {
    name,
    labels: labels ?? {},
    createdMs: Number.isNaN(createdMs) ? 0 : createdMs,
    data: Object.fromEntries(Object.entries(secret.data ?? {}).map(([key, text]) => [key, fromBase64(text)])),
  };
}

const toBase64 = (text: string): string => Buffer.from(text).toString("base64");
const fromBase64 = (text: string): string => Buffer.from(text, "base64").toString("utf8");
