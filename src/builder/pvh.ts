/**
 * Kernels with Xen's PVH note: how they are loaded, and the hvm_start_info they get.
 *
 * @module
 */
import { fixed, sizeOf, View } from "../abi/layout.ts";
import { PC } from "../abi/boot/e820.ts";
import {
  HVM_MEMMAP_TABLE_ENTRY,
  HVM_MODLIST_ENTRY,
  HVM_START_INFO,
  XEN_HVM_START_MAGIC_VALUE,
} from "../abi/xen/hvm/start_info.ts";
import { E820_TYPE } from "../abi/boot/e820.ts";
import { ELF_WORD } from "../abi/boot/elf.ts";
import { XEN_ELFNOTE } from "../abi/xen/elfnote.ts";
import { e820, type E820Range } from "./e820.ts";
import { type ElfFile, elfNotes, inSegments, placeElf, readElf } from "./elf.ts";
import { bootGdt, protected32 } from "./entry.ts";
import { checkCmdline, failer, type LoadedGuest, type LoadOptions } from "./load.ts";
import { Placement } from "./placement.ts";
import { placeRamdisk } from "./ramdisk.ts";
import { LINUX_CMDLINE_MAX } from "./vmlinux.ts";

/**
 * The physical entry point of a PVH kernel: Xen's note 18 (XEN_ELFNOTE_PHYS32_ENTRY).
 *
 * @returns The address, or undefined when the kernel has no such note.
 */
export function pvhEntry(elf: ElfFile): bigint | undefined {
  const note = elfNotes(elf).find((n) =>
    n.name === "Xen" && n.type === XEN_ELFNOTE.PHYS32_ENTRY && n.desc.length >= 4
  );
  if (!note) return undefined;
  return new View(ELF_WORD, note.desc.length >= 8 ? 64 : 32, note.desc).get("value");
}

/**
 * Loads an ELF kernel by its PVH note: segments at their physical addresses, hvm_start_info with
 * memory map, command line, the ramdisk as module 0 and other modules behind it; EBX points at it. 32-bit protected mode,
 * paging off.
 *
 * @throws {BuilderError} Without the note, on a bad image or ramdisk, or too little memory.
 */
export function loadPvh(options: LoadOptions): LoadedGuest {
  const { memory, kernel } = options;
  const elf = readElf(kernel.bytes, kernel.file);
  const fail = failer(kernel.file);
  const entry = pvhEntry(elf);
  if (entry === undefined) throw fail("PVH note (Xen, 18)", "absent", "an entry address");
  if (entry >= BigInt(PC.fourGigabytes) || !inSegments(elf, entry)) {
    throw fail("PVH entry", entry, "an address below 4 GB in a loaded segment");
  }
  const cmdline = checkCmdline(options.cmdline ?? "", LINUX_CMDLINE_MAX, kernel.file);
  const map = options.e820 ?? e820(memory.size);
  const place = new Placement(memory, map, kernel.file);
  placeElf(elf, place);
  const modules = placeModules(place, options);
  const low = { below: PC.ebda, align: 4096 };
  const info = fixed(HVM_START_INFO).setAll({
    magic: XEN_HVM_START_MAGIC_VALUE,
    version: 1,
    nr_modules: modules.length,
    modlist_paddr: modules.length > 0 ? place.place("module list", moduleList(modules), low) : 0,
    cmdline_paddr: place.place("command line", cmdline, low),
    rsdp_paddr: options.rsdp ?? 0,
    memmap_paddr: place.place("memory map", memoryMap(map), low),
    memmap_entries: map.length,
  });
  const ebx = place.place("hvm_start_info", info.raw, low);
  const gdt = place.place("GDT", bootGdt("32"), low);
  return {
    boot: "pvh",
    entry: protected32({
      rip: entry,
      regs: { rbx: BigInt(ebx) },
      gdtr: { base: BigInt(gdt), limit: 31 },
    }),
    e820: map,
    regions: place.regions,
  };
}

interface PlacedModule {
  readonly at: number;
  readonly size: number;
  /** Where its command line is; 0 for none. */
  readonly cmdline: number;
}

/** The ramdisk, then the other modules, each as high as it can be. */
function placeModules(place: Placement, { ramdisk, modules = [] }: LoadOptions): PlacedModule[] {
  const first = placeRamdisk(place, ramdisk);
  const high = { from: PC.highMemory, align: 4096, high: true };
  const others = modules.map(({ file, bytes, cmdline }, i) => ({
    at: place.place(`module ${i + (first ? 1 : 0)}`, bytes, high),
    size: bytes.length,
    cmdline: cmdline === undefined
      ? 0
      : place.place(`text of a module`, checkCmdline(cmdline, 0xffff, file), { below: PC.ebda }),
  }));
  return first ? [{ ...first, cmdline: 0 }, ...others] : others;
}

function moduleList(modules: readonly PlacedModule[]): Uint8Array {
  const each = sizeOf(HVM_MODLIST_ENTRY, 64), bytes = new Uint8Array(modules.length * each);
  modules.forEach(({ at, size, cmdline }, i) => {
    fixed(HVM_MODLIST_ENTRY, bytes, i * each)
      .setAll({ paddr: at, size, cmdline_paddr: cmdline });
  });
  return bytes;
}

function memoryMap(map: readonly E820Range[]): Uint8Array {
  const each = sizeOf(HVM_MEMMAP_TABLE_ENTRY, 64), bytes = new Uint8Array(map.length * each);
  map.forEach(({ base, length, type }, i) => {
    fixed(HVM_MEMMAP_TABLE_ENTRY, bytes, i * each)
      .setAll({ addr: base, size: length, type: E820_TYPE[type] });
  });
  return bytes;
}
