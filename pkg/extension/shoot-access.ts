// SPDX-License-Identifier: Apache-2.0
import { type KubeClient, SECRETS } from "#kube";
import { stillLeaving } from "./errors.ts";
import { BOOTSTRAPPER_NAME, SHOOT_ACCESS_SECRET_NAME } from "./names.ts";

const PREFIX = "serviceaccount.resources.gardener.cloud";
const LABELS = {
  "resources.gardener.cloud/purpose": "token-requestor",
  "resources.gardener.cloud/class": "shoot",
};
const ANNOTATIONS = { [`${PREFIX}/name`]: BOOTSTRAPPER_NAME, [`${PREFIX}/namespace`]: "kube-system" };

/**
 * The secret into which the Shoot's token requestor writes a token for the bootstrapper. Its data and the time of
 * renewal belong to the requestor and are never written here.
 * @throws ExtensionError EXTENSION_NOT_DELETED when a former one is still on its way out
 */
export async function ensureShootAccess(
  client: KubeClient,
  namespace: string,
  cancel: { readonly signal: AbortSignal },
): Promise<void> {
  const metadata = { name: SHOOT_ACCESS_SECRET_NAME, namespace, labels: LABELS, annotations: ANNOTATIONS };
  const present = await client.find(SECRETS, metadata, cancel);
  if (present?.metadata.deletionTimestamp) throw stillLeaving(`Secret ${SHOOT_ACCESS_SECRET_NAME}`);
  if (present === undefined) {
    await client.create(SECRETS, { metadata, type: "Opaque" }, cancel);
    return;
  }
  const { labels = {}, annotations = {} } = present.metadata;
  const isAsWanted =
    Object.entries(LABELS).every(([key, value]) => labels[key] === value) &&
    Object.entries(ANNOTATIONS).every(([key, value]) => annotations[key] === value);
  if (!isAsWanted) {
    await client.mergePatch(
      SECRETS,
      metadata,
      { metadata: { labels: LABELS, annotations: ANNOTATIONS } },
      cancel,
    );
  }
}
