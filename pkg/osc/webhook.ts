// SPDX-License-Identifier: Apache-2.0
import { hasCode } from "#errors";
import { type AdmissionJudge, type AdmissionReview, type AdmissionVerdict, answerReview } from "#http";
import type { LogFields, Logger } from "#log";
import type { LoadContext } from "./context.ts";
import { type Mutation, mutateOSC } from "./mutate.ts";
import { type OSCOptions, resolveOptions } from "./options.ts";

export interface OSCWebhookDeps {
  /** From a cache where it can: it is on the way of every write of an OperatingSystemConfig. */
  readonly loadContext: LoadContext;
  readonly logger: Logger;
}

export interface OSCWebhook {
  /**
   * Answers the body of one AdmissionReview (v1 or v1beta1). Never rejects. The signal is read only when something is
   * not in a cache, so that it may be made then.
   */
  review(body: Uint8Array | string, options: { readonly signal: AbortSignal }): Promise<AdmissionReview>;
}

/**
 * The mutating webhook for OperatingSystemConfigs. It reads no clock and writes nothing, so a dry run needs no
 * care, and it may be called again for an object that it has changed already.
 *
 * An object that cannot be read is denied with 400, a Shoot whose Extension has not reported yet with 403, and
 * when the context cannot be read with 500; all of them surface in the Shoot, and gardenlet tries again.
 *
 * @throws OSCError OSC_OPTIONS_INVALID
 */
export function createOSCWebhook(deps: OSCWebhookDeps, options: OSCOptions): OSCWebhook {
  const nodeOptions = resolveOptions(options);
  const judge: AdmissionJudge = {
    readsOldObject: false,
    async judge({ operation, namespace, name, object }, cancel) {
      if (operation !== "CREATE" && operation !== "UPDATE") return { allowed: true };
      if (namespace === undefined || namespace === "") return deny(400, "request.namespace is missing");
      const log = (level: "debug" | "warn" | "error", message: string, fields: LogFields): void =>
        deps.logger[level](message, { namespace, name, ...fields });
      try {
        const request = {
          namespace,
          loadContext: deps.loadContext,
          get signal() {
            return cancel.signal;
          },
        };
        return toVerdict(await mutateOSC(object, request, nodeOptions), log);
      } catch (error) {
        log("error", "OperatingSystemConfig could not be changed", { err: error });
        if (hasCode(error, "OSC_OBJECT_INVALID")) return deny(400, error.message);
        throw error;
      }
    },
  };
  return { review: (body, cancel) => answerReview(body, judge, cancel) };
}

function toVerdict(
  mutation: Mutation,
  log: (level: "debug" | "warn", message: string, fields: LogFields) => void,
): AdmissionVerdict {
  switch (mutation.kind) {
    case "leave":
      log("debug", "OperatingSystemConfig left as it is", { reason: mutation.reason });
      return { allowed: true };
    case "deny":
      log("warn", "OperatingSystemConfig denied", { reason: mutation.message });
      return deny(403, mutation.message);
    case "change":
      log("debug", "OperatingSystemConfig changed", { operations: mutation.patch.length });
      return { allowed: true, patch: mutation.patch };
  }
}

function deny(code: number, message: string): AdmissionVerdict {
  return { allowed: false, code, message };
}
