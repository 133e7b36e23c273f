// SPDX-License-Identifier: Apache-2.0

/** A way in which a registry fails a request. Byte counts are of the body. */
export type Fault =
  /** Answers with this status and nothing else. */
  | { readonly kind: "status"; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  /** Never answers. */
  | { readonly kind: "hang" }
  /** Answers as always, after a while. */
  | { readonly kind: "late"; readonly delayMs: number }
  /** Closes the connection after so many bytes. */
  | { readonly kind: "cut"; readonly afterBytes: number }
  /** Resets the connection (TCP RST) after so many bytes. */
  | { readonly kind: "reset"; readonly afterBytes: number }
  /** Sends so many bytes and then nothing more, the connection staying open. */
  | { readonly kind: "stall"; readonly afterBytes: number }
  | { readonly kind: "slow"; readonly bytesPerSecond: number }
  /** Flips a bit of the first byte. */
  | { readonly kind: "corrupt" }
  | { readonly kind: "no-content-length" }
  /** Says that there is nothing, and sends it. */
  | { readonly kind: "zero-content-length" };

export interface FaultRule {
  /** Which requests; the path is without its query. */
  readonly match: (request: {
    readonly method: string;
    readonly path: string;
    readonly range?: string;
  }) => boolean;
  readonly fault: Fault;
  /** How many requests fail before the rule is used up; default unlimited. */
  readonly times?: number;
}

export interface FaultPlan {
  /** The rule stays until it is used up or the returned value is disposed. Older rules come first. */
  add(rule: FaultRule): Disposable;
  take(request: {
    readonly method: string;
    readonly path: string;
    readonly range?: string;
  }): Fault | undefined;
}

export function createFaultPlan(): FaultPlan {
  const rules = new Set<{ readonly rule: FaultRule; left: number }>();
  return {
    add(rule) {
      const entry = { rule, left: rule.times ?? Number.POSITIVE_INFINITY };
      rules.add(entry);
      return {
        [Symbol.dispose]() {
          rules.delete(entry);
        },
      };
    },
    take(request) {
      for (const entry of rules) {
        if (entry.left <= 0 || !entry.rule.match(request)) continue;
        entry.left--;
        return entry.rule.fault;
      }
      return undefined;
    },
  };
}
