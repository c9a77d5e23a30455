import { PC } from "../abi/boot/e820.ts";
import { e820 } from "./e820.ts";
import { bootGdt, protected32, realMode, reset } from "./entry.ts";
import { sizeText } from "./errors.ts";
import { failer, type LoadedGuest, type LoadOptions } from "./load.ts";
import { Placement } from "./placement.ts";

/** How a flat image is entered, and where it lies (guest-physical, in bytes). */
export interface FlatOptions extends Pick<LoadOptions, "memory" | "kernel" | "e820"> {
  readonly address: number;
  /** Real mode at address:0000 (a multiple of 16 below 1 MB), or flat 32-bit. */
  readonly mode: "real" | "protected32";
  /** Where execution begins; by default at `address`. */
  readonly entry?: number;
}

/**
 * Loads bytes as they are and enters them: in real mode with CS = address / 16, or in flat 32-bit
 * protected mode. The stack is the image's own affair.
 *
 * @throws {BuilderError} When it does not fit, or real mode cannot reach it.
 */
export function loadFlat(options: FlatOptions): LoadedGuest {
  const { memory, kernel, address } = options;
  const entry = options.entry ?? address;
  const fail = failer(kernel.file);
  if (kernel.bytes.length === 0) throw fail("size", "0 bytes", "an image");
  if (entry < address || entry >= address + kernel.bytes.length) {
    throw fail("entry", entry, `an address in the image at ${address}`);
  }
  if (
    options.mode === "real" &&
    (address % 16 !== 0 || address >= 0x100000 || entry - address > 0xffff)
  ) {
    throw fail("address", address, "a multiple of 16 below 1 MB, entered in its first 64 KB");
  }
  const map = options.e820 ?? e820(memory.size);
  const place = new Placement(memory, map, kernel.file);
  place.put(kernel.file, address, kernel.bytes);
  const common = { format: "flat" as const, e820: map, regions: place.regions };
  if (options.mode === "real") {
    return { ...common, entry: realMode({ cs: address / 16, ip: entry - address }) };
  }
  const gdt = place.place("GDT", bootGdt("32"), { below: PC.ebda });
  const gdtr = { base: BigInt(gdt), limit: 31 };
  return { ...common, entry: protected32({ rip: BigInt(entry), gdtr }) };
}

/** The largest ROM that fits between the video memory and 1 MB. */
const ROM_MAX = 0x20000;

/**
 * Loads a ROM image so that it ends at 1 MB, and enters it at reset: CS base FFFF0000h, IP FFF0h.
 * The same bytes must be readable below 4 GB: see `aliases`.
 *
 * @throws {BuilderError} When the image is no multiple of 64 KB or too large.
 */
export function loadRom(options: Pick<LoadOptions, "memory" | "kernel" | "e820">): LoadedGuest {
  const { memory, kernel } = options;
  const size = kernel.bytes.length;
  if (size === 0 || size % 0x10000 !== 0 || size > ROM_MAX) {
    throw failer(kernel.file)("ROM size", sizeText(size), "64 KB or 128 KB");
  }
  const map = options.e820 ?? e820(memory.size);
  const start = PC.highMemory - size;
  memory.write(start, kernel.bytes);
  return {
    format: "rom",
    entry: reset(),
    e820: map,
    regions: [{ what: kernel.file, start, end: PC.highMemory }],
    aliases: [{ start: PC.fourGigabytes - size, end: PC.fourGigabytes, target: start }],
  };
}
