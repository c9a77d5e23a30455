/**
 * ELF, as far as a loader and a symbol reader need it.
 * Source: System V ABI (gABI) chapters 4 and 5.
 * @module
 */
import { array, placed, struct } from "../layout.ts";

export const ELF_MAGIC = 0x464c457f;
export const ELF_CLASS_32 = 1, ELF_CLASS_64 = 2, ELF_LITTLE_ENDIAN = 1;
export const EM_386 = 3, EM_X86_64 = 62;
export const ET_EXEC = 2, ET_DYN = 3;
export const PT_LOAD = 1, PT_NOTE = 4;
export const SHT_NULL = 0, SHT_SYMTAB = 2, SHT_STRTAB = 3, SHT_NOTE = 7, SHT_NOBITS = 8;
/** Symbol types (low four bits of `info`): what has an address worth a name. */
export const STT_NOTYPE = 0, STT_OBJECT = 1, STT_FUNC = 2, STT_SECTION = 3, STT_FILE = 4;
/** Section index of an undefined symbol. */
export const SHN_UNDEF = 0, SHN_ABS = 0xfff1;

/** The identification bytes, with which the header begins. */
export const ELF_IDENT = placed("e_ident", {
  magic: [0, "u32"],
  class: [4, "u8"],
  data: [5, "u8"],
}, 16);

/** The header; its class is the width. */
export const ELF_HEADER = struct("elf_hdr", {
  ident: array("u8", 16),
  type: "u16",
  machine: "u16",
  version: "u32",
  entry: "ulong",
  phoff: "ulong",
  shoff: "ulong",
  flags: "u32",
  ehsize: "u16",
  phentsize: "u16",
  phnum: "u16",
  shentsize: "u16",
  shnum: "u16",
  shstrndx: "u16",
});

const place = { offset: "ulong", vaddr: "ulong", paddr: "ulong" } as const;
const extent = { filesz: "ulong", memsz: "ulong" } as const;
/** Program headers, by class: the order differs. */
export const ELF_PROGRAM = {
  32: struct("elf_phdr", { type: "u32", ...place, ...extent, flags: "u32", align: "ulong" }),
  64: struct("elf_phdr", { type: "u32", flags: "u32", ...place, ...extent, align: "ulong" }),
} as const;

export const ELF_SECTION = struct("elf_shdr", {
  name: "u32",
  type: "u32",
  flags: "ulong",
  addr: "ulong",
  offset: "ulong",
  size: "ulong",
  link: "u32",
  info: "u32",
  addralign: "ulong",
  entsize: "ulong",
});

const kind = { info: "u8", other: "u8", shndx: "u16" } as const;
const extentOf = { value: "ulong", size: "ulong" } as const;
/** Symbols, by class: the order differs. */
export const ELF_SYMBOL = {
  32: struct("elf_sym", { name: "u32", ...extentOf, ...kind }),
  64: struct("elf_sym", { name: "u32", ...kind, ...extentOf }),
} as const;

/** Before a note's name and contents. */
export const ELF_NOTE = struct("elf_nhdr", { namesz: "u32", descsz: "u32", type: "u32" });

/** A number of either class, as the contents of notes hold them. */
export const ELF_WORD = struct("word", { value: "ulong" });
