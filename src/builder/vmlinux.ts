/**
 * Kernels without their decompressor: a vmlinux entered with boot_params.
 *
 * @module
 */
import { PC } from "../abi/boot/e820.ts";
import { makeBootParams } from "./boot_params.ts";
import { linuxEntry32, linuxEntry64 } from "./bzimage.ts";
import { e820 } from "./e820.ts";
import { physicalEntry, placeElf, readElf } from "./elf.ts";
import { checkCmdline, type LoadedGuest, type LoadOptions } from "./load.ts";
import { Placement } from "./placement.ts";
import { placeRamdisk } from "./ramdisk.ts";

/** The longest command line Linux takes on x86 (COMMAND_LINE_SIZE less its NUL). */
export const LINUX_CMDLINE_MAX = 2047;
/** The highest byte a 32-bit Linux can take a ramdisk at, as its bzImage's header would say. */
const INITRD_MAX_32 = 0x37ffffff;

/**
 * Loads a vmlinux without its decompressor: segments at their physical addresses, entered at the
 * ELF entry with boot_params in ESI (i386, paging off) or RSI (x86-64, identity page tables).
 *
 * @throws {BuilderError} On a bad image, a bad ramdisk or too little memory.
 */
export function loadVmlinux(options: LoadOptions): LoadedGuest {
  const { memory, kernel, ramdisk } = options;
  const elf = readElf(kernel.bytes, kernel.file);
  const cmdline = checkCmdline(options.cmdline ?? "", LINUX_CMDLINE_MAX, kernel.file);
  const entry = physicalEntry(elf);
  const map = options.e820 ?? e820(memory.size);
  const place = new Placement(memory, map, kernel.file);
  placeElf(elf, place);
  const ramdiskAt = placeRamdisk(place, ramdisk, elf.bits === 32 ? INITRD_MAX_32 : undefined);
  const params = makeBootParams({
    e820: map,
    cmdline: place.place("command line", cmdline, { below: PC.ebda, align: 4096 }),
    ramdisk: ramdiskAt,
    rsdp: options.rsdp,
  });
  const zeroPage = place.place("boot_params", params, { below: PC.ebda, align: 4096 });
  const enter = elf.bits === 32 ? linuxEntry32 : linuxEntry64;
  return {
    boot: "vmlinux",
    entry: enter(place, Number(entry), zeroPage),
    e820: map,
    regions: place.regions,
  };
}
