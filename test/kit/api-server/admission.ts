// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { request as httpsRequest } from "node:https";
import { isDeepStrictEqual } from "node:util";
import { jsonPatch } from "./patch.ts";
import type { ServedResource } from "./resources.ts";
import { type LabelSelector, matchesLabelSelector } from "./selectors.ts";
import { ApiStatus, internal } from "./status.ts";
import type { ApiObject } from "./storage.ts";

export interface AdmissionRequest {
  readonly operation: "CREATE" | "UPDATE" | "DELETE";
  readonly resource: ServedResource;
  readonly subresource?: string | undefined;
  readonly object: ApiObject | null;
  readonly oldObject: ApiObject | null;
  readonly userName: string;
  readonly dryRun: boolean;
}

interface Webhook {
  readonly name: string;
  readonly clientConfig: {
    readonly url?: string;
    readonly service?: { namespace: string; name: string; path?: string; port?: number };
    readonly caBundle?: string;
  };
  readonly rules?: readonly {
    operations: readonly string[];
    apiGroups: readonly string[];
    apiVersions: readonly string[];
    resources: readonly string[];
  }[];
  readonly namespaceSelector?: LabelSelector;
  readonly objectSelector?: LabelSelector;
  readonly failurePolicy?: "Fail" | "Ignore";
  readonly timeoutSeconds?: number;
  readonly reinvocationPolicy?: "Never" | "IfNeeded";
}

/** What the admission chain needs of the server around it. */
export interface AdmissionContext {
  /** Configurations of one kind, sorted by name. */
  configurations(kind: "Mutating" | "Validating"): readonly ApiObject[];
  namespaceLabels(name: string): Readonly<Record<string, string>>;
  /** `host:port` of a Service; undefined when nobody stands for it. */
  serviceAddress(namespace: string, name: string): string | undefined;
}

/** Calls the mutating and then the validating webhooks that match. @throws ApiStatus when one denies or fails. */
export async function admit(context: AdmissionContext, request: AdmissionRequest): Promise<ApiObject | null> {
  const object = await mutate(context, request);
  for (const webhook of matching(context, "Validating", request)) {
    await call(context, webhook, { ...request, object });
  }
  return object;
}

/** Each webhook once, and those with IfNeeded again when a later one changed the object (KEP-1028 semantics). */
async function mutate(context: AdmissionContext, request: AdmissionRequest): Promise<ApiObject | null> {
  let object = request.object;
  const webhooks = matching(context, "Mutating", request);
  const changedBy: number[] = [];
  for (const [index, webhook] of webhooks.entries()) {
    const next = await call(context, webhook, { ...request, object });
    if (!isDeepStrictEqual(next, object)) changedBy.push(index);
    object = next;
  }
  const lastChange = changedBy.at(-1) ?? -1;
  for (const [index, webhook] of webhooks.entries()) {
    if (webhook.reinvocationPolicy === "IfNeeded" && index < lastChange) {
      object = await call(context, webhook, { ...request, object });
    }
  }
  return object;
}

function matching(
  context: AdmissionContext,
  kind: "Mutating" | "Validating",
  request: AdmissionRequest,
): Webhook[] {
  const subject = request.object ?? request.oldObject;
  if (subject === null || request.resource.group === "admissionregistration.k8s.io") return [];
  const namespaceName =
    request.resource.kind === "Namespace" ? subject.metadata.name : subject.metadata.namespace;
  const resource =
    request.subresource === undefined
      ? request.resource.plural
      : `${request.resource.plural}/${request.subresource}`;
  return context
    .configurations(kind)
    .flatMap((configuration) => (configuration["webhooks"] ?? []) as Webhook[])
    .filter(
      (webhook) =>
        (webhook.rules ?? []).some(
          (rule) =>
            has(rule.operations, request.operation) &&
            has(rule.apiGroups, request.resource.group) &&
            has(rule.apiVersions, request.resource.version) &&
            (has(rule.resources, resource) || rule.resources.includes("*/*")),
        ) &&
        (namespaceName === undefined ||
          matchesLabelSelector(webhook.namespaceSelector, context.namespaceLabels(namespaceName))) &&
        matchesLabelSelector(webhook.objectSelector, subject.metadata.labels),
    );
}

const has = (list: readonly string[], value: string): boolean =>
  list.includes(value) || (list.includes("*") && !value.includes("/"));

async function call(
  context: AdmissionContext,
  webhook: Webhook,
  request: AdmissionRequest,
): Promise<ApiObject | null> {
  const uid = randomUUID();
  let response: AdmissionResponse;
  try {
    response = readResponse(await post(context, webhook, reviewOf(uid, request)), uid);
  } catch (error) {
    if (webhook.failurePolicy === "Ignore") return request.object;
    throw internal(
      `failed calling webhook "${webhook.name}": failed to call webhook: ${(error as Error).message}`,
    );
  }
  if (!response.allowed) {
    const why = response.status?.message ?? response.status?.reason;
    const denial = `admission webhook "${webhook.name}" denied the request${why === undefined ? " without explanation" : `: ${why}`}`;
    throw new ApiStatus(response.status?.code ?? 403, response.status?.reason ?? "Forbidden", denial);
  }
  if (response.patch === undefined || request.object === null) return request.object;
  if (response.patchType !== "JSONPatch")
    throw internal(`webhook "${webhook.name}" answered with an unknown patch type`);
  return jsonPatch(request.object, JSON.parse(Buffer.from(response.patch, "base64").toString("utf8")));
}

interface AdmissionResponse {
  readonly uid?: string;
  readonly allowed?: boolean;
  readonly patch?: string;
  readonly patchType?: string;
  readonly status?: { code?: number; message?: string; reason?: string };
}

function reviewOf(uid: string, request: AdmissionRequest): object {
  const { group, version, plural, kind } = request.resource;
  const subject = (request.object ?? request.oldObject) as ApiObject;
  return {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: {
      uid,
      kind: { group, version, kind },
      resource: { group, version, resource: plural },
      ...(request.subresource !== undefined && { subResource: request.subresource }),
      name: subject.metadata.name,
      ...(subject.metadata.namespace !== undefined && { namespace: subject.metadata.namespace }),
      operation: request.operation,
      userInfo: { username: request.userName, groups: ["system:authenticated"] },
      object: request.object,
      oldObject: request.oldObject,
      dryRun: request.dryRun,
      options: null,
    },
  };
}

function readResponse(body: unknown, uid: string): AdmissionResponse {
  const review = body as { kind?: string; response?: AdmissionResponse } | null;
  if (review?.kind !== "AdmissionReview" || !review.response)
    throw new Error("the answer is not an AdmissionReview");
  if (review.response.uid !== uid) throw new Error("the answer is for another request");
  return review.response;
}

function post(context: AdmissionContext, webhook: Webhook, review: object): Promise<unknown> {
  const target = targetOf(context, webhook);
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      target.url,
      {
        method: "POST",
        ca: Buffer.from(webhook.clientConfig.caBundle ?? "", "base64").toString("utf8"),
        headers: { "content-type": "application/json" },
        signal: AbortSignal.timeout((webhook.timeoutSeconds ?? 10) * 1000),
        agent: false,
        ...(target.servername !== undefined && { servername: target.servername }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          try {
            if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
            resolve(JSON.parse(Buffer.concat(chunks).toString("utf8")));
          } catch (error) {
            reject(error);
          }
        });
      },
    );
    request.on("error", reject);
    request.end(JSON.stringify(review));
  });
}

function targetOf(context: AdmissionContext, webhook: Webhook): { url: string; servername?: string } {
  const { url, service } = webhook.clientConfig;
  if (url !== undefined) return { url };
  if (!service) throw new Error("neither url nor service");
  const address = context.serviceAddress(service.namespace, service.name);
  if (address === undefined) throw new Error(`no endpoints available for service "${service.name}"`);
  return {
    url: `https://${address}${service.path ?? "/"}`,
    servername: `${service.name}.${service.namespace}.svc`,
  };
}
