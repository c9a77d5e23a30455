/**
 * ELF, as far as a loader and a symbol reader need it.
 * Sources: System V ABI (gABI) chapters 4 and 5; Xen public/elfnote.h for the notes.
 * @module
 */
import type { BootLayout } from "./fields.ts";

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

/** Offsets in the identification bytes. */
export const ELF_IDENT = {
  magic: [0, 4],
  class: [4, 1],
  data: [5, 1],
} as const satisfies BootLayout;

export const ELF32 = {
  headerSize: 52,
  programSize: 32,
  sectionSize: 40,
  symbolSize: 16,
  header: {
    type: [16, 2],
    machine: [18, 2],
    entry: [24, 4],
    phoff: [28, 4],
    shoff: [32, 4],
    phentsize: [42, 2],
    phnum: [44, 2],
    shentsize: [46, 2],
    shnum: [48, 2],
    shstrndx: [50, 2],
  },
  program: {
    type: [0, 4],
    offset: [4, 4],
    vaddr: [8, 4],
    paddr: [12, 4],
    filesz: [16, 4],
    memsz: [20, 4],
    flags: [24, 4],
    align: [28, 4],
  },
  section: {
    name: [0, 4],
    type: [4, 4],
    addr: [12, 4],
    offset: [16, 4],
    size: [20, 4],
    link: [24, 4],
  },
  symbol: { name: [0, 4], value: [4, 4], size: [8, 4], info: [12, 1], shndx: [14, 2] },
} as const satisfies ElfLayout;

export const ELF64 = {
  headerSize: 64,
  programSize: 56,
  sectionSize: 64,
  symbolSize: 24,
  header: {
    type: [16, 2],
    machine: [18, 2],
    entry: [24, 8],
    phoff: [32, 8],
    shoff: [40, 8],
    phentsize: [54, 2],
    phnum: [56, 2],
    shentsize: [58, 2],
    shnum: [60, 2],
    shstrndx: [62, 2],
  },
  program: {
    type: [0, 4],
    flags: [4, 4],
    offset: [8, 8],
    vaddr: [16, 8],
    paddr: [24, 8],
    filesz: [32, 8],
    memsz: [40, 8],
    align: [48, 8],
  },
  section: {
    name: [0, 4],
    type: [4, 4],
    addr: [16, 8],
    offset: [24, 8],
    size: [32, 8],
    link: [40, 4],
  },
  symbol: { name: [0, 4], info: [4, 1], shndx: [6, 2], value: [8, 8], size: [16, 8] },
} as const satisfies ElfLayout;

/** One class of ELF: sizes of its records and places of their fields. */
export interface ElfLayout {
  readonly headerSize: number;
  readonly programSize: number;
  readonly sectionSize: number;
  readonly symbolSize: number;
  readonly header: BootLayout;
  readonly program: BootLayout;
  readonly section: BootLayout;
  readonly symbol: BootLayout;
}

/** Numbers of the notes whose name is "Xen". */
export const XEN_ELFNOTE = {
  INFO: 0,
  ENTRY: 1,
  HYPERCALL_PAGE: 2,
  VIRT_BASE: 3,
  PADDR_OFFSET: 4,
  XEN_VERSION: 5,
  GUEST_OS: 6,
  GUEST_VERSION: 7,
  LOADER: 8,
  PAE_MODE: 9,
  FEATURES: 10,
  BSD_SYMTAB: 11,
  HV_START_LOW: 12,
  L1_MFN_VALID: 13,
  SUSPEND_CANCEL: 14,
  INIT_P2M: 15,
  MOD_START_PFN: 16,
  SUPPORTED_FEATURES: 17,
  PHYS32_ENTRY: 18,
  PHYS32_RELOC: 19,
} as const;
