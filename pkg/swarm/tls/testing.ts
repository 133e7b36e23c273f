// SPDX-License-Identifier: Apache-2.0
/** Certificates that are wrong in one thing, hosts that offer what a test wants, and what libp2p says before the handshake. */
import { sign, X509Certificate } from "node:crypto";
import { connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { Duplex } from "node:stream";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { generateKeyPair } from "@libp2p/crypto/keys";
import type { PrivateKey } from "@libp2p/interface";
import { silentLogger } from "#log";
import { createAddressPolicy, parseRouterAddress } from "../address-policy.ts";
import { type Host, type HostOptions, openHost, type Security } from "../host.ts";
import { openIdentity } from "../identity.ts";
import { encodeDer, encodeObjectId, readDerInside, readDerValues, Tag } from "./der.ts";
import { createOwnCertificate, formatCertificate, type OwnCertificate } from "./own-certificate.ts";

/** A libp2p node on loopback; without `security` it offers what nodes offer. */
export async function openHostWith(
  options: { readonly ip?: string; readonly signal: AbortSignal } & Partial<
    Pick<HostOptions, "maxTlsConnections" | "security" | "serve">
  >,
): Promise<Host> {
  const { ip = "127.0.0.1", serve = () => {}, security, maxTlsConnections, signal } = options;
  const listen = parseRouterAddress(`${ip}:0`);
  return openHost({
    privateKey: await openIdentity({ logger: silentLogger }, { dataDirectory: undefined, signal }),
    listen,
    policy: createAddressPolicy({ interfaces: networkInterfaces, now: () => performance.now() }, listen),
    serve,
    events: { joined: () => {}, left: () => {}, connected: () => {}, disconnected: () => {} },
    ...(security === undefined ? {} : { security }),
    ...(maxTlsConnections === undefined ? {} : { maxTlsConnections }),
  });
}

/** The places of the fields of a TBSCertificate. */
export const Field = {
  VERSION: 0,
  SIGNATURE: 2,
  ISSUER: 3,
  VALIDITY: 4,
  SUBJECT: 5,
  KEY: 6,
  EXTENSIONS: 7,
} as const;

export interface Forgery {
  readonly host?: PrivateKey;
  /** Changes the fields; the certificate is signed afterwards. */
  readonly fields?: (fields: readonly Uint8Array[]) => readonly Uint8Array[];
  /** PEM of the key that signs; default the certificate's own. */
  readonly signer?: string;
  readonly algorithm?: { readonly id: string; readonly digest: string };
}

/** A certificate like those of this package but for what is changed. */
export async function forgeCertificate(forgery: Forgery = {}): Promise<OwnCertificate> {
  const own = await createOwnCertificate(forgery.host ?? (await generateKeyPair("Ed25519")));
  const [content, ownAlgorithm] = readDerInside(new X509Certificate(own.certificate).raw, Tag.SEQUENCE);
  let fields: readonly Uint8Array[] = readDerValues(content?.content ?? new Uint8Array()).map(
    ({ encoded }) => encoded,
  );
  let algorithm = ownAlgorithm?.encoded ?? new Uint8Array();
  if (forgery.algorithm !== undefined) {
    algorithm = encodeDer(Tag.SEQUENCE, encodeObjectId(forgery.algorithm.id));
    fields = fields.with(Field.SIGNATURE, algorithm);
  }
  const changed = encodeDer(Tag.SEQUENCE, ...(forgery.fields?.(fields) ?? fields));
  const signature = sign(forgery.algorithm?.digest ?? "sha256", changed, forgery.signer ?? own.key);
  return { certificate: formatCertificate(changed, algorithm, signature), key: own.key };
}

/** The field with these extensions. */
export function extensionsOf(...extensions: readonly Uint8Array[]): Uint8Array {
  return encodeDer(Tag.EXPLICIT_3, encodeDer(Tag.SEQUENCE, ...extensions));
}

export function extensionOf(id: string, value: Uint8Array, critical?: "critical"): Uint8Array {
  const mark = critical === undefined ? [] : [encodeDer(Tag.BOOLEAN, Uint8Array.of(0xff))];
  return encodeDer(Tag.SEQUENCE, encodeObjectId(id), ...mark, encodeDer(Tag.OCTET_STRING, value));
}

/** The only extension of a certificate of this package, and the key and the signature in it. */
export function keyExtensionOf(fields: readonly Uint8Array[]): {
  readonly extension: Uint8Array;
  readonly key: Uint8Array;
  readonly signature: Uint8Array;
} {
  const [list] = readDerInside(fields[Field.EXTENSIONS] ?? new Uint8Array(), Tag.EXPLICIT_3);
  const [extension] = readDerValues(list?.content ?? new Uint8Array());
  const [, value] = readDerValues(extension?.content ?? new Uint8Array());
  const [key, signature] = readDerInside(value?.content ?? new Uint8Array(), Tag.SEQUENCE);
  if (extension === undefined || key === undefined || signature === undefined)
    throw new Error("no extension");
  return { extension: extension.encoded, key: key.content, signature: signature.content };
}

/** With it each negotiation begins, also that of the muxer. */
export const HEADER = "\x13/multistream/1.0.0\n";
const TLS = "\x0b/tls/1.0.0\n";
const PROPOSALS = { noise: `${HEADER}\x07/noise\n`, tls: HEADER + TLS } as const;
const NOT_AVAILABLE = "\x03na\n";

/** Dials a node and agrees with it on one security protocol, TLS by default; the handshake comes next. */
export async function proposeTo(
  target: { readonly host: string; readonly port: number; readonly localAddress?: string },
  security: Security = "tls",
): Promise<Socket> {
  const socket = connect(target).on("error", () => {}); // "close" follows
  socket.write(PROPOSALS[security]);
  await receive(socket, PROPOSALS[security]);
  return socket;
}

/** Dials a node and begins the handshake in the same write as the proposal of TLS, as peers may that have nothing else. */
export function dialTlsEagerly(
  target: { readonly host: string; readonly port: number },
  options: ConnectionOptions,
): TLSSocket {
  const raw = connect(target);
  let first = true;
  let answerBytes = HEADER.length + TLS.length;
  const transport = new Duplex({
    read: () => {},
    write(chunk: Buffer, _encoding, callback) {
      raw.write(first ? Buffer.concat([Buffer.from(HEADER + TLS), chunk]) : chunk, callback);
      first = false;
    },
    destroy(_err, callback) {
      raw.destroy();
      callback(null);
    },
  });
  raw.on("data", (data: Buffer) => {
    const skipped = Math.min(answerBytes, data.length);
    answerBytes -= skipped;
    if (data.length > skipped) transport.push(data.subarray(skipped));
  });
  raw.on("error", () => {}).on("close", () => transport.destroy());
  return connectTls({ socket: transport, rejectUnauthorized: false, ...options });
}

/** Refuses whatever a node that has dialled proposes, until that is TLS. */
export async function agreeToTls(socket: Socket): Promise<void> {
  socket.write(HEADER);
  await receive(socket, HEADER);
  for (;;) {
    const proposal = await receiveLine(socket);
    socket.write(proposal === TLS ? TLS : NOT_AVAILABLE);
    if (proposal === TLS) return;
  }
}

async function receive(socket: Socket, expected: string): Promise<void> {
  const received = await receiveBytes(socket, expected.length);
  if (received !== expected) throw new Error(`received ${JSON.stringify(received)}`);
}

async function receiveLine(socket: Socket): Promise<string> {
  const length = await receiveBytes(socket, 1);
  return length + (await receiveBytes(socket, length.charCodeAt(0)));
}

async function receiveBytes(socket: Socket, count: number): Promise<string> {
  for (;;) {
    const bytes = socket.read(count) as Buffer | null;
    if (bytes !== null) return bytes.toString("latin1");
    if (socket.readableEnded || socket.destroyed) throw new Error("the connection ended");
    await new Promise<void>((resolve) => {
      socket.once("readable", resolve).once("end", resolve).once("close", resolve);
    });
  }
}
