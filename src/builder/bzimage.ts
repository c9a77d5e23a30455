/**
 * Linux's bzImage: its setup header, and how it is loaded and entered by the boot protocol.
 *
 * @module
 */
import { fixed, type View } from "../abi/layout.ts";
import {
  BOOT_FLAG,
  DEFAULT_LOAD_ADDRESS,
  ENTRY_64_OFFSET,
  HEADER_MAGIC,
  LOADED_HIGH,
  SETUP_HEADER,
  SETUP_HEADER_AT,
  XLF_KERNEL_64,
} from "../abi/boot/boot_params.ts";
import { PC } from "../abi/boot/e820.ts";
import { PE } from "../abi/boot/pe.ts";
import { makeBootParams } from "./boot_params.ts";
import { e820 } from "./e820.ts";
import { bootGdt, type InitialState, long64, protected32 } from "./entry.ts";
import { counted, hex, sizeText } from "./errors.ts";
import { identityTables } from "./identity.ts";
import { checkCmdline, failer, type LoadedGuest, type LoadOptions } from "./load.ts";
import { placeRamdisk } from "./ramdisk.ts";
import { Placement } from "./placement.ts";

/** The setup header of a bzImage, checked. Addresses and sizes in bytes. */
export interface BzImageHeader {
  /** Boot protocol, 0x20C for 2.12. */
  readonly protocol: number;
  /** Bytes of real-mode code before the kernel proper, boot sector included. */
  readonly setupSize: number;
  /** The kernel's own text about its version, when it has one. */
  readonly version?: string;
  readonly relocatable: boolean;
  readonly alignment: number;
  readonly prefAddress: number;
  /** Linear memory needed from the load address on until the kernel reads the map. */
  readonly initSize: number;
  readonly initrdMax: number;
  readonly cmdlineMax: number;
  /** Whether there is a 64-bit entry. */
  readonly entry64: boolean;
  /** The header's bytes from 0x1F1. */
  readonly bytes: Uint8Array;
}

/** Whether a file has a Linux setup header. */
export function isBzImage(image: Uint8Array): boolean {
  if (image.length < 0x270) return false;
  return fixed(SETUP_HEADER, image).get("header") === HEADER_MAGIC;
}

/**
 * Reads and checks the setup header of a bzImage.
 *
 * Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
 *
 * @throws {BuilderError} Naming the field that is wrong.
 */
function readBzImageHeader(image: Uint8Array, file: string): BzImageHeader {
  const fail = failer(file);
  if (image.length < 0x270) throw fail("size", counted(image.length, "byte"), "a bzImage");
  const h = fixed(SETUP_HEADER, image);
  if (h.get("boot_flag") !== BOOT_FLAG) throw fail("boot_flag", h.get("boot_flag"), hex(BOOT_FLAG));
  if (h.get("header") !== HEADER_MAGIC) {
    throw fail("header magic", h.get("header"), `${hex(HEADER_MAGIC)} ("HdrS"): a Linux bzImage`);
  }
  const protocol = h.get("version");
  if (protocol < 0x206 || protocol >= 0x300) {
    throw fail("version (boot protocol)", protocol, "0x206 to 0x2ff");
  }
  if (!(h.get("loadflags") & LOADED_HIGH)) {
    throw fail("loadflags", h.get("loadflags"), "LOADED_HIGH (bit 0): a bzImage, not a zImage");
  }
  const headerEnd = 0x202 + (h.get("jump") >> 8);
  if (headerEnd < 0x23c || headerEnd > 0x290) {
    throw fail("jump (length of the setup header)", headerEnd, "an end from 0x23c to 0x290");
  }
  const setupSize = ((h.get("setup_sects") || 4) + 1) * 512;
  const kernelSize = h.get("syssize") * 16;
  if (setupSize >= image.length) {
    throw fail(
      "setup_sects",
      h.get("setup_sects"),
      `less than the file's ${counted(image.length, "byte")}`,
    );
  }
  // Builds before 2.08, which brought the CRC at the end, did not fill the last 16 bytes.
  const least = setupSize + kernelSize - (protocol >= 0x208 ? 0 : 15);
  if (kernelSize === 0 || image.length < least) {
    throw fail(
      "size",
      `${counted(image.length, "byte")} (cut off?)`,
      `${counted(setupSize + kernelSize, "byte")} by setup_sects and syssize`,
    );
  }
  const signed = signatureEnd(image);
  if (image.length < signed) {
    throw fail(
      "size",
      `${counted(image.length, "byte")} (cut off?)`,
      `${counted(signed, "byte")} with its signature`,
    );
  }
  return { ...limits(h, protocol, kernelSize, fail), ...texts(image, h, headerEnd), setupSize };
}

/** Where the certificates end that a signed kernel, an EFI image too, has behind it; 0 without them. */
function signatureEnd(image: Uint8Array): number {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const pe = view.getUint32(PE.headerAt, true);
  if (view.getUint16(0, true) !== PE.dosMagic || pe + PE.optional + 160 > image.length) return 0;
  if (view.getUint32(pe, true) !== PE.magic) return 0;
  const wide = view.getUint16(pe + PE.optional, true) === PE.wide;
  const entry = pe + PE.optional + (wide ? PE.certificates64 : PE.certificates32);
  return view.getUint32(entry, true) + view.getUint32(entry + 4, true);
}

type Header = View<typeof SETUP_HEADER["fields"]>;

/** The fields that say where things may go; older protocols lack some. */
function limits(
  h: Header,
  protocol: number,
  kernelSize: number,
  fail: ReturnType<typeof failer>,
) {
  const alignment = protocol >= 0x205 ? h.get("kernel_alignment") : 0;
  const relocatable = h.get("relocatable_kernel") !== 0;
  if (relocatable && (alignment < 0x1000 || (alignment & (alignment - 1)) !== 0)) {
    throw fail("kernel_alignment", alignment, "a power of 2, at least 0x1000");
  }
  const pref = protocol >= 0x20a ? Number(h.get("pref_address")) : DEFAULT_LOAD_ADDRESS;
  if (pref < PC.highMemory || pref >= PC.lowRamEnd || (relocatable && pref % alignment !== 0)) {
    throw fail("pref_address", pref, `an aligned address from 0x100000 to ${hex(PC.lowRamEnd)}`);
  }
  const initSize = protocol >= 0x20a ? h.get("init_size") : kernelSize * 4;
  if (initSize < kernelSize) {
    throw fail("init_size", initSize, `at least the kernel's ${hex(kernelSize)}`);
  }
  const initrdMax = h.get("initrd_addr_max");
  if (initrdMax < PC.highMemory) throw fail("initrd_addr_max", initrdMax, "above 0x100000");
  return {
    protocol,
    relocatable,
    alignment,
    prefAddress: pref,
    initSize,
    initrdMax,
    cmdlineMax: h.get("cmdline_size") || 255,
    entry64: protocol >= 0x20c && (h.get("xloadflags") & XLF_KERNEL_64) !== 0,
  };
}

function texts(image: Uint8Array, h: Header, headerEnd: number) {
  const bytes = image.slice(SETUP_HEADER_AT, headerEnd);
  const at = h.get("kernel_version") + 0x200;
  if (at === 0x200 || at >= image.length) return { bytes };
  const end = image.indexOf(0, at);
  const text = new TextDecoder("latin1").decode(image.subarray(at, Math.min(end, at + 200)));
  return { bytes, version: text };
}

/**
 * Loads a bzImage by the 32-bit boot protocol: the protected-mode kernel at its preferred address,
 * the ramdisk as high as `initrd_addr_max` allows, boot_params, command line and a GDT in
 * conventional memory; ESI points at boot_params. Where the kernel has a 64-bit entry, `entry64`
 * is prepared as well, over identity page tables of 4 GB.
 *
 * @throws {BuilderError} On a bad image, a bad ramdisk or too little memory, saying how much is
 *   needed.
 */
export function loadBzImage(options: LoadOptions): LoadedGuest {
  const { memory, kernel, ramdisk } = options;
  const header = readBzImageHeader(kernel.bytes, kernel.file);
  const cmdline = checkCmdline(options.cmdline ?? "", header.cmdlineMax, kernel.file);
  const map = options.e820 ?? e820(memory.size);
  requireMemory(header, options);
  const place = new Placement(memory, map, kernel.file);
  const load = header.prefAddress;
  const code = kernel.bytes.subarray(header.setupSize);
  place.claim("kernel", load, header.initSize);
  memory.write(load, code);
  const ramdiskAt = placeRamdisk(place, ramdisk, header.initrdMax);
  const params = makeBootParams({
    e820: map,
    cmdline: place.place("command line", cmdline, { below: PC.ebda, align: 4096 }),
    ramdisk: ramdiskAt,
    rsdp: options.rsdp,
    header: header.bytes,
  });
  fixed(SETUP_HEADER, params).set("code32_start", load);
  const zeroPage = place.place("boot_params", params, { below: PC.ebda, align: 4096 });
  return {
    boot: "bzImage",
    entry: linuxEntry32(place, load, zeroPage),
    ...(header.entry64 && { entry64: linuxEntry64(place, load + ENTRY_64_OFFSET, zeroPage) }),
    e820: map,
    regions: place.regions,
  };
}

/** The 32-bit entry of Linux: flat protected mode, ESI = boot_params, the rest zero. */
export function linuxEntry32(place: Placement, rip: number, bootParams: number): InitialState {
  const gdt = place.place("GDT", bootGdt("32"), { below: PC.ebda });
  return protected32({
    rip: BigInt(rip),
    regs: { rsi: BigInt(bootParams) },
    gdtr: { base: BigInt(gdt), limit: 31 },
  });
}

/** The 64-bit entry of Linux: long mode over identity page tables, RSI = boot_params. */
export function linuxEntry64(place: Placement, rip: number, bootParams: number): InitialState {
  const gdt = place.place("64-bit GDT", bootGdt("64"), { below: PC.ebda });
  return long64({
    rip: BigInt(rip),
    regs: { rsi: BigInt(bootParams) },
    gdtr: { base: BigInt(gdt), limit: 31 },
    cr3: BigInt(identityTables(place)),
  });
}

/** Says how much memory the kernel and its ramdisk need, before anything is placed. */
function requireMemory(header: BzImageHeader, { memory, kernel, ramdisk }: LoadOptions): void {
  const kernelEnd = header.prefAddress + header.initSize;
  const ramdiskSize = Math.ceil((ramdisk?.bytes.length ?? 0) / 4096) * 4096;
  const needed = Math.ceil((kernelEnd + ramdiskSize) / (1 << 20)) * (1 << 20);
  if (memory.size >= needed) return;
  throw failer(kernel.file)(
    "memory",
    sizeText(memory.size),
    `at least ${sizeText(needed)}: the kernel takes ${sizeText(header.initSize)} from ` +
      `${hex(header.prefAddress)}` + (ramdisk ? `, the ramdisk ${sizeText(ramdiskSize)}` : ""),
  );
}
