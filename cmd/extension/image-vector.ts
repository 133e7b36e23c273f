// SPDX-License-Identifier: Apache-2.0
import { ConfigError, type ConfigProblem, readDocument } from "#config";

/** Names of our images in an image vector. */
const NAMES = { nodeImage: "spegel", bootstrapperImage: "registry-spegel-bootstrapper" } as const;

export interface Images {
  readonly nodeImage?: string;
  readonly bootstrapperImage?: string;
}

interface Entry {
  readonly name: string;
  readonly ref?: string;
  readonly repository?: string;
  readonly tag?: string;
}

interface ImageParts {
  readonly repository?: string;
  readonly version?: string;
}

/** Every node and every Shoot of a seed gets the same image, so an entry for some of them cannot be followed. */
const SELECTORS = ["runtimeVersion", "targetVersion", "architectures"];

/**
 * Reads the file that `IMAGEVECTOR_OVERWRITE` names and puts its images over those given: Gardener's way of pointing
 * components to another registry (docs/deployment/image_vector.md). An entry has `ref`, or `repository` and `tag`;
 * of the latter, what it leaves out stays as given. Entries of other names are not ours.
 *
 * @throws ConfigError CONFIG_FILE_UNREADABLE; CONFIG_INVALID with the path of every wrong field
 */
export async function overwriteImages(images: Images, file: string): Promise<Images> {
  const document = await readDocument(file);
  const problems: ConfigProblem[] = [];
  const entries = readEntries(document, problems);
  const overwritten = Object.entries(NAMES).flatMap(([key, name]) => {
    const found = entries.filter((entry) => entry.name === name);
    if (found.length > 1) problems.push({ path: "images", message: `names ${name} ${found.length} times` });
    const image = found[0] && imageOf(found[0], images[key as keyof Images], problems);
    return image === undefined ? [] : [[key, image]];
  });
  if (problems.length > 0) {
    const path = (field: string): string => `IMAGEVECTOR_OVERWRITE ${field}`;
    throw new ConfigError({
      code: "CONFIG_INVALID",
      problems: problems.map((problem) => ({ ...problem, path: path(problem.path) })),
    });
  }
  return { ...images, ...(Object.fromEntries(overwritten) as Images) };
}

function readEntries(document: unknown, problems: ConfigProblem[]): Entry[] {
  const { images, components } = (document ?? {}) as {
    readonly images?: unknown;
    readonly components?: unknown;
  };
  if (!Array.isArray(images)) {
    const hint =
      components === undefined
        ? ""
        : "; of gardenlet's list of components, give the imageVectorOverwrite of one";
    problems.push({ path: "images", message: `is not a list${hint}` });
    return [];
  }
  const ours: readonly unknown[] = Object.values(NAMES);
  return images.flatMap((each: unknown, index): Entry[] => {
    const path = `images[${index}]`;
    if (typeof each !== "object" || each === null || !("name" in each) || typeof each.name !== "string") {
      problems.push({ path, message: "has no name" });
      return [];
    }
    if (!ours.includes(each.name)) return [];
    const before = problems.length;
    for (const field of SELECTORS)
      if (field in each)
        problems.push({
          path: `${path}.${field}`,
          message:
            "cannot be followed: one image serves all Shoots of a seed and all their nodes; leave it out",
        });
    for (const field of ["ref", "repository", "tag"])
      if (field in each && typeof (each as Record<string, unknown>)[field] !== "string")
        problems.push({ path: `${path}.${field}`, message: "is not a text; put it in quotes" });
    if ("ref" in each && ("repository" in each || "tag" in each))
      problems.push({ path, message: "has a ref, and repository or tag; leave one of them out" });
    if (!("ref" in each || "repository" in each || "tag" in each))
      problems.push({ path, message: "has neither ref nor repository nor tag" });
    return problems.length === before ? [each as Entry] : [];
  });
}

function imageOf(entry: Entry, given: string | undefined, problems: ConfigProblem[]): string | undefined {
  if (entry.ref !== undefined) return entry.ref;
  const base: ImageParts = given === undefined || given === "" ? {} : split(given);
  const repository = entry.repository ?? base.repository;
  const version =
    entry.tag === undefined ? base.version : `${entry.tag.startsWith("sha256:") ? "@" : ":"}${entry.tag}`;
  if (repository !== undefined && version !== undefined) return repository + version;
  const missing = repository === undefined ? "repository" : "tag";
  problems.push({
    path: `images ${entry.name}`,
    message: `has no ${missing}, and there is no image to take it from`,
  });
  return undefined;
}

/** `host:5000/a/b:v1@sha256:...` into `host:5000/a/b` and `:v1@sha256:...`. */
function split(image: string): ImageParts {
  const at = image.indexOf("@");
  const colon = image.indexOf(":", image.lastIndexOf("/", at < 0 ? undefined : at) + 1);
  const end = [at, colon].filter((index) => index >= 0).sort((a, b) => a - b)[0];
  return end === undefined
    ? { repository: image }
    : { repository: image.slice(0, end), version: image.slice(end) };
}
