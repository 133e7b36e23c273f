// SPDX-License-Identifier: Apache-2.0
import { Agent, request as sendRequest } from "node:https";

/** Any object of the API; a test says what it expects in it. */
export interface AnyObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly generation?: number;
    readonly deletionTimestamp?: string;
    readonly finalizers?: readonly string[];
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly { readonly name: string; readonly kind: string }[];
  };
  readonly [field: string]: unknown;
}

export interface RawAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** An API client that knows no kinds: it asks the server where they live. Everything it refuses is an Error. */
export interface RawClient extends AsyncDisposable {
  call(
    method: string,
    path: string,
    options?: { readonly body?: unknown; readonly contentType?: string; readonly token?: string },
  ): Promise<RawAnswer>;
  /** Server-side apply, as the owner of every field in the object. */
  apply(object: object, manager: string): Promise<AnyObject>;
  /** Undefined when it does not exist. */
  find(apiVersion: string, kind: string, name: string, namespace?: string): Promise<AnyObject | undefined>;
  list(apiVersion: string, kind: string, namespace?: string): Promise<AnyObject[]>;
  mergePatch(object: AnyObject, patch: object, subresource?: string): Promise<AnyObject>;
  /** True when there was something to delete. */
  delete(object: Pick<AnyObject, "apiVersion" | "kind" | "metadata">): Promise<boolean>;
  /** A token of a ServiceAccount, by TokenRequest; the account is made when it does not exist. */
  requestToken(account: { readonly namespace: string; readonly name: string }): Promise<string>;
}

export function createRawClient(target: {
  readonly url: string;
  readonly caCertificate: string;
  readonly token: string;
}): RawClient {
  const agent = new Agent({ keepAlive: true, ca: target.caCertificate });
  const plurals = new Map<string, Promise<{ readonly name: string; readonly namespaced: boolean }>>();

  function call(
    method: string,
    path: string,
    options: { readonly body?: unknown; readonly contentType?: string; readonly token?: string } = {},
  ): Promise<RawAnswer> {
    const text = options.body === undefined ? undefined : JSON.stringify(options.body);
    return new Promise((resolve, reject) => {
      const request = sendRequest(
        target.url + path,
        {
          method,
          agent,
          headers: {
            authorization: `Bearer ${options.token ?? target.token}`,
            "user-agent": "test",
            ...(text !== undefined && {
              "content-type": options.contentType ?? "application/json",
              "content-length": Buffer.byteLength(text),
            }),
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("error", reject);
          response.on("end", () => {
            const answered = Buffer.concat(chunks).toString("utf8");
            const isJSON = response.headers["content-type"]?.startsWith("application/json") === true;
            resolve({ status: response.statusCode ?? 0, body: isJSON ? JSON.parse(answered) : answered });
          });
        },
      );
      request.on("error", reject);
      request.end(text);
    });
  }

  async function demand(
    method: string,
    path: string,
    body?: unknown,
    contentType?: string,
  ): Promise<unknown> {
    const answered = await call(method, path, { body, ...(contentType !== undefined && { contentType }) });
    if (answered.status < 300) return answered.body;
    const { message } = answered.body as { readonly message?: string };
    throw new Error(`${method} ${path} was answered with ${answered.status}: ${message}`);
  }

  async function discover(apiVersion: string, kind: string) {
    const root = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const { resources } = (await demand("GET", root)) as {
      readonly resources: readonly {
        readonly name: string;
        readonly kind: string;
        readonly namespaced: boolean;
      }[];
    };
    const found = resources.find((each) => each.kind === kind && !each.name.includes("/"));
    if (found === undefined) throw new Error(`the API server does not serve ${apiVersion} ${kind}`);
    return found;
  }

  async function pathOf(
    apiVersion: string,
    kind: string,
    namespace?: string,
    name?: string,
  ): Promise<string> {
    const id = `${apiVersion}/${kind}`;
    let known = plurals.get(id);
    if (known === undefined) {
      known = discover(apiVersion, kind);
      plurals.set(id, known);
      known.catch(() => plurals.delete(id)); // asked again next time
    }
    const resource = await known;
    const root = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const scope = resource.namespaced && namespace !== undefined ? `/namespaces/${namespace}` : "";
    return `${root}${scope}/${resource.name}${name === undefined ? "" : `/${name}`}`;
  }

  const pathOfObject = ({
    apiVersion,
    kind,
    metadata,
  }: Pick<AnyObject, "apiVersion" | "kind" | "metadata">) =>
    pathOf(apiVersion, kind, metadata.namespace, metadata.name);

  return {
    call,
    async apply(object, manager) {
      const path = await pathOfObject(object as AnyObject);
      const query = `?fieldManager=${manager}&force=true&fieldValidation=Strict`;
      return (await demand("PATCH", path + query, object, "application/apply-patch+yaml")) as AnyObject;
    },
    async find(apiVersion, kind, name, namespace) {
      const { status, body } = await call("GET", await pathOf(apiVersion, kind, namespace, name));
      if (status === 404) return undefined;
      if (status !== 200) throw new Error(`GET ${kind} ${name} was answered with ${status}`);
      return body as AnyObject;
    },
    async list(apiVersion, kind, namespace) {
      const { items } = (await demand("GET", await pathOf(apiVersion, kind, namespace))) as {
        readonly items: readonly AnyObject[];
      };
      return items.map((item) => ({ ...item, apiVersion, kind }));
    },
    async mergePatch(object, patch, subresource) {
      const path = `${await pathOfObject(object)}${subresource === undefined ? "" : `/${subresource}`}`;
      return (await demand(
        "PATCH",
        `${path}?fieldValidation=Strict`,
        patch,
        "application/merge-patch+json",
      )) as AnyObject;
    },
    async delete(object) {
      const { status, body } = await call("DELETE", await pathOfObject(object));
      if (status === 404) return false;
      if (status < 300) return true;
      throw new Error(`DELETE ${object.kind} was answered with ${status}: ${JSON.stringify(body)}`);
    },
    async requestToken({ namespace, name }) {
      const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
      const made = await call("POST", accounts, { body: { metadata: { name } } });
      if (made.status !== 201 && made.status !== 409) throw new Error(`ServiceAccount: ${made.status}`);
      const request = {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        spec: { expirationSeconds: 3600 },
      };
      const answered = (await demand("POST", `${accounts}/${name}/token`, request)) as {
        readonly status: { readonly token: string };
      };
      return answered.status.token;
    },
    async [Symbol.asyncDispose]() {
      agent.destroy();
    },
  };
}
