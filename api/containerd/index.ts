// SPDX-License-Identifier: Apache-2.0
/**
 * containerd's gRPC API v1, the part that a mirror needs: declared in the .proto files, spoken with `codec.ts`.
 *
 * The same bytes on containerd 1.6, 1.7 and 2.x. A hand-written codec stands in for a protocol buffer library, which
 * would be the larger part of what the daemon loads for this.
 */
export { type Codec, type MessageOf } from "./codec.ts";
export {
  ContentCreate,
  ContentDelete,
  Envelope,
  Image,
  Info,
  Status,
  WRITE_ACTION,
} from "./messages.ts";
export {
  contentService,
  type DuplexMethod,
  eventsService,
  imagesService,
  introspectionService,
  type Method,
  type ServerStreamMethod,
  type UnaryMethod,
  versionService,
} from "./services.ts";
