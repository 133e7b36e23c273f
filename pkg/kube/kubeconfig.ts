// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { parse } from "yaml";
import { KubeError } from "./errors.ts";

/** How requests are authenticated. */
export type KubeCredential =
  | { readonly kind: "none" }
  | { readonly kind: "token"; readonly token: string }
  /** Read anew while the program runs: the kubelet replaces projected tokens. */
  | { readonly kind: "tokenFile"; readonly path: string }
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  /** A value for the Authorization header, asked for before each request. */
  | { readonly kind: "plugin"; readonly authorization: () => Promise<string | undefined> };

/** Everything needed to talk to one API server as one user. */
export interface KubeConnection {
  readonly server: URL;
  /** PEM; absent: the authorities of the system. */
  readonly authoritiesPem?: string;
  /** SNI and name to verify, instead of the host of `server`. */
  readonly serverName?: string;
  readonly skipVerify: boolean;
  readonly clientCertificatePem?: string;
  readonly clientKeyPem?: string;
  readonly credential: KubeCredential;
  /** Namespace of the context, or of the service account. */
  readonly namespace?: string;
}

/** What an `exec` or `auth-provider` user signs in with; see `signInWithPlugin`. */
export type PluginSignIn = (text: string) => Promise<{
  readonly authorization: () => Promise<string | undefined>;
  readonly clientCertificatePem?: string;
  readonly clientKeyPem?: string;
}>;

export interface LoadKubeConfigOptions {
  /** A kubeconfig file. Absent: `KUBECONFIG`, else the service account of the pod. */
  readonly path?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Without it such users are refused; programs that must stay small leave it out. */
  readonly signIn?: PluginSignIn;
  /** Where a pod finds its service account; only tests change it. */
  readonly serviceAccountDirectory?: string;
}

const SERVICE_ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount";
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Reads a kubeconfig file, or the service account that Kubernetes mounts into pods.
 * @throws KubeError KUBE_CONFIG_INVALID, naming the file and the field.
 */
export async function loadKubeConfig(options: LoadKubeConfigOptions): Promise<KubeConnection> {
  const path = options.path ?? options.env["KUBECONFIG"];
  if (path === undefined || path === "") return await loadServiceAccount(options);
  const text = await readText(path, "kubeconfig");
  return await parseKubeConfig(text, {
    directory: dirname(path),
    source: path,
    ...(options.signIn && { signIn: options.signIn }),
  });
}

/** client-go's rest.InClusterConfig. */
async function loadServiceAccount(options: LoadKubeConfigOptions): Promise<KubeConnection> {
  const host = options.env["KUBERNETES_SERVICE_HOST"];
  const port = options.env["KUBERNETES_SERVICE_PORT"];
  if (!host || !port) {
    throw invalid(
      "no kubeconfig is given, and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set",
    );
  }
  const directory = options.serviceAccountDirectory ?? SERVICE_ACCOUNT_DIRECTORY;
  const namespace = await readFile(join(directory, "namespace"), "utf8").catch(() => "");
  return {
    server: parseServer(
      `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
      "KUBERNETES_SERVICE_HOST",
    ),
    authoritiesPem: await readText(join(directory, "ca.crt"), "authority of the service account"),
    skipVerify: false,
    credential: { kind: "tokenFile", path: join(directory, "token") },
    ...(namespace.trim() !== "" && { namespace: namespace.trim() }),
  };
}

interface ParseOptions {
  /** Relative paths in the file start here. */
  readonly directory: string;
  /** Names the file in errors. */
  readonly source: string;
  readonly signIn?: PluginSignIn;
}

/** Parses a kubeconfig (clientcmd/v1 Config) and resolves its current context. @throws KubeError KUBE_CONFIG_INVALID */
export async function parseKubeConfig(text: string, options: ParseOptions): Promise<KubeConnection> {
  const root = parseYaml(text, options.source);
  const at = (problem: string): KubeError => invalid(`${options.source}: ${problem}`);
  const contextName = stringField(root, "current-context", at);
  if (contextName === undefined || contextName === "") throw at("current-context is not set");
  const context = entry(root, "contexts", "context", contextName, at);
  const clusterName = stringField(context, "cluster", at);
  if (clusterName === undefined) throw at(`context ${contextName} names no cluster`);
  const cluster = entry(root, "clusters", "cluster", clusterName, at);
  const userName = stringField(context, "user", at);
  const user = userName === undefined || userName === "" ? {} : entry(root, "users", "user", userName, at);
  const server = stringField(cluster, "server", at);
  if (server === undefined) throw at(`cluster ${clusterName} has no server`);
  if (cluster["proxy-url"] !== undefined) throw at(`cluster ${clusterName}: proxy-url is not supported`);
  const pem = (fields: Fields, name: string): Promise<string | undefined> =>
    pemField(fields, name, options.directory, at);
  const [authoritiesPem, certificatePem, keyPem] = await Promise.all([
    pem(cluster, "certificate-authority"),
    pem(user, "client-certificate"),
    pem(user, "client-key"),
  ]);
  if ((certificatePem === undefined) !== (keyPem === undefined)) {
    throw at(`user ${userName} has only one of client-certificate and client-key`);
  }
  const serverName = stringField(cluster, "tls-server-name", at);
  const namespace = stringField(context, "namespace", at);
  return {
    server: parseServer(server, `${options.source}: cluster ${clusterName}`),
    skipVerify: cluster["insecure-skip-tls-verify"] === true,
    ...(authoritiesPem !== undefined && { authoritiesPem }),
    ...(serverName !== undefined && { serverName }),
    ...(namespace !== undefined && namespace !== "" && { namespace }),
    ...(certificatePem !== undefined && { clientCertificatePem: certificatePem }),
    ...(keyPem !== undefined && { clientKeyPem: keyPem }),
    ...(await credentialOf(user, userName ?? "", text, options, at)),
  };
}

type Fields = Readonly<Record<string, unknown>>;
type Problem = (problem: string) => KubeError;

/** The order is clientcmd's: a token file wins over a token, both over a password and plugins. */
async function credentialOf(
  user: Fields,
  userName: string,
  text: string,
  options: ParseOptions,
  at: Problem,
): Promise<Pick<KubeConnection, "credential" | "clientCertificatePem" | "clientKeyPem">> {
  const tokenFile = stringField(user, "tokenFile", at);
  if (tokenFile) return { credential: { kind: "tokenFile", path: absolute(tokenFile, options.directory) } };
  const token = stringField(user, "token", at);
  if (token) return { credential: { kind: "token", token } };
  const username = stringField(user, "username", at);
  if (username)
    return { credential: { kind: "basic", username, password: stringField(user, "password", at) ?? "" } };
  if (user["exec"] === undefined && user["auth-provider"] === undefined)
    return { credential: { kind: "none" } };
  if (!options.signIn)
    throw at(`user ${userName} signs in with a plugin, which this program does not support`);
  const { authorization, ...certificate } = await options.signIn(text);
  return { credential: { kind: "plugin", authorization }, ...certificate };
}

function parseYaml(text: string, source: string): Fields {
  let root: unknown;
  try {
    root = parse(text, { maxAliasCount: 100 });
  } catch (cause) {
    // The text of a kubeconfig holds secrets, and a YAML error quotes the line it stumbled over.
    const position = /at line \d+, column \d+/.exec(String(cause))?.[0] ?? "";
    throw invalid(`${source}: not valid YAML ${position}`.trimEnd());
  }
  if (!isFields(root)) throw invalid(`${source}: not a kubeconfig`);
  return root;
}

function entry(root: Fields, list: string, field: string, name: string, at: Problem): Fields {
  const entries = root[list];
  if (entries !== undefined && entries !== null && !Array.isArray(entries)) throw at(`${list} is not a list`);
  const found = ((entries ?? []) as unknown[]).find((each) => isFields(each) && each["name"] === name);
  if (!isFields(found)) throw at(`${list} has no entry ${JSON.stringify(name)}`);
  const value = found[field];
  if (!isFields(value)) throw at(`${list} ${JSON.stringify(name)}: ${field} is missing`);
  return value;
}

function stringField(fields: Fields, name: string, at: Problem): string | undefined {
  const value = fields[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string") throw at(`${name} is not a string`);
  return value;
}

/** `<name>-data` (base64) or the content of the file `<name>`; the data wins, as in clientcmd. */
async function pemField(
  fields: Fields,
  name: string,
  directory: string,
  at: Problem,
): Promise<string | undefined> {
  const data = stringField(fields, `${name}-data`, at);
  if (data) {
    const pem = Buffer.from(data, "base64").toString("utf8");
    if (!pem.includes("-----BEGIN ")) throw at(`${name}-data is not base64 of PEM`);
    return pem;
  }
  const path = stringField(fields, name, at);
  return path ? await readText(absolute(path, directory), name) : undefined;
}

async function readText(path: string, what: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw invalid(`${what} ${path} cannot be read`, cause);
  }
  if (bytes.length > MAX_FILE_BYTES) throw invalid(`${what} ${path} is larger than ${MAX_FILE_BYTES} bytes`);
  return bytes.toString("utf8");
}

function parseServer(text: string, where: string): URL {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:"))
    throw invalid(`${where}: server is not an HTTP URL`);
  return url;
}

const absolute = (path: string, directory: string): string =>
  isAbsolute(path) ? path : join(directory, path);
const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function invalid(message: string, cause?: unknown): KubeError {
  return new KubeError({ code: "KUBE_CONFIG_INVALID", message, cause });
}
