import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Which entries {@linkcode walk} gives. */
export interface WalkOptions {
  /** How deep to go; 0 is the root alone. */
  maxDepth?: number;
  includeFiles?: boolean;
  includeDirs?: boolean;
  includeSymlinks?: boolean;
  followSymlinks?: boolean;
  /** Endings of names, with or without the dot. */
  exts?: string[];
  /** Only paths that match one of these. */
  match?: RegExp[];
  /** No path that matches one of these; a folder that does is not entered. */
  skip?: RegExp[];
}

/** One file or folder, with its path. */
export interface WalkEntry extends Deno.DirEntry {
  path: string;
}

function included(path: string, options: WalkOptions): boolean {
  if (options.exts && !options.exts.some((e) => path.endsWith(e.startsWith(".") ? e : `.${e}`))) {
    return false;
  }
  return options.match?.some((pattern) => pattern.test(path)) ?? true;
}

/** The files and folders under `root`, the folder before what is in it. */
export async function* walk(
  root: string | URL,
  options: WalkOptions = {},
): AsyncIterableIterator<WalkEntry> {
  yield* walkSync(root, options);
}

/** As {@linkcode walk}, at once. */
export function* walkSync(
  root: string | URL,
  options: WalkOptions = {},
): IterableIterator<WalkEntry> {
  const path = root instanceof URL ? fileURLToPath(root) : root;
  const { maxDepth = Infinity, includeFiles = true, includeDirs = true, includeSymlinks = true } =
    options;
  if (maxDepth < 0 || options.skip?.some((pattern) => pattern.test(path))) return;
  const info = Deno.statSync(path);
  if (includeDirs && included(path, options)) {
    const { isDirectory, isFile, isSymlink } = info;
    yield { path, name: basename(path), isDirectory, isFile, isSymlink };
  }
  if (maxDepth < 1 || !info.isDirectory) return;
  for (const entry of Deno.readDirSync(path)) {
    let inner = join(path, entry.name);
    let { isDirectory, isSymlink } = entry;
    if (isSymlink && options.followSymlinks) {
      inner = Deno.realPathSync(inner);
      isDirectory = Deno.statSync(inner).isDirectory;
      isSymlink = false;
    }
    if (isDirectory) {
      yield* walkSync(inner, { ...options, maxDepth: maxDepth - 1 });
    } else if (
      (isSymlink ? includeSymlinks : includeFiles) && included(inner, options) &&
      !options.skip?.some((pattern) => pattern.test(inner))
    ) {
      yield { path: inner, ...entry };
    }
  }
}
