// SPDX-License-Identifier: Apache-2.0
import type { SpegelPorts } from "#api/spegel";
import { ConfigError, type ConfigProblem } from "#config";
import type { AdmissionRequest, AdmissionVerdict } from "#http";
import { decodeSpegelConfig } from "./decode.ts";
import { AdmissionError } from "./errors.ts";
import { type EnabledExtension, readShoot, type Shoot, type Worker } from "./shoot.ts";

export interface JudgeShootOptions {
  /** Ports for those a Shoot leaves out; must be those of the extension in the seeds. */
  readonly operatorDefaults?: Partial<SpegelPorts>;
}

const CONTAINER_RUNTIME = "containerd";

/**
 * Judges what a Shoot asks of the extension. Only what a request changes is judged: a rule that became stricter must
 * never keep a Shoot from being deleted or otherwise changed.
 *
 * It reads nothing but the request: under `autoEnable` it is on the way of every write of every Shoot.
 *
 * Without an entry, with `disabled: true`, without workers and while being deleted a Shoot is allowed as it is.
 * An object that is no Shoot is denied with 400, one that asks for what cannot be with 403 and every field path.
 */
export function judgeShoot(request: AdmissionRequest, options: JudgeShootOptions = {}): AdmissionVerdict {
  if (request.operation !== "CREATE" && request.operation !== "UPDATE") return { allowed: true };
  try {
    const shoot = readShoot(request.object);
    if (shoot.isDeleting || shoot.extension === undefined || shoot.workers.length === 0) {
      return { allowed: true };
    }
    const old = request.operation === "UPDATE" ? readShoot(request.oldObject) : undefined;
    const config = judgeConfig(shoot.extension, old?.extension, options);
    return verdictOf([...config.problems, ...judgeWorkers(shoot, old)], config.warnings);
  } catch (error) {
    if (!(error instanceof AdmissionError)) throw error;
    return { allowed: false, code: 400, message: error.message };
  }
}

interface Judgement {
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
}

const UNCHANGED: Judgement = { problems: [], warnings: [] };

function judgeConfig(
  extension: EnabledExtension,
  old: EnabledExtension | undefined,
  { operatorDefaults }: JudgeShootOptions,
): Judgement {
  if (old !== undefined && textOf(old.providerConfig) === textOf(extension.providerConfig)) return UNCHANGED;
  try {
    const { warnings } = decodeSpegelConfig(extension.providerConfig, {
      path: extension.path,
      ...(operatorDefaults && { operatorDefaults }),
    });
    return { problems: [], warnings };
  } catch (error) {
    if (error instanceof ConfigError) return { problems: error.problems, warnings: [] };
    throw error;
  }
}

/** Workers whose runtime is not containerd, but for those that were so while the extension was enabled already. */
function judgeWorkers(shoot: Shoot, old: Shoot | undefined): ConfigProblem[] {
  const known = old?.extension === undefined ? [] : old.workers;
  const isKnown = ({ name, runtime }: Worker): boolean =>
    known.some((worker) => worker.name === name && worker.runtime === runtime);
  return shoot.workers
    .filter((worker) => worker.runtime !== undefined && worker.runtime !== CONTAINER_RUNTIME)
    .filter((worker) => !isKnown(worker))
    .map(({ path, runtime }) => ({
      path: `${path}.cri.name`,
      message: `must be ${CONTAINER_RUNTIME} for the extension registry-spegel, not ${JSON.stringify(runtime?.slice(0, 60))}`,
    }));
}

function verdictOf(problems: readonly ConfigProblem[], warnings: readonly string[]): AdmissionVerdict {
  if (problems.length === 0) return { allowed: true, warnings };
  const message = problems.map((problem) => `${problem.path}: ${problem.message}`).join("; ");
  return { allowed: false, code: 403, message };
}

/** Absent and null mean the same. */
function textOf(providerConfig: unknown): string {
  return JSON.stringify(providerConfig ?? null);
}
