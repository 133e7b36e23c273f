// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import { type Envelope, eventsService } from "#api/containerd";
import { sleep } from "#async";
import { type ContainerdClient, unavailable } from "./client.ts";

const PING_INTERVAL_MS = 20;
const MAX_PINGS = 250;

export interface SubscriptionHandlers {
  /** The stream is live: what happens from now on is seen. */
  readonly onSubscribed: () => void;
  readonly onEvent: (event: Envelope) => void;
}

/**
 * Follows image and content events of these namespaces until the stream breaks or the signal aborts.
 *
 * containerd sends nothing when a subscription becomes live, so an own event is published until it comes back.
 *
 * @throws StoreError STORE_UNAVAILABLE when the stream breaks, and the signal's reason
 */
export async function followEvents(
  client: ContainerdClient,
  namespaces: readonly string[],
  handlers: SubscriptionHandlers,
  options: { readonly signal: AbortSignal },
): Promise<never> {
  const pingTopic = `/spegel/subscribed/${randomBytes(8).toString("hex")}`;
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);

  const filters = [
    `topic=="${pingTopic}"`,
    ...namespaces.flatMap((namespace) => [
      `topic~="^/images/",namespace=="${namespace}"`,
      `topic~="^/content/",namespace=="${namespace}"`,
    ]),
  ];
  const events = client.stream(eventsService.subscribe, { filters }, { signal });
  let live = false;
  const pinging = ping().catch((error: unknown) => stop.abort(error));

  async function ping(): Promise<void> {
    for (let count = 0; count < MAX_PINGS && !live; count++) {
      await client.call(
        eventsService.publish,
        { topic: pingTopic, event: { typeUrl: "spegel.Ping", value: Buffer.alloc(0) } },
        { signal, ...(namespaces[0] === undefined ? {} : { namespace: namespaces[0] }) },
      );
      if (!live) await sleep(PING_INTERVAL_MS, { signal });
    }
    if (!live) throw unavailable("containerd does not send events");
  }

  try {
    for await (const event of events) {
      if (event.topic === pingTopic) {
        if (!live) handlers.onSubscribed();
        live = true;
      } else if (namespaces.includes(event.namespace)) {
        handlers.onEvent(event);
      }
    }
    throw unavailable("containerd ended the event stream");
  } finally {
    stop.abort();
    await pinging;
  }
}
