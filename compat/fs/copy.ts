import { cp, rename, rm } from "node:fs/promises";
import { existsSync } from "node:fs";

/** What {@linkcode copy} may be told. */
export interface CopyOptions {
  /** Whether what is there already may be overwritten. */
  overwrite?: boolean;
  /** Whether the copy gets the times of the original. */
  preserveTimestamps?: boolean;
}

/** Copies a file or a folder; refuses an existing target unless told to overwrite. */
export async function copy(
  src: string | URL,
  dest: string | URL,
  options: CopyOptions = {},
): Promise<void> {
  if (!options.overwrite && existsSync(dest)) {
    throw new Deno.errors.AlreadyExists(`'${dest}' already exists.`);
  }
  await cp(src, dest, { recursive: true, ...options, force: options.overwrite ?? false });
}

/** What {@linkcode move} may be told. */
export interface MoveOptions {
  /** Whether what is there already may be replaced. */
  overwrite?: boolean;
}

/** Renames a file or a folder; refuses an existing target unless told to overwrite. */
export async function move(
  src: string | URL,
  dest: string | URL,
  { overwrite = false }: MoveOptions = {},
): Promise<void> {
  if (overwrite) await rm(dest, { recursive: true, force: true });
  else if (existsSync(dest)) throw new Deno.errors.AlreadyExists(`dest already exists: ${dest}`);
  await rename(src, dest);
}
