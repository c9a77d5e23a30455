/**
 * The state of a processor when a guest is entered: registers and segments, by the mode it is entered in.
 *
 * @module
 */
import { BOOT_CS, BOOT_DS } from "../abi/boot/boot_params.ts";
import { CR0, CR4, EFER, RFLAGS } from "../abi/x86/cr.ts";
import type { DescriptorTable, Segment, SegmentRegister } from "../hvm/ops.ts";

/** The general registers; one that is absent is 0. */
export type GeneralRegisters = Partial<
  Record<
    | "rax"
    | "rbx"
    | "rcx"
    | "rdx"
    | "rsi"
    | "rdi"
    | "rbp"
    | "rsp"
    | "r8"
    | "r9"
    | "r10"
    | "r11"
    | "r12"
    | "r13"
    | "r14"
    | "r15",
    bigint
  >
>;

/** The registers with which a guest's first processor begins. */
export interface InitialState {
  readonly mode: "real" | "protected32" | "long64";
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly regs: GeneralRegisters;
  readonly segments: Readonly<Record<SegmentRegister, Segment>>;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly gdtr: DescriptorTable;
  readonly idtr: DescriptorTable;
}

const CODE32 = 0xc09b, CODE64 = 0xa09b, DATA32 = 0xc093, DATA16 = 0x93;
const TSS32_BUSY = 0x8b, LDT = 0x82, UNUSABLE = 0x10000;

/** RFLAGS with nothing set but bit 1, which always is (SDM vol. 1, 3.4.3). */
const FLAGS = BigInt(RFLAGS.fixed);
const REAL = BigInt(CR0.ET), PROTECTED = BigInt(CR0.PE | CR0.ET);
/** At RESET caches are off. */
const RESET = BigInt(CR0.CD | CR0.NW | CR0.ET);
const LONG = {
  cr0: BigInt(CR0.PG) | BigInt(CR0.NE) | PROTECTED,
  cr4: BigInt(CR4.PAE),
  efer: BigInt(EFER.LME | EFER.LMA),
};

const LDTR_NONE: Segment = { selector: 0, base: 0n, limit: 0, attributes: UNUSABLE | LDT };
const TR_EMPTY: Segment = { selector: 0, base: 0n, limit: 0x67, attributes: TSS32_BUSY };

function flat(code: number, cs: number, ds: number): InitialState["segments"] {
  const data = { selector: ds, base: 0n, limit: 0xffffffff, attributes: DATA32 };
  return {
    cs: { selector: cs, base: 0n, limit: 0xffffffff, attributes: code },
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    ldtr: LDTR_NONE,
    tr: TR_EMPTY,
  };
}

/** What a protected-mode or 64-bit entry is made from. */
export interface FlatEntry {
  readonly rip: bigint;
  readonly regs?: GeneralRegisters;
  /** A GDT in memory that holds BOOT_CS and BOOT_DS; without one GDTR is empty. */
  readonly gdtr?: DescriptorTable;
}

/**
 * 32-bit protected mode, paging off, flat segments, interrupts off: what the Linux 32-bit boot
 * protocol, multiboot and PVH all ask for.
 */
export function protected32(entry: FlatEntry): InitialState {
  return {
    mode: "protected32",
    rip: entry.rip,
    rflags: FLAGS,
    regs: entry.regs ?? {},
    segments: flat(CODE32, BOOT_CS, BOOT_DS),
    cr0: PROTECTED,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    gdtr: entry.gdtr ?? { base: 0n, limit: 0 },
    idtr: { base: 0n, limit: 0 },
  };
}

/** 64-bit mode over page tables at `cr3` (guest-physical), flat segments, interrupts off. */
export function long64(entry: FlatEntry & { readonly cr3: bigint }): InitialState {
  return {
    ...protected32(entry),
    mode: "long64",
    segments: flat(CODE64, BOOT_CS, BOOT_DS),
    ...LONG,
    cr3: entry.cr3,
  };
}

/**
 * Real-address mode at `cs`:`ip`. With no `base`, CS.base is the selector times 16.
 *
 * Source: SDM vol. 3A, table 10-1 (state after reset) and 21.1.1.
 */
function realMode(
  at: { readonly cs: number; readonly ip: number; readonly base?: bigint },
): InitialState {
  const data = { selector: 0, base: 0n, limit: 0xffff, attributes: DATA16 };
  return {
    mode: "real",
    rip: BigInt(at.ip),
    rflags: FLAGS,
    regs: {},
    segments: {
      cs: {
        selector: at.cs,
        base: at.base ?? BigInt(at.cs * 16),
        limit: 0xffff,
        attributes: 0x9b,
      },
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      ldtr: { ...LDTR_NONE, limit: 0xffff, attributes: LDT },
      tr: { ...TR_EMPTY, limit: 0xffff },
    },
    cr0: REAL,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
  };
}

/** A processor after RESET: CS base FFFF0000h, IP FFF0h (SDM vol. 3A, 10.1.4). */
export function reset(): InitialState {
  return { ...realMode({ cs: 0xf000, ip: 0xfff0, base: 0xffff0000n }), cr0: RESET };
}

/** The GDT of the boot protocols as bytes: null, null, flat code at 10h, flat data at 18h. */
export function bootGdt(code: "32" | "64"): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(BOOT_CS, code === "32" ? 0x00cf9b000000ffffn : 0x00af9b000000ffffn, true);
  view.setBigUint64(BOOT_DS, 0x00cf93000000ffffn, true);
  return bytes;
}
