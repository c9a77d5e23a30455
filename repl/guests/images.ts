import { writeWhole } from "../files.ts";
import { unpack } from "../../src/builder/compressed.ts";
import { readElf } from "../../src/builder/elf.ts";
import { readKallsyms, writeSystemMap } from "../../src/builder/kallsyms.ts";
import { extractPayload } from "../../src/builder/payload.ts";
import { Apt, GuestsError, type Report } from "./apt.ts";
import { makeInitramfs } from "./initramfs.ts";

/** A set of images made from one package. */
export interface GuestRecipe {
  readonly name: string;
  readonly about: string;
  /** The package to begin from, `name:architecture`. */
  readonly package: string;
  /** File names made, in the cache folder. */
  readonly products: readonly string[];
  /** A file made as well when the kernel carries its symbols. */
  readonly systemMap?: string;
  readonly kind: "kernel" | "initramfs" | "multiboot";
}

const kernel = (name: string, pkg: string, about: string): GuestRecipe => ({
  name,
  about,
  package: pkg,
  products: [`vmlinuz-${name}`, `vmlinux-${name}`],
  systemMap: `System.map-${name}`,
  kind: "kernel",
});

const initramfs = (architecture: string): GuestRecipe => ({
  name: `tiny-${architecture}`,
  about: `busybox initramfs with the three results of the tests, ${architecture}`,
  package: `busybox-static:${architecture}`,
  products: [`tiny-${architecture}.cpio.gz`],
  kind: "initramfs",
});

const multiboot = (name: string, pkg: string, about: string): GuestRecipe => ({
  name,
  about,
  package: pkg,
  products: [name],
  kind: "multiboot",
});

/** Everything `xvm guests` can make. */
export const RECIPES: readonly GuestRecipe[] = [
  kernel("686", "linux-image-686:i386", "Debian 32-bit kernel, non-PAE, XZ"),
  kernel("686-pae", "linux-image-686-pae:i386", "Debian 32-bit PAE kernel, PVH note"),
  kernel("cloud", "linux-image-cloud-amd64:amd64", "Debian 64-bit cloud kernel, LZ4, PVH and PV"),
  kernel("amd64", "linux-image-amd64:amd64", "Debian 64-bit kernel, XZ, PVH and PV"),
  multiboot("gnumach", "gnumach-image-1.8-486:i386", "GNU Mach 1.8, multiboot, linked high"),
  multiboot("xen", "xen-hypervisor-4.17-amd64:amd64", "Xen 4.17, multiboot; domain 0 by --module"),
  initramfs("i386"),
  initramfs("amd64"),
];

/** What the manifest says about one product. */
export interface ManifestEntry {
  readonly recipe: string;
  readonly size: number;
  readonly sha256: string;
  readonly package: string;
  readonly version: string;
}

export type Manifest = Record<string, ManifestEntry>;

/** `$XVM_GUESTS`, or `xvm/guests` in the user's cache folder. */
export function guestsFolder(): string {
  const given = Deno.env.get("XVM_GUESTS");
  if (given) return given;
  const cache = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME") ?? "."}/.cache`;
  return `${cache}/xvm/guests`;
}

/** The manifest of a cache folder; empty when nothing was made there yet. */
export async function readManifest(folder: string = guestsFolder()): Promise<Manifest> {
  try {
    return JSON.parse(await Deno.readTextFile(`${folder}/manifest.json`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return {};
    throw error;
  }
}

/** A line of `xvm guests list`. */
export interface GuestListing {
  readonly recipe: GuestRecipe;
  /** Products that are there, with what the manifest knows of them. */
  readonly present: readonly { readonly path: string; readonly entry: ManifestEntry }[];
}

/** What can be made, and what of it is there. */
export async function listGuests(folder: string = guestsFolder()): Promise<GuestListing[]> {
  const manifest = await readManifest(folder);
  const listings: GuestListing[] = [];
  for (const recipe of RECIPES) {
    const present = [];
    for (const [name, entry] of Object.entries(manifest)) {
      if (entry.recipe !== recipe.name) continue;
      const path = `${folder}/${name}`;
      if (await fileSize(path) === entry.size) present.push({ path, entry });
    }
    listings.push({ recipe, present });
  }
  return listings;
}

export interface FetchOptions {
  readonly folder?: string;
  readonly report?: Report;
  /** Make the images anew even when they are there and whole. */
  readonly force?: boolean;
}

/**
 * Makes guest images from Debian's packages: no root, no change to the host's package
 * configuration. What is there and matches its hash is left alone, so that an interrupted fetch
 * goes on where it stopped.
 *
 * @param names Names of {@link RECIPES}, or `all`.
 * @returns The manifest of the folder.
 * @throws {GuestsError} When the package client is missing, offline, or the disk is full.
 */
export async function fetchGuests(
  names: readonly string[],
  options: FetchOptions = {},
): Promise<Manifest> {
  const report = options.report ?? (() => {});
  const folder = await Deno.realPath(await madeFolder(options.folder ?? guestsFolder()));
  const manifest = await readManifest(folder);
  const due = [];
  for (const recipe of chosen(names)) {
    const there = options.force ? [] : await present(folder, recipe, manifest);
    if (there.length < recipe.products.length) due.push(recipe);
    else report(`${recipe.name}: in place`);
  }
  if (due.length === 0) return manifest;
  const apt = new Apt(`${folder}/.apt`, report);
  try {
    await apt.open();
    const kernels = due.filter((recipe) => recipe.kind === "kernel").length;
    await requireSpace(folder, 100e6 + kernels * 100e6);
    await apt.update();
    for (const recipe of due) await make(folder, recipe, apt, manifest, report);
    await Deno.remove(`${apt.folder}/debs`, { recursive: true });
  } catch (error) {
    throw explained(error, folder);
  }
  return manifest;
}

function chosen(names: readonly string[]): GuestRecipe[] {
  if (names.includes("all")) return [...RECIPES];
  return names.map((name) => {
    const found = RECIPES.find((r) => [r.name, ...r.products, r.systemMap].includes(name));
    if (found) return found;
    const known = RECIPES.map((r) => r.name).join(", ");
    throw new GuestsError(`no guest is named "${name}"; expected ${known} or all`);
  });
}

async function make(
  folder: string,
  recipe: GuestRecipe,
  apt: Apt,
  manifest: Manifest,
  report: Report,
): Promise<void> {
  const pkg = await apt.resolve(recipe.package);
  const { path: deb, version } = await apt.download(pkg);
  const made = recipe.kind === "kernel"
    ? await kernelFiles(deb, recipe, apt, report)
    : recipe.kind === "multiboot"
    ? await multibootFiles(deb, recipe, apt)
    : await initramfsFiles(deb, recipe, apt);
  for (const [name, bytes] of made) {
    const sha256 = await store(`${folder}/${name}`, bytes);
    manifest[name] = { recipe: recipe.name, size: bytes.length, sha256, package: pkg, version };
    report(`  ${name}  ${(bytes.length / 1e6).toFixed(1)} MB  sha256 ${sha256.slice(0, 16)}...`);
  }
  // Another fetch may have made others meanwhile.
  const whole = { ...await readManifest(folder), ...manifest };
  const text = JSON.stringify(whole, null, 2) + "\n";
  await store(`${folder}/manifest.json`, new TextEncoder().encode(text));
  await Deno.remove(deb);
}

type Files = [name: string, bytes: Uint8Array][];

async function kernelFiles(
  deb: string,
  recipe: GuestRecipe,
  apt: Apt,
  report: Report,
): Promise<Files> {
  const image = await apt.extract(deb, (path) => path.startsWith("boot/vmlinuz-"));
  if (!image) throw new GuestsError(`${deb}: holds no boot/vmlinuz-*`);
  const [bzImage, vmlinux] = recipe.products;
  report(`  extracting ${vmlinux}`);
  const elf = await extractPayload(image.bytes, bzImage);
  const files: Files = [[bzImage, image.bytes], [vmlinux, elf]];
  const map = symbols(elf, vmlinux);
  if (map) files.push([recipe.systemMap!, map]);
  else report(`  ${vmlinux} carries no symbols that can be read: no ${recipe.systemMap}`);
  return files;
}

/**
 * A System.map from the kernel's own symbol table: the package's System.map is a stub that names
 * the debugging package, of several hundred megabytes.
 */
function symbols(vmlinux: Uint8Array, file: string): Uint8Array | undefined {
  const elf = readElf(vmlinux, file);
  const found = readKallsyms(elf);
  return found && new TextEncoder().encode(writeSystemMap(found, elf.bits));
}

/** The one compressed image in the package's boot folder. */
async function multibootFiles(deb: string, recipe: GuestRecipe, apt: Apt): Promise<Files> {
  const image = await apt.extract(deb, (path) => /^boot\/.*\.gz$/.test(path));
  if (!image) throw new GuestsError(`${deb}: holds no boot/*.gz`);
  const { bytes } = await unpack({ file: image.path, bytes: image.bytes });
  return [[recipe.products[0], bytes]];
}

async function initramfsFiles(deb: string, recipe: GuestRecipe, apt: Apt): Promise<Files> {
  const busybox = await apt.extract(deb, (path) => /^(usr\/)?bin\/busybox$/.test(path));
  if (!busybox) throw new GuestsError(`${deb}: holds no bin/busybox`);
  return [[recipe.products[0], makeInitramfs(busybox.bytes)]];
}

/** Writes whole, so that a cut-off write never looks like a product. */
async function store(path: string, bytes: Uint8Array): Promise<string> {
  writeWhole(path, bytes);
  return await sha256(bytes);
}

/** The products of a recipe that are there with the hash the manifest has. */
async function present(
  folder: string,
  recipe: GuestRecipe,
  manifest: Manifest,
): Promise<string[]> {
  const found: string[] = [];
  for (const name of recipe.products) {
    const entry = manifest[name];
    const path = `${folder}/${name}`;
    if (!entry || await fileSize(path) !== entry.size) continue;
    if (await sha256(await Deno.readFile(path)) === entry.sha256) found.push(name);
  }
  return found;
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return new Uint8Array(digest).toHex();
}

async function fileSize(path: string): Promise<number | undefined> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function madeFolder(folder: string): Promise<string> {
  await Deno.mkdir(folder, { recursive: true });
  return folder;
}

async function requireSpace(folder: string, bytes: number): Promise<void> {
  const { statfs } = await import("node:fs/promises");
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < bytes) {
    const mb = (n: number) => `${Math.round(n / 1e6)} MB`;
    throw new GuestsError(
      `${folder}: ${mb(bavail * bsize)} free on its disk; expected ${mb(bytes)} for the fetch`,
    );
  }
}

function explained(error: unknown, folder: string): unknown {
  if (error instanceof Error && /ENOSPC|No space left/i.test(`${error.message}`)) {
    return new GuestsError(`${folder}: the disk is full; what was made so far is kept`);
  }
  return error;
}
