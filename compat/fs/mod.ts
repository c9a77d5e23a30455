/**
 * Stand-in for `jsr:@std/fs` where JSR cannot be reached: the same names, signatures and meaning for
 * the part of the package that xvm uses, over Deno's own file API and `node:fs`.
 *
 * @module
 */
export { copy, type CopyOptions, move, type MoveOptions } from "./copy.ts";
export { emptyDir, ensureDir, ensureDirSync } from "./ensure_dir.ts";
export { exists, type ExistsOptions, existsSync } from "./exists.ts";
export { walk, type WalkEntry, type WalkOptions, walkSync } from "./walk.ts";
