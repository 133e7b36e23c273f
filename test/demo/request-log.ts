// SPDX-License-Identifier: Apache-2.0
import type { Daemon } from "./start-daemons.ts";

/** One line of a daemon's log about a request it answered. */
export interface AnsweredRequest {
  readonly method: string;
  readonly reference: string;
  /** True when another node asked. */
  readonly mirrored: boolean;
  readonly bytes: number;
  readonly source: "local" | "peer" | "none";
  /** Identities of the nodes that delivered the bytes. */
  readonly peers: readonly string[];
  readonly durationMs: number;
}

/** All pulls that a daemon answered so far, in order. */
export function readRequestLog(daemon: {
  readonly process: Pick<Daemon["process"], "output">;
}): readonly AnsweredRequest[] {
  return daemon.process.output.lines.flatMap(({ stream, text }) => {
    if (stream !== "stderr" || !text.includes('"msg":"Request answered."')) return [];
    const line = JSON.parse(text) as Partial<AnsweredRequest>;
    if (line.reference === undefined || line.method !== "GET") return [];
    return [
      {
        method: line.method,
        reference: line.reference,
        mirrored: line.mirrored === true,
        bytes: line.bytes ?? 0,
        source: line.source ?? "none",
        peers: line.peers ?? [],
        durationMs: line.durationMs ?? 0,
      },
    ];
  });
}

/** The value of a counter in the Prometheus text format; 0 when it is not there. */
export function readCounter(
  exposition: string,
  name: string,
  labels: Readonly<Record<string, string>>,
): number {
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  const line = exposition
    .split("\n")
    .find((each) => each.startsWith(`${name}{`) && wanted.every((label) => each.includes(label)));
  return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(" ") + 1));
}
