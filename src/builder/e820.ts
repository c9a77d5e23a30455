/**
 * The memory map of a guest: where a PC has RAM, and where holes.
 *
 * @module
 */
import { fixed, sizeOf } from "../abi/layout.ts";
import { E820_ENTRY, E820_TYPE, PC, XEN_SPECIAL } from "../abi/boot/e820.ts";
import { GUEST_MEMORY } from "../abi/limits.ts";
import { BuilderError, sizeText } from "./errors.ts";

/** A range of guest-physical addresses (bytes) and what it is. */
export interface E820Range {
  readonly base: number;
  readonly length: number;
  readonly type: keyof typeof E820_TYPE;
}

/** RAM below and above 4 GB for a memory size in bytes. */
export function splitMemory(size: number): { low: number; high: number } {
  const low = Math.min(size, PC.lowRamEnd);
  return { low, high: size - low };
}

/**
 * The memory map of a PC with `size` bytes of RAM: conventional memory to the extended BIOS data
 * area, the hole for video, firmware tables to 1 MB, RAM from there, and the APICs' and ROM's
 * place below 4 GB. RAM beyond 3 GB lies above 4 GB.
 *
 * @param xen with the place of the pages that Xen shares with its guests
 * @throws {BuilderError} For less than 2 MB, or a size that is no multiple of 4 KB.
 */
export function e820(size: number, xen = false): E820Range[] {
  if (!Number.isSafeInteger(size) || size < GUEST_MEMORY.min || size % 4096 !== 0) {
    throw new BuilderError({
      file: "memory",
      field: "size",
      given: `${size} bytes`,
      expected: `a multiple of 4 KB, at least ${sizeText(GUEST_MEMORY.min)}`,
    });
  }
  const { low, high } = splitMemory(size);
  const map: E820Range[] = [
    { base: 0, length: PC.ebda, type: "ram" },
    { base: PC.ebda, length: PC.conventionalEnd - PC.ebda, type: "reserved" },
    { base: PC.bios, length: PC.highMemory - PC.bios, type: "reserved" },
    { base: PC.highMemory, length: low - PC.highMemory, type: "ram" },
    { base: PC.ioApic, length: 0x1000, type: "reserved" },
    { base: PC.localApic, length: 0x1000, type: "reserved" },
    ...xen ? [{ base: XEN_SPECIAL.base, length: XEN_SPECIAL.size, type: "reserved" } as const] : [],
    { base: PC.romAlias, length: 0x10000, type: "reserved" },
  ];
  if (high > 0) map.push({ base: PC.fourGigabytes, length: high, type: "ram" });
  return map;
}

/** The map as the BIOS call returns it: 20 bytes an entry. */
export function encodeE820(map: readonly E820Range[]): Uint8Array {
  const bytes = new Uint8Array(map.length * sizeOf(E820_ENTRY, 64));
  map.forEach(({ base, length, type }, i) => {
    fixed(E820_ENTRY, bytes, i * sizeOf(E820_ENTRY, 64))
      .setAll({ base, length, type: E820_TYPE[type] });
  });
  return bytes;
}
