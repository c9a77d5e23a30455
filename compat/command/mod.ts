/**
 * Stand-in for `jsr:@cliffy/command` where JSR cannot be reached: the same names, signatures and
 * meaning for the part of the package that xvm uses, over npm's `commander`.
 *
 * @module
 */
export { Command, type CommandResult } from "./command.ts";
export { EnumType, Type, ValidationError } from "./types.ts";
