/**
 * Kernels that ask for multiboot 1: their header, how they are loaded, and the information they get.
 *
 * @module
 */
import { fixed, sizeOf } from "../abi/layout.ts";
import { E820_TYPE, PC } from "../abi/boot/e820.ts";
import {
  MULTIBOOT2_HEADER,
  MULTIBOOT2_HEADER_MAGIC,
  MULTIBOOT2_SEARCH,
  MULTIBOOT_ADDRESSES,
  MULTIBOOT_FIRST,
  MULTIBOOT_HEADER,
  MULTIBOOT_HEADER_MAGIC,
  MULTIBOOT_INFO,
  MULTIBOOT_INFO_FLAG,
  MULTIBOOT_KNOWN_FLAGS,
  MULTIBOOT_LOADER_MAGIC,
  MULTIBOOT_MMAP_ENTRY,
  MULTIBOOT_MODULE,
  MULTIBOOT_SEARCH,
} from "../abi/boot/multiboot.ts";
import { e820, type E820Range, splitMemory } from "./e820.ts";
import { isElf, physicalEntry, placeElf, readElf } from "./elf.ts";
import { bootGdt, protected32 } from "./entry.ts";
import { hex } from "./errors.ts";
import {
  type BootModule,
  checkCmdline,
  cString,
  failer,
  imageText,
  type LoadedGuest,
  type LoadOptions,
  type NamedBytes,
} from "./load.ts";
import { Placement } from "./placement.ts";

/** A multiboot header and where in the file it stands. */
export interface MultibootHeader {
  readonly at: number;
  readonly flags: number;
}

const FIRST = sizeOf(MULTIBOOT_FIRST, 64), SECOND = sizeOf(MULTIBOOT2_HEADER, 64);

/** Finds a multiboot 1 header: magic, flags and checksum that add up to 0, in the first 8 KB. */
export function findMultiboot(image: Uint8Array): MultibootHeader | undefined {
  for (let at = 0; at + FIRST <= Math.min(image.length, MULTIBOOT_SEARCH); at += 4) {
    const h = fixed(MULTIBOOT_FIRST, image, at);
    if (h.get("magic") !== MULTIBOOT_HEADER_MAGIC) continue;
    const sum = (h.get("magic") + h.get("flags") + h.get("checksum")) % 2 ** 32;
    if (sum === 0) return { at, flags: h.get("flags") };
  }
}

/** Whether a file has a multiboot 2 header. */
export function isMultiboot2(image: Uint8Array): boolean {
  for (let at = 0; at + SECOND <= Math.min(image.length, MULTIBOOT2_SEARCH); at += 8) {
    const h = fixed(MULTIBOOT2_HEADER, image, at);
    if (h.get("magic") !== MULTIBOOT2_HEADER_MAGIC) continue;
    const sum = h.get("magic") + h.get("arch") + h.get("length") + h.get("checksum");
    if (sum % 2 ** 32 === 0) return true;
  }
  return false;
}

/**
 * Loads an image by Multiboot 1: the ELF segments, or the range its address fields name; EAX holds
 * the loader's magic, EBX points at the information (memory sizes and map, command line, modules).
 * The ramdisk becomes module 0, other modules follow. The first word of a command line is the file's
 * name, as other loaders do it.
 *
 * @throws {BuilderError} On a bad header, unknown required flags, a 64-bit ELF, too little memory.
 */
export function loadMultiboot(options: LoadOptions): LoadedGuest {
  const { memory, kernel } = options;
  const fail = failer(kernel.file);
  const header = findMultiboot(kernel.bytes);
  if (!header) {
    throw fail("multiboot header", "absent", `${hex(MULTIBOOT_HEADER_MAGIC)} in the first 8 KB`);
  }
  if (header.flags & 0xffff & ~MULTIBOOT_KNOWN_FLAGS) {
    throw fail("multiboot flags", header.flags, "no required feature beyond bits 0 to 2");
  }
  const map = options.e820 ?? e820(memory.size);
  const place = new Placement(memory, map, kernel.file);
  const rip = header.flags & MULTIBOOT_ADDRESSES
    ? placeByAddresses(kernel, header, place)
    : placeByElf(kernel, place);
  const info = makeInfo(options, map, place);
  const low = { below: PC.ebda, align: 16 };
  const gdt = place.place("GDT", bootGdt("32"), low);
  return {
    boot: "multiboot",
    entry: protected32({
      rip,
      regs: { rax: BigInt(MULTIBOOT_LOADER_MAGIC), rbx: BigInt(info) },
      gdtr: { base: BigInt(gdt), limit: 31 },
    }),
    e820: map,
    regions: place.regions,
  };
}

function placeByElf(kernel: NamedBytes, place: Placement): bigint {
  const fail = failer(kernel.file);
  if (!isElf(kernel.bytes)) {
    throw fail("multiboot flags", "without addresses in a file that is no ELF", "bit 16 set");
  }
  const elf = readElf(kernel.bytes, kernel.file);
  if (elf.bits !== 32) throw fail("ELF class", "64-bit", "32-bit for multiboot 1");
  const entry = physicalEntry(elf);
  placeElf(elf, place);
  return entry;
}

/** Multiboot Specification 3.1.3: the header's address fields. */
function placeByAddresses(kernel: NamedBytes, header: MultibootHeader, place: Placement): bigint {
  const fail = failer(kernel.file);
  if (header.at + 32 > kernel.bytes.length) throw fail("multiboot header", "cut off", "32 bytes");
  const h = fixed(MULTIBOOT_HEADER, kernel.bytes, header.at);
  const load = h.get("load_addr");
  const offset = header.at - (h.get("header_addr") - load);
  if (offset < 0 || load > h.get("header_addr")) {
    throw fail(
      "header_addr",
      h.get("header_addr"),
      `load_addr ${hex(load)} plus at most ${header.at}`,
    );
  }
  const loadEnd = h.get("load_end_addr") || load + kernel.bytes.length - offset;
  const size = loadEnd - load;
  if (size <= 0 || offset + size > kernel.bytes.length) {
    throw fail(
      "load_end_addr",
      loadEnd,
      `within the file (up to ${hex(load + kernel.bytes.length - offset)})`,
    );
  }
  const end = h.get("bss_end_addr") || loadEnd;
  if (end < loadEnd) throw fail("bss_end_addr", end, `at least load_end_addr ${hex(loadEnd)}`);
  const entry = h.get("entry_addr");
  if (entry < load || entry >= loadEnd) {
    throw fail(
      "entry_addr",
      entry,
      `an address from ${hex(load)} to ${hex(loadEnd - 1)}, the file's`,
    );
  }
  place.put("kernel", load, kernel.bytes.subarray(offset, offset + size), end - load);
  return BigInt(entry);
}

function makeInfo(options: LoadOptions, map: readonly E820Range[], place: Placement): number {
  const { kernel, ramdisk } = options;
  const low = { below: PC.ebda, align: 16 };
  const text = imageText(kernel.file, options.cmdline);
  const cmdline = place.place("command line", checkCmdline(text, 0xffff, kernel.file), low);
  const mmap = memoryMap(map);
  const modules = [...(ramdisk ? [ramdisk] : []), ...options.modules ?? []];
  const flag = MULTIBOOT_INFO_FLAG;
  const bytes = new Uint8Array(sizeOf(MULTIBOOT_INFO, 64));
  fixed(MULTIBOOT_INFO, bytes).setAll({
    flags: flag.memory | flag.cmdline | flag.modules | flag.mmap | flag.loaderName,
    mem_lower: PC.ebda / 1024 | 0,
    mem_upper: (splitMemory(options.memory.size).low - PC.highMemory) / 1024,
    cmdline,
    mods_count: modules.length,
    mods_addr: modules.length > 0 ? placeModules(modules, place) : 0,
    mmap_length: mmap.length,
    mmap_addr: place.place("memory map", mmap, low),
    boot_loader_name: place.place("loader name", cString("xvm"), low),
  });
  return place.place("multiboot information", bytes, low);
}

/** Modules on page boundaries above 1 MB, their texts and the list of them below. */
function placeModules(modules: readonly BootModule[], place: Placement): number {
  const low = { below: PC.ebda, align: 16 };
  const list = new Uint8Array(modules.length * sizeOf(MULTIBOOT_MODULE, 64));
  modules.forEach(({ file, bytes, cmdline }, i) => {
    const start = place.place(`module ${i}`, bytes, { from: PC.highMemory, align: 4096 });
    const text = checkCmdline(imageText(file, cmdline), 0xffff, file);
    fixed(MULTIBOOT_MODULE, list, i * sizeOf(MULTIBOOT_MODULE, 64)).setAll({
      mod_start: start,
      mod_end: start + bytes.length,
      string: place.place(`text of module ${i}`, text, low),
    });
  });
  return place.place("module list", list, low);
}

function memoryMap(map: readonly E820Range[]): Uint8Array {
  const bytes = new Uint8Array(map.length * sizeOf(MULTIBOOT_MMAP_ENTRY, 64));
  map.forEach(({ base, length, type }, i) => {
    fixed(MULTIBOOT_MMAP_ENTRY, bytes, i * sizeOf(MULTIBOOT_MMAP_ENTRY, 64)).setAll({
      size: sizeOf(MULTIBOOT_MMAP_ENTRY, 64) - 4,
      base,
      length,
      type: E820_TYPE[type],
    });
  });
  return bytes;
}
