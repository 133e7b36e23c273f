// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";

/** A parsed `host:port`; `host` is absent for "all addresses" and has no brackets. */
export interface ListenAddress {
  readonly host?: string;
  readonly port: number;
}

/**
 * Parses an address as Go's `net.Listen` takes it: `:5000`, `127.0.0.1:5000`, `[::1]:5000`, `localhost:0`.
 *
 * @throws RangeError naming the text
 */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const literal = match?.[1];
  if (match === null || port > 65535 || (literal !== undefined && isIP(literal) !== 6)) {
    throw new RangeError(
      `"${text.slice(0, 80)}" is not an address of the form host:port, :port or [IPv6]:port`,
    );
  }
  const host = literal ?? match[2];
  return host === undefined || host === "" ? { port } : { host, port };
}

/** `host:port` with brackets around an IPv6 host. */
export function formatHostPort(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** What is wrong with a listen address, or undefined. */
export function listenAddressProblem(text: string): string | undefined {
  try {
    parseListenAddress(text);
    return undefined;
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}

/** True for what may stand between `https://` and the path of a URL: `host` or `host:port`, and nothing else. */
export function isHostPort(text: string): boolean {
  const url = URL.parse(`https://${text}`);
  return (
    url !== null && url.hostname !== "" && url.pathname === "/" && url.search === "" && url.username === ""
  );
}
