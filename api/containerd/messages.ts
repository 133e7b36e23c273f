// SPDX-License-Identifier: Apache-2.0
// One table per message of the .proto files in this folder; a test holds them against each other.
import {
  boolean,
  bytes,
  integer,
  type MessageOf,
  many,
  message,
  one,
  string,
  stringMap,
  strings,
} from "./codec.ts";

export const Empty = message<Record<never, never>>({});

export const Descriptor = message<{ mediaType: string; digest: string; size: number }>({
  mediaType: string(1),
  digest: string(2),
  size: integer(3),
});

export const Any = message<{ typeUrl: string; value: Uint8Array }>({ typeUrl: string(1), value: bytes(2) });

export const Envelope = message<{
  namespace: string;
  topic: string;
  event: MessageOf<typeof Any> | undefined;
}>({
  namespace: string(2),
  topic: string(3),
  event: one(4, Any),
});
export type Envelope = MessageOf<typeof Envelope>;

export const Info = message<{ digest: string; size: number; labels: ReadonlyMap<string, string> }>({
  digest: string(1),
  size: integer(2),
  labels: stringMap(5),
});
/** What containerd knows about one content. `size` in bytes. */
export type Info = MessageOf<typeof Info>;

export const InfoRequest = message<{ digest: string }>({ digest: string(1) });
export const InfoResponse = message<{ info: Info | undefined }>({ info: one(1, Info) });
export const ListContentRequest = message<{ filters: readonly string[] }>({ filters: strings(1) });
export const ListContentResponse = message<{ info: readonly Info[] }>({ info: many(1, Info) });

export const Status = message<{ ref: string; offset: number; total: number; expected: string }>({
  ref: string(3),
  offset: integer(4),
  total: integer(5),
  expected: string(6),
});
/** One ingest: content that is still being written. `offset` and `total` in bytes. */
export type Status = MessageOf<typeof Status>;

export const ListStatusesRequest = message<{ filters: readonly string[] }>({ filters: strings(1) });
export const ListStatusesResponse = message<{ statuses: readonly Status[] }>({ statuses: many(1, Status) });

/** `action` of a write. */
export const WRITE_ACTION = { STAT: 0, WRITE: 1, COMMIT: 2 } as const;
export const WriteContentRequest = message<{
  action: number;
  ref: string;
  total: number;
  expected: string;
  offset: number;
  data: Uint8Array;
  labels: ReadonlyMap<string, string>;
}>({
  action: integer(1),
  ref: string(2),
  total: integer(3),
  expected: string(4),
  offset: integer(5),
  data: bytes(6),
  labels: stringMap(7),
});
export const WriteContentResponse = message<{
  action: number;
  offset: number;
  total: number;
  digest: string;
}>({
  action: integer(1),
  offset: integer(4),
  total: integer(5),
  digest: string(6),
});
export const DeleteContentRequest = message<{ digest: string }>({ digest: string(1) });

export const UpdateRequest = message<{ info: Info | undefined }>({ info: one(1, Info) });
export const UpdateResponse = message<{ info: Info | undefined }>({ info: one(1, Info) });

export const Image = message<{ name: string; target: MessageOf<typeof Descriptor> | undefined }>({
  name: string(1),
  target: one(3, Descriptor),
});
export type Image = MessageOf<typeof Image>;

export const GetImageRequest = message<{ name: string }>({ name: string(1) });
export const GetImageResponse = message<{ image: Image | undefined }>({ image: one(1, Image) });
export const ListImagesRequest = message<{ filters: readonly string[] }>({ filters: strings(1) });
export const ListImagesResponse = message<{ images: readonly Image[] }>({ images: many(1, Image) });
export const CreateImageRequest = message<{ image: Image | undefined }>({ image: one(1, Image) });
export const CreateImageResponse = message<{ image: Image | undefined }>({ image: one(1, Image) });
export const UpdateImageRequest = message<{ image: Image | undefined }>({ image: one(1, Image) });
export const UpdateImageResponse = message<{ image: Image | undefined }>({ image: one(1, Image) });
export const DeleteImageRequest = message<{ name: string; sync: boolean }>({
  name: string(1),
  sync: boolean(2),
});

export const PublishRequest = message<{ topic: string; event: MessageOf<typeof Any> | undefined }>({
  topic: string(1),
  event: one(2, Any),
});
export const SubscribeRequest = message<{ filters: readonly string[] }>({ filters: strings(1) });
export const ContentCreate = message<{ digest: string; size: number }>({
  digest: string(1),
  size: integer(2),
});
export const ContentDelete = message<{ digest: string }>({ digest: string(1) });

export const Plugin = message<{ type: string; id: string; exports: ReadonlyMap<string, string> }>({
  type: string(1),
  id: string(2),
  exports: stringMap(5),
});
export const PluginsRequest = message<{ filters: readonly string[] }>({ filters: strings(1) });
export const PluginsResponse = message<{ plugins: readonly MessageOf<typeof Plugin>[] }>({
  plugins: many(1, Plugin),
});

export const VersionResponse = message<{ version: string; revision: string }>({
  version: string(1),
  revision: string(2),
});
