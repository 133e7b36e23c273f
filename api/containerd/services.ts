// SPDX-License-Identifier: Apache-2.0
import type { Codec } from "./codec.ts";
import * as m from "./messages.ts";

/** One gRPC method, in the form that gRPC libraries take as it is. */
export interface Method<Request, Response, RequestStream extends boolean, ResponseStream extends boolean> {
  readonly path: string;
  readonly requestStream: RequestStream;
  readonly responseStream: ResponseStream;
  readonly requestSerialize: (request: Partial<Request>) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => Request;
  readonly responseSerialize: (response: Partial<Response>) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

export type UnaryMethod<Request, Response> = Method<Request, Response, false, false>;
export type ServerStreamMethod<Request, Response> = Method<Request, Response, false, true>;
export type DuplexMethod<Request, Response> = Method<Request, Response, true, true>;

function method<Q, S, A extends boolean, B extends boolean>(
  path: string,
  codecs: { readonly request: Codec<Q>; readonly response: Codec<S> },
  streams: { readonly request: A; readonly response: B },
): Method<Q, S, A, B> {
  return {
    path,
    requestStream: streams.request,
    responseStream: streams.response,
    requestSerialize: (request) => codecs.request.encode(request),
    requestDeserialize: (bytes) => codecs.request.decode(bytes),
    responseSerialize: (response) => codecs.response.encode(response),
    responseDeserialize: (bytes) => codecs.response.decode(bytes),
  };
}

function unary<Q, S>(path: string, request: Codec<Q>, response: Codec<S>): UnaryMethod<Q, S> {
  return method(path, { request, response }, { request: false, response: false });
}

function serverStream<Q, S>(path: string, request: Codec<Q>, response: Codec<S>): ServerStreamMethod<Q, S> {
  return method(path, { request, response }, { request: false, response: true });
}

const CONTENT = "/containerd.services.content.v1.Content";
export const contentService = {
  info: unary(`${CONTENT}/Info`, m.InfoRequest, m.InfoResponse),
  list: serverStream(`${CONTENT}/List`, m.ListContentRequest, m.ListContentResponse),
  listStatuses: unary(`${CONTENT}/ListStatuses`, m.ListStatusesRequest, m.ListStatusesResponse),
  update: unary(`${CONTENT}/Update`, m.UpdateRequest, m.UpdateResponse),
  write: method(
    `${CONTENT}/Write`,
    { request: m.WriteContentRequest, response: m.WriteContentResponse },
    { request: true, response: true },
  ),
  delete: unary(`${CONTENT}/Delete`, m.DeleteContentRequest, m.Empty),
} as const;

const IMAGES = "/containerd.services.images.v1.Images";
export const imagesService = {
  get: unary(`${IMAGES}/Get`, m.GetImageRequest, m.GetImageResponse),
  list: unary(`${IMAGES}/List`, m.ListImagesRequest, m.ListImagesResponse),
  create: unary(`${IMAGES}/Create`, m.CreateImageRequest, m.CreateImageResponse),
  update: unary(`${IMAGES}/Update`, m.UpdateImageRequest, m.UpdateImageResponse),
  delete: unary(`${IMAGES}/Delete`, m.DeleteImageRequest, m.Empty),
} as const;

const EVENTS = "/containerd.services.events.v1.Events";
export const eventsService = {
  publish: unary(`${EVENTS}/Publish`, m.PublishRequest, m.Empty),
  subscribe: serverStream(`${EVENTS}/Subscribe`, m.SubscribeRequest, m.Envelope),
} as const;

export const introspectionService = {
  plugins: unary(
    "/containerd.services.introspection.v1.Introspection/Plugins",
    m.PluginsRequest,
    m.PluginsResponse,
  ),
} as const;

export const versionService = {
  version: unary("/containerd.services.version.v1.Version/Version", m.Empty, m.VersionResponse),
} as const;
