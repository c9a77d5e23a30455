/**
 * What the builder's tests share: memory that refuses what is outside RAM, and small images to load.
 *
 * @module
 */
import { type FieldValues, fixed, sizeOf, View } from "../abi/layout.ts";
import { BOOT_FLAG, HEADER_MAGIC, SETUP_HEADER, XLF_KERNEL_64 } from "../abi/boot/boot_params.ts";
import {
  ELF_HEADER,
  ELF_NOTE,
  ELF_PROGRAM,
  EM_386,
  EM_X86_64,
  PT_LOAD,
  PT_NOTE,
} from "../abi/boot/elf.ts";
import { MULTIBOOT_HEADER, MULTIBOOT_HEADER_MAGIC } from "../abi/boot/multiboot.ts";
import { e820 } from "./e820.ts";
import type { GuestMemory } from "./placement.ts";

/** Memory for tests: an array that refuses what is outside RAM or in the video hole. */
export class TestMemory implements GuestMemory {
  readonly bytes: Uint8Array;

  constructor(readonly size: number) {
    this.bytes = new Uint8Array(size);
  }

  write(gpa: number, bytes: Uint8Array): void {
    const end = gpa + bytes.length;
    const allowed = e820(this.size).some((r) =>
      r.base < this.size && gpa >= r.base && end <= r.base + r.length
    );
    if (!allowed && bytes.length > 0) {
      throw new Error(`write outside guest memory: ${gpa} to ${end}`);
    }
    this.bytes.set(bytes, gpa);
  }

  read(gpa: number, length: number): Uint8Array {
    if (gpa < 0 || gpa + length > this.size) throw new Error(`read outside guest memory: ${gpa}`);
    return this.bytes.slice(gpa, gpa + length);
  }

  text(gpa: number): string {
    return new TextDecoder().decode(this.bytes.subarray(gpa, this.bytes.indexOf(0, gpa)));
  }
}

/** A bzImage of a few kilobytes: one setup sector, `code` as its protected-mode kernel. */
export function tinyBzImage(
  code: Uint8Array = new Uint8Array(4096).fill(0x90),
  fields: FieldValues<typeof SETUP_HEADER["fields"]> = {},
): Uint8Array {
  const image = new Uint8Array(1024 + code.length);
  image.set(code, 1024);
  fixed(SETUP_HEADER, image).setAll({
    setup_sects: 1,
    syssize: Math.ceil(code.length / 16),
    boot_flag: BOOT_FLAG,
    jump: 0x6aeb, // over the header to 0x26c
    header: HEADER_MAGIC,
    version: 0x20f,
    loadflags: 1,
    code32_start: 0x100000,
    initrd_addr_max: 0x7fffffff,
    kernel_alignment: 0x100000,
    relocatable_kernel: 1,
    cmdline_size: 255,
    xloadflags: XLF_KERNEL_64,
    pref_address: 0x100000,
    init_size: 0x8000,
    ...fields,
  });
  return image;
}

/** What {@link tinyElf} puts into a file. */
export interface TinyElf {
  readonly bits?: 32 | 64;
  readonly entry?: number;
  readonly segments?: readonly {
    readonly paddr: number;
    /** `paddr` if not given. */
    readonly vaddr?: number;
    readonly bytes: Uint8Array;
    readonly memsz?: number;
  }[];
  /** A note segment's bytes: see {@link note}. */
  readonly notes?: Uint8Array;
}

/** An ELF executable with the given segments, and nothing else. */
export function tinyElf(options: TinyElf): Uint8Array {
  const { bits = 32 } = options, headerSize = sizeOf(ELF_HEADER, bits);
  const each = sizeOf(ELF_PROGRAM[bits], bits);
  const segments = options.segments ??
    [{ paddr: 0x100000, bytes: new Uint8Array(64).fill(0x90) }];
  const parts = [
    ...segments.map((s) => ({ ...s, type: PT_LOAD })),
    ...(options.notes
      ? [{ paddr: 0, vaddr: 0, bytes: options.notes, type: PT_NOTE, memsz: undefined }]
      : []),
  ];
  const dataAt = headerSize + parts.length * each;
  const image = new Uint8Array(dataAt + parts.reduce((n, p) => n + p.bytes.length, 0));
  image.set([0x7f, 0x45, 0x4c, 0x46, options.bits === 64 ? 2 : 1, 1, 1]);
  new View(ELF_HEADER, bits, image).setAll({
    type: 2,
    machine: options.bits === 64 ? EM_X86_64 : EM_386,
    entry: options.entry ?? 0x100000,
    phoff: headerSize,
    phentsize: each,
    phnum: parts.length,
  });
  let at = dataAt;
  parts.forEach((p, i) => {
    new View(ELF_PROGRAM[bits], bits, image, headerSize + i * each).setAll({
      type: p.type,
      flags: 7,
      offset: at,
      vaddr: p.vaddr ?? p.paddr,
      paddr: p.paddr,
      filesz: p.bytes.length,
      memsz: p.memsz ?? p.bytes.length,
      align: 4,
    });
    image.set(p.bytes, at);
    at += p.bytes.length;
  });
  return image;
}

/** One ELF note. */
export function note(name: string, type: number, desc: Uint8Array): Uint8Array {
  const nameBytes = new TextEncoder().encode(name + "\0");
  const descAt = 12 + Math.ceil(nameBytes.length / 4) * 4;
  const bytes = new Uint8Array(descAt + Math.ceil(desc.length / 4) * 4);
  fixed(ELF_NOTE, bytes).setAll({ namesz: nameBytes.length, descsz: desc.length, type });
  bytes.set(nameBytes, 12);
  bytes.set(desc, descAt);
  return bytes;
}

/** A multiboot header with address fields from `load` on, or without when `load` is absent. */
export function multibootHeader(load?: number, size = 0): Uint8Array {
  const flags = load === undefined ? 0 : 0x10000;
  const bytes = new Uint8Array(32);
  fixed(MULTIBOOT_HEADER, bytes).setAll({
    magic: MULTIBOOT_HEADER_MAGIC,
    flags,
    checksum: -(MULTIBOOT_HEADER_MAGIC + flags),
    header_addr: load ?? 0,
    load_addr: load ?? 0,
    load_end_addr: 0,
    bss_end_addr: load === undefined ? 0 : load + size,
    entry_addr: (load ?? 0) + 32,
  });
  return bytes;
}

/** 32-bit little-endian bytes. */
export function le32(...values: number[]): Uint8Array {
  return new Uint8Array(new Uint32Array(values).buffer);
}
