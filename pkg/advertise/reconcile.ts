// SPDX-License-Identifier: Apache-2.0
import type { ContentStore } from "#store";
import type { AnnouncedKeys } from "./announced-keys.ts";
import type { Filters } from "./ports.ts";
import { type SelectedKeys, selectKeys } from "./select-keys.ts";

/**
 * Makes the swarm know what this node holds: list, filter, diff, advertise, withdraw.
 *
 * Level-based: it needs no event and repairs whatever was missed. What succeeded before a failure stays done.
 *
 * @throws what the store or the router throws; the next round starts from the truth again
 */
export async function reconcile(
  deps: { readonly store: ContentStore; readonly filters: Filters; readonly announced: AnnouncedKeys },
  options: { readonly signal: AbortSignal },
): Promise<SelectedKeys & { readonly added: number; readonly removed: number }> {
  const { store, filters, announced } = deps;
  announced.beginRound();
  const inventory = await store.inventory(options);
  const selected = selectKeys(inventory, filters);
  const { added, removed } = announced.diff(selected.keys);
  await announced.advertise(added, options);
  await announced.withdraw(removed, options);
  return { ...selected, added: added.length, removed: removed.length };
}
