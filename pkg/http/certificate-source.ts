// SPDX-License-Identifier: Apache-2.0
import { createPrivateKey, X509Certificate } from "node:crypto";
import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { createTaskGroup, directoryChanges, readSmallFile } from "#async";
import { errorMessage } from "#errors";
import type { Logger } from "#log";
import { HTTPError } from "./errors.ts";

/** What a TLS server shows, and whom it trusts. All PEM. */
export interface ServerCertificate {
  /** The leaf first, then its chain. */
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Authorities of client certificates; with them a client without a valid certificate gets no connection. */
  readonly clientAuthoritiesPem?: string;
}

/** A server certificate that may be replaced while a server uses it. */
export interface CertificateSource {
  readonly current: ServerCertificate;
  /** Calls the listener after every replacement. */
  subscribe(listener: (certificate: ServerCertificate) => void): Disposable;
}

export interface MutableCertificateSource extends CertificateSource {
  /** @throws HTTPError HTTP_CERTIFICATE_INVALID; the current certificate then stays. */
  replace(certificate: ServerCertificate): void;
}

/**
 * Holds a certificate that the program itself renews.
 *
 * @throws HTTPError HTTP_CERTIFICATE_INVALID
 */
export function createCertificateSource(initial: ServerCertificate): MutableCertificateSource {
  validate(initial);
  let current = initial;
  const listeners = new Set<(certificate: ServerCertificate) => void>();
  return {
    get current() {
      return current;
    },
    subscribe(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    replace(certificate) {
      validate(certificate);
      current = certificate;
      for (const listener of [...listeners]) listener(certificate);
    },
  };
}

export interface CertificateDirectoryOptions {
  readonly directory: string;
  /** Read `ca.crt` as well and demand client certificates; default false. */
  readonly requireClients?: boolean;
  /** Compare the files this often, besides the notifications of the file system; default 60 s. */
  readonly pollMs?: number;
  readonly signal: AbortSignal;
}

const CERTIFICATE_FILE = "tls.crt";
const KEY_FILE = "tls.key";
const AUTHORITIES_FILE = "ca.crt";
const MAX_FILE_BYTES = 1024 * 1024;
const DEFAULT_POLL_MS = 60_000;

/**
 * Reads `tls.crt`, `tls.key` and, if clients must show one too, `ca.crt` from a folder, and follows their changes.
 * Files that do not fit together, as between two writes, leave the last good ones in place.
 *
 * @throws HTTPError HTTP_CERTIFICATE_INVALID when they are not good at the start
 */
export async function openCertificateDirectory(
  deps: { readonly logger: Logger },
  options: CertificateDirectoryOptions,
): Promise<CertificateSource & AsyncDisposable> {
  const { logger } = deps;
  const source = createCertificateSource(await readCertificate(options));
  let lastProblem = "";

  async function reload(): Promise<void> {
    try {
      const next = await readCertificate(options);
      lastProblem = "";
      if (isSame(next, source.current)) return;
      source.replace(next);
      logger.info("server certificate replaced", { ...describe(next) });
    } catch (error) {
      const problem = errorMessage(error);
      if (problem !== lastProblem)
        logger.warn("server certificate not replaced, the last one stays", { err: error });
      lastProblem = problem;
    }
  }

  const tasks = createTaskGroup({ signal: options.signal });
  tasks.run("certificate reload", async (signal) => {
    const changes = directoryChanges(options.directory, {
      signal,
      pollMs: options.pollMs ?? DEFAULT_POLL_MS,
    });
    for await (const _ of changes) await reload();
  });
  logger.info("server certificate loaded", { ...describe(source.current) });
  return {
    get current() {
      return source.current;
    },
    subscribe: (listener) => source.subscribe(listener),
    [Symbol.asyncDispose]: () => tasks[Symbol.asyncDispose](),
  };
}

async function readCertificate(options: CertificateDirectoryOptions): Promise<ServerCertificate> {
  const directory = await oneGeneration(options.directory);
  const read = (file: string): Promise<string> => readBounded(join(directory, file));
  const certificate = { certificatePem: await read(CERTIFICATE_FILE), keyPem: await read(KEY_FILE) };
  if (options.requireClients !== true) return certificate;
  return { ...certificate, clientAuthoritiesPem: await read(AUTHORITIES_FILE) };
}

/** Kubernetes swaps the link `..data` to replace all files of a volume at once; following it once keeps them together. */
async function oneGeneration(directory: string): Promise<string> {
  try {
    return await realpath(join(directory, "..data"));
  } catch {
    return directory;
  }
}

async function readBounded(path: string): Promise<string> {
  try {
    return await readSmallFile(path, { maxBytes: MAX_FILE_BYTES });
  } catch (error) {
    throw invalid(`${path} cannot be read`, error);
  }
}

/** OpenSSL takes an empty list of authorities for "trust nobody" without a word, hence the look at each. */
function validate(certificate: ServerCertificate): void {
  const { certificatePem, keyPem, clientAuthoritiesPem } = certificate;
  const leaf = attempt("the certificate is not PEM", () => new X509Certificate(certificatePem));
  const key = attempt("the key is not an unencrypted PEM key", () => createPrivateKey(keyPem));
  if (!leaf.checkPrivateKey(key)) throw invalid("certificate and key do not belong together");
  if (clientAuthoritiesPem !== undefined) {
    attempt(
      "the client authorities are not PEM certificates",
      () => new X509Certificate(clientAuthoritiesPem),
    );
  }
  attempt("certificate, key and authorities make no TLS context", () =>
    createSecureContext({ cert: certificatePem, key: keyPem, ca: clientAuthoritiesPem }),
  );
}

function attempt<T>(message: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    // The cause may quote what it could not read; a key must not get into a log.
    throw invalid(
      message,
      error instanceof Error && "code" in error ? new Error(String(error.code)) : undefined,
    );
  }
}

function invalid(message: string, cause?: unknown): HTTPError {
  return new HTTPError({ code: "HTTP_CERTIFICATE_INVALID", message, cause });
}

function isSame(left: ServerCertificate, right: ServerCertificate): boolean {
  return (
    left.certificatePem === right.certificatePem &&
    left.keyPem === right.keyPem &&
    left.clientAuthoritiesPem === right.clientAuthoritiesPem
  );
}

function describe(certificate: ServerCertificate): {
  readonly serialNumber: string;
  readonly notAfter: string;
} {
  const { serialNumber, validToDate } = new X509Certificate(certificate.certificatePem);
  return { serialNumber, notAfter: validToDate.toISOString() };
}
