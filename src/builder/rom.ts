/**
 * ROM images in place of a kernel: they end at 1 MB and are entered as by a reset.
 *
 * @module
 */
import { PC } from "../abi/boot/e820.ts";
import { e820 } from "./e820.ts";
import { reset } from "./entry.ts";
import { sizeText } from "./errors.ts";
import { failer, type LoadedGuest, type LoadOptions } from "./load.ts";

/** The sizes of ROMs that end at 1 MB, above the video memory and its adapter's ROM. */
const ROM_SIZES = [0x10000, 0x20000];

/**
 * Loads a ROM image so that it ends at 1 MB, and enters it at reset: CS base FFFF0000h, IP FFF0h.
 * The same bytes must be readable below 4 GB: see `aliases`.
 *
 * @throws {BuilderError} When the image is of another size than 64 or 128 KB.
 */
export function loadRom(options: Pick<LoadOptions, "memory" | "kernel" | "e820">): LoadedGuest {
  const { memory, kernel } = options;
  const size = kernel.bytes.length;
  if (!ROM_SIZES.includes(size)) {
    throw failer(kernel.file)("ROM size", sizeText(size), "64 KB or 128 KB");
  }
  const map = options.e820 ?? e820(memory.size);
  const start = PC.highMemory - size;
  memory.write(start, kernel.bytes);
  return {
    boot: "rom",
    entry: reset(),
    e820: map,
    regions: [{ what: kernel.file, start, end: PC.highMemory }],
    aliases: [{ start: PC.fourGigabytes - size, end: PC.fourGigabytes, target: start }],
  };
}

/** A ROM has a jump at its reset vector, 16 bytes before its end. */
export function isRom(bytes: Uint8Array): boolean {
  return ROM_SIZES.includes(bytes.length) && [0xea, 0xe9, 0xeb].includes(bytes[bytes.length - 16]);
}
