// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import { type AdmissionContext, admit } from "./admission.ts";
import { applyPatch } from "./patch.ts";
import { apiVersionOf, qualifiedName, type ServedResource } from "./resources.ts";
import { ApiStatus, alreadyExists, badRequest, conflict, invalid, notFound } from "./status.ts";
import { type ApiMetadata, type ApiObject, keyOf, type Storage } from "./storage.ts";

export interface WriteTarget {
  readonly resource: ServedResource;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  readonly status?: boolean;
  readonly dryRun: boolean;
  readonly userName: string;
}

export interface Writes {
  create(target: WriteTarget, body: ApiObject): Promise<ApiObject>;
  replace(target: WriteTarget, body: ApiObject): Promise<ApiObject>;
  patch(target: WriteTarget, mediaType: string, body: unknown): Promise<ApiObject>;
  delete(target: WriteTarget, preconditions: { uid?: string; resourceVersion?: string }): Promise<ApiObject>;
}

const NAME = /^[a-z0-9]([a-z0-9.:-]*[a-z0-9])?$/;
const PATCH_ATTEMPTS = 5;

/** The write half of the API: what a generic registry does around each change. */
export function createWrites(
  storage: Storage,
  admission: AdmissionContext,
  namespaces: ServedResource,
): Writes {
  function current(target: WriteTarget): ApiObject {
    const object = storage.get(target.resource, `${target.namespace ?? ""}/${target.name}`);
    if (!object) throw notFound(qualifiedName(target.resource), target.name ?? "");
    return object;
  }

  async function create(target: WriteTarget, body: ApiObject): Promise<ApiObject> {
    const object = newObject(target, body);
    requireNamespace(target.namespace);
    const admitted = (await admit(admission, {
      ...request(target),
      operation: "CREATE",
      object,
      oldObject: null,
    })) as ApiObject;
    if (storage.get(target.resource, keyOf(admitted))) {
      throw alreadyExists(qualifiedName(target.resource), admitted.metadata.name);
    }
    return target.dryRun ? admitted : storage.put(target.resource, admitted);
  }

  /** A namespace must exist and live before something is created in it (admission plugin NamespaceLifecycle). */
  function requireNamespace(name: string | undefined): void {
    if (name === undefined) return;
    const namespace = storage.get(namespaces, `/${name}`);
    if (!namespace) throw notFound("namespaces", name);
    if (namespace.metadata.deletionTimestamp !== undefined) {
      throw new ApiStatus(
        403,
        "Forbidden",
        `unable to create new content in namespace ${name} because it is being terminated`,
      );
    }
  }

  async function update(target: WriteTarget, old: ApiObject, wanted: ApiObject): Promise<ApiObject> {
    checkIdentity(target, old, wanted);
    const merged = updatedObject(target, old, wanted);
    const admitted = (await admit(admission, {
      ...request(target),
      operation: "UPDATE",
      object: merged,
      oldObject: old,
    })) as ApiObject;
    checkImmutable(target.resource, old, admitted);
    if (current(target).metadata.resourceVersion !== old.metadata.resourceVersion) throw stale(target);
    if (target.dryRun || isDeepStrictEqual(admitted, old)) return admitted; // a no-op keeps the version
    const next = withGeneration(target, old, admitted);
    const { deletionTimestamp, finalizers = [] } = next.metadata;
    const isLast = deletionTimestamp !== undefined && finalizers.length === 0;
    return isLast ? storage.remove(target.resource, next) : storage.put(target.resource, next);
  }

  async function replace(target: WriteTarget, body: ApiObject): Promise<ApiObject> {
    const old = current(target);
    const version = body.metadata?.resourceVersion;
    if ((version === undefined || version === "") && target.resource.group.endsWith(".gardener.cloud")) {
      throw invalid(
        target.resource.kind,
        target.name ?? "",
        "metadata.resourceVersion: must be specified for an update",
      );
    }
    if (version !== undefined && version !== "" && version !== old.metadata.resourceVersion)
      throw stale(target);
    return update(target, old, body);
  }

  async function patch(target: WriteTarget, mediaType: string, body: unknown): Promise<ApiObject> {
    for (let attempt = 1; ; attempt++) {
      const old = current(target);
      const wanted = applyPatch(old, mediaType, body);
      const locked = wanted.metadata?.resourceVersion !== old.metadata.resourceVersion;
      if (locked) throw stale(target);
      try {
        return await update(target, old, wanted);
      } catch (error) {
        const raced = error instanceof ApiStatus && error.reason === "Conflict";
        if (!raced || attempt === PATCH_ATTEMPTS) throw error;
      }
    }
  }

  async function remove(
    target: WriteTarget,
    preconditions: { uid?: string; resourceVersion?: string },
  ): Promise<ApiObject> {
    const old = current(target);
    for (const field of ["uid", "resourceVersion"] as const) {
      const wanted = preconditions[field];
      if (wanted !== undefined && wanted !== old.metadata[field]) {
        throw conflict(
          qualifiedName(target.resource),
          target.name ?? "",
          `Precondition failed: ${field} differs`,
        );
      }
    }
    await admit(admission, { ...request(target), operation: "DELETE", object: null, oldObject: old });
    if (target.dryRun) return old;
    if ((old.metadata.finalizers ?? []).length === 0) return storage.remove(target.resource, old);
    if (old.metadata.deletionTimestamp !== undefined) return old;
    const marked = {
      ...old.metadata,
      deletionTimestamp: storage.timestamp(),
      deletionGracePeriodSeconds: 0,
      ...(target.resource.generation === true && { generation: (old.metadata.generation ?? 0) + 1 }),
    };
    return storage.put(target.resource, { ...old, metadata: marked });
  }

  return { create, replace, patch, delete: remove };
}

const request = (target: WriteTarget) => ({
  resource: target.resource,
  subresource: target.status === true ? "status" : undefined,
  userName: target.userName,
  dryRun: target.dryRun,
});

const stale = (target: WriteTarget): ApiStatus =>
  conflict(
    qualifiedName(target.resource),
    target.name ?? "",
    "the object has been modified; please apply your changes to the latest version and try again",
  );

function newObject(target: WriteTarget, body: ApiObject): ApiObject {
  checkForm(target, body);
  const generated = body.metadata.generateName;
  const name = body.metadata.name ?? (generated === undefined ? undefined : `${generated}${randomSuffix()}`);
  if (name === undefined || !NAME.test(name) || name.length > 253) {
    throw invalid(
      target.resource.kind,
      name ?? "",
      "metadata.name: Invalid value: must be a lowercase RFC 1123 subdomain",
    );
  }
  if (body.metadata.resourceVersion)
    throw badRequest("resourceVersion should not be set on objects to be created");
  const {
    uid: _uid,
    resourceVersion: _version,
    generation: _generation,
    creationTimestamp: _created,
    deletionTimestamp: _deleted,
    ...metadata
  } = body.metadata;
  const object: ApiObject = { ...body, metadata: { ...metadata, name } as ApiMetadata };
  if (target.namespace !== undefined) object.metadata.namespace = target.namespace;
  if (target.resource.status === true) delete object["status"];
  return object;
}

function randomSuffix(): string {
  return Math.random().toString(36).slice(2, 7).padEnd(5, "x");
}

function checkForm(target: WriteTarget, body: ApiObject): void {
  if (typeof body?.metadata !== "object" || body.metadata === null)
    throw badRequest("the object has no metadata");
  if (body.kind !== undefined && body.kind !== target.resource.kind) {
    throw badRequest(
      `${body.kind} in version "${body.apiVersion}" cannot be handled as a ${target.resource.kind}`,
    );
  }
  if (body.apiVersion !== undefined && body.apiVersion !== apiVersionOf(target.resource)) {
    throw badRequest(
      `the API version in the data (${body.apiVersion}) does not match the expected API version`,
    );
  }
  if (body.metadata.namespace !== undefined && body.metadata.namespace !== target.namespace) {
    throw badRequest("the namespace of the provided object does not match the namespace sent on the request");
  }
}

function checkIdentity(target: WriteTarget, old: ApiObject, wanted: ApiObject): void {
  checkForm(target, wanted);
  if (wanted.metadata.name !== old.metadata.name) {
    throw badRequest("the name of the object does not match the name on the URL");
  }
  if (wanted.metadata.uid !== undefined && wanted.metadata.uid !== old.metadata.uid) {
    throw conflict(
      qualifiedName(target.resource),
      old.metadata.name,
      "Precondition failed: UID in precondition differs",
    );
  }
}

/** The part of `wanted` that this request may change, over `old`. */
function updatedObject(target: WriteTarget, old: ApiObject, wanted: ApiObject): ApiObject {
  if (target.status === true) return { ...old, ...("status" in wanted && { status: wanted["status"] }) };
  const fixed = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
  ] as const;
  const metadata: ApiMetadata = { ...wanted.metadata };
  for (const field of [...fixed, "resourceVersion"] as const) {
    if (old.metadata[field] === undefined) delete metadata[field];
    else (metadata as Record<string, unknown>)[field] = old.metadata[field];
  }
  if (target.namespace !== undefined) metadata.namespace = target.namespace;
  const object: ApiObject = { ...wanted, apiVersion: old.apiVersion, kind: old.kind, metadata };
  if (target.resource.status === true) {
    if ("status" in old) object["status"] = old["status"];
    else delete object["status"];
  }
  return object;
}

function withGeneration(target: WriteTarget, old: ApiObject, next: ApiObject): ApiObject {
  if (target.resource.generation !== true || target.status === true) return next;
  const content = ({ metadata: _metadata, status, ...rest }: ApiObject): unknown =>
    target.resource.status === true ? rest : { ...rest, status };
  if (isDeepStrictEqual(content(old), content(next))) return next;
  return { ...next, metadata: { ...next.metadata, generation: (old.metadata.generation ?? 0) + 1 } };
}

function checkImmutable(resource: ServedResource, old: ApiObject, next: ApiObject): void {
  if (resource.kind !== "Secret" && resource.kind !== "ConfigMap") return;
  if (old["immutable"] !== true) return;
  for (const field of ["data", "stringData", "binaryData", "immutable"]) {
    if (!isDeepStrictEqual(old[field], next[field])) {
      throw invalid(
        resource.kind,
        old.metadata.name,
        `${field}: Forbidden: field is immutable when \`immutable\` is set`,
      );
    }
  }
}
