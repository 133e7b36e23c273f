// SPDX-License-Identifier: Apache-2.0
/**
 * Writes the images as OCI image layouts into dist/images/<name>, without a container daemon: one index for both
 * architectures, or for one with `node hack/image.ts --arch=x64` or `--arch=arm64`. The first time it fetches the other
 * architecture's Node (60 MB, from npm, checked against package-lock.json) and libraries (5 MB, from Debian).
 *
 * Each holds glibc, libstdc++ and libgcc from Debian, one program, and nothing else: no shell, no package
 * manager. They run as user 65532 unless told otherwise. Two builds of one commit with the same Debian packages
 * give the same digests. Copy one to a registry with `skopeo copy --all oci:dist/images/<name> docker://...`.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { buildPrograms, distFolder } from "./build.ts";
import { readLibraries } from "./debian-libraries.ts";
import type { Arch } from "./node-runtime.ts";
import { captureOk, elapsed, findProgram } from "./process.ts";
import { listPrograms, type Program } from "./programs.ts";
import { ROOT } from "./sources.ts";
import { createTar, type TarEntry } from "./tar.ts";

const compress = promisify(gzip);
const MEDIA = "application/vnd.oci.image";
/** As in the distroless images: a user that owns nothing. */
const USER = 65_532;
const OCI_ARCH: Readonly<Record<Arch, string>> = { x64: "amd64", arm64: "arm64" };

interface Blob {
  readonly digest: string;
  readonly bytes: Buffer;
}

interface Layer extends Blob {
  /** Digest of the archive before compression. */
  readonly diffId: string;
  readonly unpackedBytes: number;
  readonly createdBy: string;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: string; readonly os: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Release {
  readonly version: string;
  readonly commit: string;
  /** When the commit was made, in UTC. */
  readonly created: string;
}

function blobOf(bytes: Buffer): Blob {
  return { digest: sha256(bytes), bytes };
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Compressing Node takes seconds, and most builds change nothing in it: compressed layers are kept. */
async function layerOf(createdBy: string, entries: readonly TarEntry[]): Promise<Layer> {
  const tar = createTar(entries);
  const diffId = sha256(tar);
  const path = `${ROOT}/.cache/layers/${diffId.slice("sha256:".length)}.tar.gz`;
  if (!existsSync(path)) {
    await mkdir(`${ROOT}/.cache/layers`, { recursive: true });
    await writeFile(`${path}.${process.pid}`, await compress(tar, { level: 6 }));
    await rename(`${path}.${process.pid}`, path);
  }
  return { ...blobOf(await readFile(path)), diffId, unpackedBytes: tar.length, createdBy };
}

async function baseLayer(arch: Arch): Promise<Layer> {
  const { entries, packages } = await readLibraries(arch);
  const text = (path: string, content: string): TarEntry => ({
    kind: "file",
    path,
    content: Buffer.from(content),
  });
  return layerOf(`Debian: ${packages.join(" ")}`, [
    { kind: "directory", path: "etc" },
    text("etc/passwd", `root:x:0:0:root:/:/none\nnonroot:x:${USER}:${USER}:nonroot:/:/none\n`),
    text("etc/group", `root:x:0:\nnonroot:x:${USER}:\n`),
    text("etc/nsswitch.conf", "hosts: files dns\n"),
    ...entries,
  ]);
}

/** The layers above the base, and how the container starts. */
async function programLayers(
  program: Program,
  arch: Arch,
): Promise<{ readonly layers: Layer[]; readonly entrypoint: readonly string[] }> {
  const dist = distFolder(arch);
  const licences = async (): Promise<TarEntry[]> => [
    { kind: "directory", path: "usr" },
    { kind: "directory", path: "usr/share" },
    { kind: "directory", path: "usr/share/doc" },
    { kind: "directory", path: "usr/share/doc/node" },
    { kind: "file", path: "usr/share/doc/node/LICENSE", content: await readFile(nodeLicence()) },
  ];
  if (program.form === "executable") {
    const content = await readFile(`${dist}/${program.name}`);
    const layer = await layerOf(`hack/build.ts ${program.name}`, [
      ...(await licences()),
      { kind: "file", path: program.name, mode: 0o755, content },
    ]);
    return { layers: [layer], entrypoint: [`/${program.name}`] };
  }
  const node = await layerOf("hack/build.ts node", [
    ...(await licences()),
    { kind: "file", path: "node", mode: 0o755, content: await readFile(`${dist}/lib/node`) },
  ]);
  const bundle = `${program.name}.mjs`;
  const code = await layerOf(`hack/build.ts ${program.name}`, [
    { kind: "file", path: bundle, content: await readFile(`${dist}/lib/${program.folder}.mjs`) },
  ]);
  return { layers: [node, code], entrypoint: ["/node", ...program.nodeOptions, `/${bundle}`] };
}

function nodeLicence(): string {
  const path = ["x64", "arm64"]
    .map((arch) => `${ROOT}/node_modules/node-linux-${arch}/LICENSE`)
    .find((each) => existsSync(each));
  if (path === undefined) throw new Error("the pinned Node is not installed");
  return path;
}

/** Writes one image for these architectures; returns the digest of its index, and the layers of each. */
async function writeImage(
  program: Program,
  bases: ReadonlyMap<Arch, Layer>,
  release: Release,
): Promise<{ readonly digest: string; readonly layers: ReadonlyMap<Arch, readonly Layer[]> }> {
  const finished = `${ROOT}/dist/images/${program.name}`;
  const folder = `${finished}.${process.pid}`;
  await rm(folder, { recursive: true, force: true });
  await mkdir(`${folder}/blobs/sha256`, { recursive: true });
  const write = async (mediaType: string, blob: Blob): Promise<Descriptor> => {
    await writeFile(`${folder}/blobs/sha256/${blob.digest.slice("sha256:".length)}`, blob.bytes);
    return { mediaType, digest: blob.digest, size: blob.bytes.length };
  };
  const json = (value: unknown): Blob => blobOf(Buffer.from(JSON.stringify(value)));
  const annotations = {
    "org.opencontainers.image.title": program.name,
    "org.opencontainers.image.version": release.version,
    "org.opencontainers.image.revision": release.commit,
    "org.opencontainers.image.created": release.created,
    "org.opencontainers.image.licenses": "Apache-2.0",
  };
  const manifests: Descriptor[] = [];
  const layersOf = new Map<Arch, readonly Layer[]>();
  for (const [arch, base] of bases) {
    const { layers: own, entrypoint } = await programLayers(program, arch);
    const layers = [base, ...own];
    layersOf.set(arch, layers);
    const platform = { architecture: OCI_ARCH[arch], os: "linux" };
    const config = await write(
      `${MEDIA}.config.v1+json`,
      json({
        created: release.created,
        ...platform,
        config: { User: `${USER}:${USER}`, Entrypoint: entrypoint, WorkingDir: "/", Labels: annotations },
        rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
        history: layers.map((layer) => ({ created: release.created, created_by: layer.createdBy })),
      }),
    );
    const described: Descriptor[] = [];
    for (const layer of layers) described.push(await write(`${MEDIA}.layer.v1.tar+gzip`, layer));
    const mediaType = `${MEDIA}.manifest.v1+json`;
    const manifest = json({ schemaVersion: 2, mediaType, config, layers: described, annotations });
    manifests.push({ ...(await write(mediaType, manifest)), platform });
  }
  const mediaType = `${MEDIA}.index.v1+json`;
  const index = await write(mediaType, json({ schemaVersion: 2, mediaType, manifests, annotations }));
  const tagged = { ...index, annotations: { "org.opencontainers.image.ref.name": release.version } };
  await writeFile(
    `${folder}/index.json`,
    JSON.stringify({ schemaVersion: 2, mediaType, manifests: [tagged] }),
  );
  await writeFile(`${folder}/oci-layout`, JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await rm(finished, { recursive: true, force: true });
  await rename(folder, finished);
  return { digest: index.digest, layers: layersOf };
}

async function describeRelease(): Promise<Release> {
  const { version } = JSON.parse(await readFile(`${ROOT}/package.json`, "utf8")) as { version: string };
  const [commit = "", seconds = "0"] = (await captureOk("git", ["log", "-1", "--format=%H %ct"]))
    .trim()
    .split(" ");
  return { version, commit, created: new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z") };
}

/** Another reader than ours must understand what was written, and find every blob to have its digest. */
async function inspect(program: Program, version: string, arches: readonly Arch[]): Promise<void> {
  if (findProgram("skopeo") === undefined) return;
  const image = `oci:${ROOT}/dist/images/${program.name}:${version}`;
  for (const arch of arches) {
    const platform = ["--override-os=linux", `--override-arch=${OCI_ARCH[arch]}`];
    const output = await captureOk("skopeo", [...platform, "inspect", image]);
    const { Architecture: found } = JSON.parse(output) as { readonly Architecture?: string };
    if (found !== OCI_ARCH[arch]) throw new Error(`skopeo finds ${found} for ${OCI_ARCH[arch]}`);
  }
  const copy = await mkdtemp(join(tmpdir(), "image-"));
  try {
    await captureOk("skopeo", ["copy", "--quiet", "--all", "--preserve-digests", image, `dir:${copy}`]);
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

/** `44.0 MB, 121.3 MB unpacked`. */
function sizes(layers: readonly Layer[]): string {
  const megabytes = (sizeBytes: number): string => `${(sizeBytes / 1e6).toFixed(1)} MB`;
  const compressedBytes = layers.reduce((total, layer) => total + layer.bytes.length, 0);
  const unpackedBytes = layers.reduce((total, layer) => total + layer.unpackedBytes, 0);
  return `${megabytes(compressedBytes)}, ${megabytes(unpackedBytes)} unpacked`;
}

if (import.meta.main) {
  const started = performance.now();
  const wanted = process.argv
    .slice(2)
    .flatMap((argument) => /^--arch=(x64|arm64)$/.exec(argument)?.[1] ?? []) as Arch[];
  const arches: Arch[] = wanted.length > 0 ? wanted : ["x64", "arm64"];
  const release = await describeRelease();
  console.log(
    `image: ${arches.map((arch) => `linux/${OCI_ARCH[arch]}`).join(", ")}, version ${release.version}`,
  );
  const bases = new Map<Arch, Layer>();
  for (const arch of arches) {
    console.log(`  programs for linux/${OCI_ARCH[arch]}`);
    await buildPrograms(arch);
    bases.set(arch, await baseLayer(arch));
  }
  for (const program of listPrograms()) {
    const imageStarted = performance.now();
    const { digest, layers } = await writeImage(program, bases, release);
    await inspect(program, release.version, arches);
    console.log(`  dist/images/${program.name}: ${digest}, ${elapsed(imageStarted)}`);
    for (const [arch, each] of layers) {
      console.log(`    linux/${OCI_ARCH[arch]}: ${sizes(each)}`);
      for (const layer of each) console.log(`      ${sizes([layer])}: ${layer.createdBy}`);
    }
  }
  console.log(`image: done in ${elapsed(started)}`);
}
