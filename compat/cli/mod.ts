/**
 * Stand-in for `jsr:@std/cli` where JSR cannot be reached: {@linkcode parseArgs} with the same
 * meaning for the part of it that xvm uses.
 *
 * @module
 */
export { type Args, parseArgs, type ParseOptions } from "./parse_args.ts";
