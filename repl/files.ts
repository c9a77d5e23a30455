/**
 * Files that are written whole or not at all.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";

/**
 * Writes a file beside its place and puts it there when all of it is on the disk. Where that fails, what
 * was there before is as it was.
 *
 * @throws {Error} "cannot write PATH: why"
 */
export function writeWhole(path: string, data: string | Uint8Array): void {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  try {
    const { place, mode } = placeOf(path);
    if (place === null) writeAll(path, bytes, {}); // a device or a pipe has no contents to lose
    else replace(place, bytes, mode);
  } catch (error) {
    throw new Error(`cannot write ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Appends to a file, and takes back what it could write of `text` if it cannot write all.
 *
 * @throws {Error} "cannot write PATH: why"
 */
export function appendWhole(path: string, text: string): void {
  try {
    using file = Deno.openSync(path, { append: true, create: true });
    const { size } = file.statSync();
    try {
      writeTo(file, new TextEncoder().encode(text));
    } catch (error) {
      file.truncateSync(size);
      throw error;
    }
  } catch (error) {
    throw new Error(`cannot write ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** Why the system refused something, without the path that it repeats. */
export function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or folder";
  const { message } = error as Error;
  const [, reason] = message.match(/^(.*?) \(os error \d+\)/) ?? [];
  return reason ? reason[0].toLowerCase() + reason.slice(1) : message;
}

/** Where a path leads, by its links, and the mode of what is there; null for what is no file. */
function placeOf(path: string): { place: string | null; mode?: number } {
  try {
    const { isFile, isDirectory, mode } = Deno.statSync(path);
    if (isDirectory) throw new Error("it is a folder");
    return { place: isFile ? Deno.realPathSync(path) : null, mode: (mode ?? 0o644) & 0o7777 };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { place: path };
  }
}

function replace(place: string, bytes: Uint8Array, mode?: number): void {
  const beside = join(dirname(place), `.${basename(place)}.${Deno.pid}.part`);
  try {
    writeAll(beside, bytes, { create: true, truncate: true });
    if (mode !== undefined) Deno.chmodSync(beside, mode);
    Deno.renameSync(beside, place);
  } catch (error) {
    try {
      Deno.removeSync(beside);
    } catch {
      // it was not made
    }
    throw error;
  }
}

function writeAll(path: string, bytes: Uint8Array, options: Deno.OpenOptions): void {
  using file = Deno.openSync(path, { ...options, write: true });
  writeTo(file, bytes);
  if (options.create) file.syncSync();
}

function writeTo(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.byteLength;) at += file.writeSync(bytes.subarray(at));
}
