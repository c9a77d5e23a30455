/**
 * What all loaders of images take and give.
 *
 * @module
 */
import { basename } from "node:path";
import type { BootName } from "../abi/boot/images.ts";
import type { InitialState } from "./entry.ts";
import type { E820Range } from "./e820.ts";
import { BuilderError, hex } from "./errors.ts";
import type { GuestMemory, Region } from "./placement.ts";

/** A file's bytes and the name under which messages speak of it. */
export interface NamedBytes {
  readonly file: string;
  readonly bytes: Uint8Array;
}

/** A file that a multiboot or PVH kernel is given beside its ramdisk, and the text with it. */
export interface BootModule extends NamedBytes {
  readonly cmdline?: string;
}

/** What every loader takes. */
export interface LoadOptions {
  readonly memory: GuestMemory;
  readonly kernel: NamedBytes;
  readonly ramdisk?: NamedBytes;
  /** Behind the ramdisk, if there is one, in the kernel's list of modules. */
  readonly modules?: readonly BootModule[];
  readonly cmdline?: string;
  /** Guest-physical address of the ACPI RSDP, when there are tables. */
  readonly rsdp?: number;
  /** The memory map; by default the one of a PC with `memory.size` bytes. */
  readonly e820?: readonly E820Range[];
}

/** A range that must read the same as another: the ROM below 4 GB. */
export interface Alias {
  readonly start: number;
  readonly end: number;
  /** Where the bytes really are. */
  readonly target: number;
}

/** What a loader made: how the first processor begins, and what lies where. */
export interface LoadedGuest {
  readonly boot: BootName;
  readonly entry: InitialState;
  /** The 64-bit entry of a bzImage, prepared and not used by default. */
  readonly entry64?: InitialState;
  readonly e820: readonly E820Range[];
  readonly regions: readonly Region[];
  readonly aliases?: readonly Alias[];
}

/** Bytes of a text with its terminating zero. */
export function cString(text: string): Uint8Array {
  return new TextEncoder().encode(text + "\0");
}

/**
 * The text that names an image and gives it arguments, as multiboot loaders write it: the first word
 * is the file's name, which kernels skip. Blanks in it would make arguments of its rest.
 */
export function imageText(file: string, cmdline = ""): string {
  return `${basename(file).replace(/\s/g, "_")} ${cmdline}`.trimEnd();
}

/** Refuses a command line longer than a kernel takes. */
export function checkCmdline(cmdline: string, limit: number, file: string): Uint8Array {
  const bytes = cString(cmdline);
  if (cmdline.includes("\0") || bytes.length - 1 > limit) {
    throw new BuilderError({
      file,
      field: "command line",
      given: cmdline.includes("\0") ? "text with a NUL" : `${bytes.length - 1} bytes long`,
      expected: `at most ${limit} bytes without NUL`,
    });
  }
  return bytes;
}

/** An error about a file's field, the way loaders make many of them. */
export function failer(file: string) {
  return (field: string, given: string | number | bigint, expected: string): BuilderError =>
    new BuilderError({
      file,
      field,
      given: typeof given === "string" ? given : hex(given),
      expected,
    });
}
