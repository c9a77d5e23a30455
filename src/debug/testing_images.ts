/** Small multiboot guests for tests, and every way to run them. */
import { MULTIBOOT_ADDRESSES, MULTIBOOT_HEADER_MAGIC } from "../abi/boot/multiboot.ts";
import { assemble } from "../machine/isa/encode.ts";
import type { GuestDomain } from "./domain.ts";
import { Hypervisor } from "./hypervisor.ts";

/** Processor, type and paging: every way there is. */
export const WAYS = [
  ["intel", "bare", "hap"],
  ["amd", "bare", "hap"],
  ["intel", "hvm", "hap"],
  ["intel", "hvm", "shadow"],
  ["amd", "hvm", "hap"],
  ["amd", "hvm", "shadow"],
] as const;

/** A multiboot image from 32-bit code, at 1 MB if nothing else is asked for. */
export function multibootImage(code: string, origin = 0x100000): Uint8Array {
  const flags = MULTIBOOT_ADDRESSES;
  return assemble(
    `
    bits 32
    org ${origin}
    header:
      dd ${MULTIBOOT_HEADER_MAGIC}, ${flags}, ${-(MULTIBOOT_HEADER_MAGIC + flags) >>> 0}
      dd header, header, 0, 0, start
    start:
      ${code}`,
    { mode: 32 },
  ).bytes;
}

/** Runs an image to its end, with a clock that begins at 10:00. */
export async function runImage(
  kernel: Uint8Array,
  [cpu, type, paging]: typeof WAYS[number],
): Promise<{ dom: GuestDomain; end: string }> {
  const hv = await Hypervisor.start({ cpu, memory: "64M", unixTime: 3600 * 10 });
  const dom = await hv.createDomain({ type, paging, kernel, memory: "8M" });
  await dom.unpause();
  const { reason, detail } = await dom.ended;
  return { dom, end: `${reason} (${detail})` };
}

/** A ROM of 64 KB that begins with 16-bit code. */
export function romImage(code: string): Uint8Array {
  const rom = new Uint8Array(0x10000);
  rom.set(assemble(code, { mode: 16 }).bytes);
  rom.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return rom;
}
