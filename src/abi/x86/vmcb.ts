/**
 * The virtual machine control block of SVM: fields, intercepts, exit codes, clean bits (APM vol. 2,
 * appendices B and C; the meaning of each in chapter 15).
 *
 * One row a field: `OFFSET BITS NAME [CLEAN]`; offsets count from the start of the VMCB, the state
 * save area begins at 0x400. CLEAN names the clean bit that lets the processor keep the field (15.15.3).
 * Names are the manual's as camel case.
 * @module
 */

const bit = (n: number) => (1 << n) >>> 0;

export const VMCB_SIZE = 4096;
/** Start of the state save area. */
const VMCB_SAVE = 0x400;

/** Numbers of the VMCB clean bits (15.15.3). */
export const CLEAN = {
  intercepts: 0,
  permissionMaps: 1,
  asid: 2,
  tpr: 3,
  nestedPaging: 4,
  cr: 5,
  dr: 6,
  tables: 7,
  segments: 8,
  cr2: 9,
  lbr: 10,
} as const;
/** A clean bit's name. */
export type CleanName = keyof typeof CLEAN;

/** One field of the VMCB. */
export interface VmcbField {
  readonly name: string;
  /** Bytes from the start of the VMCB. */
  readonly offset: number;
  readonly bits: 8 | 16 | 32 | 64;
  readonly area: "control" | "save";
  /** The clean bit it belongs to; undefined: the processor reads it at every VMRUN. */
  readonly clean?: CleanName;
}

const control = `
000 16 crReads intercepts
002 16 crWrites intercepts
004 16 drReads intercepts
006 16 drWrites intercepts
008 32 exceptions intercepts
00c 32 intercepts1 intercepts
010 32 intercepts2 intercepts
014 32 intercepts3 intercepts
03c 16 pauseFilterThreshold intercepts
03e 16 pauseFilterCount intercepts
040 64 iopmBase permissionMaps
048 64 msrpmBase permissionMaps
050 64 tscOffset intercepts
058 32 asid asid
05c 8 tlbControl
060 32 virtualInterrupt tpr
064 8 virtualVector tpr
068 64 interruptShadow
070 64 exitCode
078 64 exitInfo1
080 64 exitInfo2
088 64 exitIntInfo
090 64 nestedControl nestedPaging
0a8 64 eventInjection
0b0 64 nestedCr3 nestedPaging
0b8 64 lbrControl lbr
0c0 32 cleanBits
0c8 64 nextRip
0d0 8 instructionLength
0d1 8 instructionByte0
0d2 8 instructionByte1
0d3 8 instructionByte2
0d4 8 instructionByte3
0d5 8 instructionByte4
0d6 8 instructionByte5
0d7 8 instructionByte6
0d8 8 instructionByte7
0d9 8 instructionByte8
0da 8 instructionByte9
0db 8 instructionByte10
0dc 8 instructionByte11
0dd 8 instructionByte12
0de 8 instructionByte13
0df 8 instructionByte14
`;

/** Segment registers in the order of their records in the state save area; 16 bytes each. */
const vmcbSegments = [
  "es",
  "cs",
  "ss",
  "ds",
  "fs",
  "gs",
  "gdtr",
  "ldtr",
  "idtr",
  "tr",
] as const;
/** Parts of a segment record: offset in it. */
export const VMCB_SEGMENT = { selector: 0, attributes: 2, limit: 4, base: 8, size: 16 } as const;

/** Segment records that the clean bit `segments` covers; GDTR and IDTR belong to `tables`. */
const SEGMENT_CLEAN: Partial<Record<typeof vmcbSegments[number], CleanName>> = {
  es: "segments",
  cs: "segments",
  ss: "segments",
  ds: "segments",
  gdtr: "tables",
  idtr: "tables",
};

/** Offsets here count from the start of the state save area. */
const save = `
0cb 8 cpl segments
0d0 64 efer cr
148 64 cr4 cr
150 64 cr3 cr
158 64 cr0 cr
160 64 dr7 dr
168 64 dr6 dr
170 64 rflags
178 64 rip
1d8 64 rsp
1f8 64 rax
200 64 star
208 64 lstar
210 64 cstar
218 64 sfmask
220 64 kernelGsBase
228 64 sysenterCs
230 64 sysenterEsp
238 64 sysenterEip
240 64 cr2 cr2
268 64 pat nestedPaging
270 64 debugctl lbr
278 64 branchFrom lbr
280 64 branchTo lbr
288 64 lastExceptionFrom lbr
290 64 lastExceptionTo lbr
`;

function parse(rows: string, area: VmcbField["area"], start: number): VmcbField[] {
  return rows.trim().split("\n").map((row) => {
    const [offset, bits, name, clean] = row.split(" ");
    return {
      name,
      offset: start + parseInt(offset, 16),
      bits: Number(bits) as VmcbField["bits"],
      area,
      ...(clean ? { clean: clean as CleanName } : {}),
    };
  });
}

function segmentFields(): VmcbField[] {
  return vmcbSegments.flatMap((segment, n) => {
    const clean = SEGMENT_CLEAN[segment], at = VMCB_SAVE + n * VMCB_SEGMENT.size;
    const part = (name: string, offset: number, bits: VmcbField["bits"]): VmcbField => ({
      name: segment + name,
      offset: at + offset,
      bits,
      area: "save",
      ...(clean ? { clean } : {}),
    });
    const table = segment === "gdtr" || segment === "idtr";
    return [
      ...(table ? [] : [
        part("Selector", VMCB_SEGMENT.selector, 16),
        part("Attributes", VMCB_SEGMENT.attributes, 16),
      ]),
      part("Limit", VMCB_SEGMENT.limit, 32),
      part("Base", VMCB_SEGMENT.base, 64),
    ];
  });
}

/** Every field, in order of offset. */
export const vmcbFields: readonly VmcbField[] = [
  ...parse(control, "control", 0),
  ...segmentFields(),
  ...parse(save, "save", VMCB_SAVE),
];

const byName = new Map(vmcbFields.map((f) => [f.name, f]));

/** Offsets by name: `VMCB.exitCode` is 0x70. */
export const VMCB: Readonly<Record<string, number>> = Object.fromEntries(
  vmcbFields.map((f) => [f.name, f.offset]),
);

/**
 * The field called `name`.
 *
 * @throws {RangeError} There is no such field.
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { vmcbField } from "./vmcb.ts";
 * assertEquals(vmcbField("rip").offset, 0x578);
 * assertEquals(vmcbField("csBase").offset, 0x418);
 * ```
 */
export function vmcbField(name: string): VmcbField {
  const found = byName.get(name);
  if (found) return found;
  throw new RangeError(`no VMCB field is called "${name}"`);
}

/** Bits of `intercepts1`, the third vector at 0x00c. */
export const INTERCEPT1 = {
  intr: bit(0),
  nmi: bit(1),
  smi: bit(2),
  init: bit(3),
  vintr: bit(4),
  /** Writes of CR0 that change more than TS and MP. */
  cr0Selective: bit(5),
  idtrRead: bit(6),
  gdtrRead: bit(7),
  ldtrRead: bit(8),
  trRead: bit(9),
  idtrWrite: bit(10),
  gdtrWrite: bit(11),
  ldtrWrite: bit(12),
  trWrite: bit(13),
  rdtsc: bit(14),
  rdpmc: bit(15),
  pushf: bit(16),
  popf: bit(17),
  cpuid: bit(18),
  rsm: bit(19),
  iret: bit(20),
  intN: bit(21),
  invd: bit(22),
  pause: bit(23),
  hlt: bit(24),
  invlpg: bit(25),
  invlpga: bit(26),
  /** Port accesses by the I/O permission map. */
  io: bit(27),
  /** RDMSR and WRMSR by the MSR permission map. */
  msr: bit(28),
  taskSwitch: bit(29),
  ferrFreeze: bit(30),
  shutdown: bit(31),
} as const;

/** Bits of `intercepts2`, the vector at 0x010. */
export const INTERCEPT2 = {
  vmrun: bit(0),
  vmmcall: bit(1),
  vmload: bit(2),
  vmsave: bit(3),
  stgi: bit(4),
  clgi: bit(5),
  skinit: bit(6),
  rdtscp: bit(7),
  icebp: bit(8),
  wbinvd: bit(9),
  monitor: bit(10),
  mwait: bit(11),
  /** MWAIT while monitoring is armed. */
  mwaitArmed: bit(12),
  xsetbv: bit(13),
} as const;

/** Bits of `intercepts3`, the vector at 0x014. */
export const INTERCEPT3 = { invpcid: bit(2) } as const;

/** Intercept vectors and the names of their bits, for display and for setting by name. */
export const interceptNames = {
  intercepts1: INTERCEPT1,
  intercepts2: INTERCEPT2,
  intercepts3: INTERCEPT3,
} as const;

/** Values of `tlbControl` (15.16.2). */
export const TLB_CONTROL = { nothing: 0, all: 1, guest: 3, guestNonGlobal: 7 } as const;

/** Bits of `virtualInterrupt` (15.21.1 to 15.21.4); the vector is a field of its own. */
export const VIRTUAL_INTERRUPT = {
  /** Bits 3:0 are the virtual TPR; 7:4 read as 0. */
  tpr: 0xf,
  irq: bit(8),
  /** Bits 19:16. */
  priorityShift: 16,
  priority: 0xf_0000,
  ignoreTpr: bit(20),
  masking: bit(24),
} as const;

/** Bit 0 of `interruptShadow` (15.21.5). */
export const INTERRUPT_SHADOW = 1;
/** Bit 0 of `nestedControl`: NP_ENABLE (15.25.3). */
export const NP_ENABLE = 1;
/** Bit 0 of `lbrControl`: LBR_VIRTUALIZATION_ENABLE (15.23.2). */
export const LBR_ENABLE = 1;

/** EVENTINJ and EXITINTINFO (15.20, 15.7.2); the error code is in bits 63:32. */
export const SVM_EVENT = {
  vector: 0xff,
  typeShift: 8,
  errorCode: 0x800,
  valid: 0x8000_0000,
} as const;
/** Types in bits 10:8. */
export const SVM_EVENT_TYPE = {
  externalInterrupt: 0,
  nmi: 2,
  exception: 3,
  softwareInterrupt: 4,
} as const;

/** Bits of `exitInfo1` of an IOIO intercept (15.10.2); port in bits 31:16, segment in 12:10. */
export const IOIO = {
  in: 1,
  string: 4,
  rep: 8,
  size8: 0x10,
  size16: 0x20,
  size32: 0x40,
  address16: 0x80,
  address32: 0x100,
  address64: 0x200,
  segmentShift: 10,
  portShift: 16,
} as const;

/** High bits of `exitInfo1` of a nested page fault (15.25.6); 31:0 are a page fault's error code. */
export const NPF = { final: 1n << 32n, walk: 1n << 33n } as const;
/** Bit 63 of `exitInfo1`: MOV to or from CR, the register number is in bits 3:0 (15.8.1). */
export const CR_MOV = 1n << 63n;
/** Bits of `exitInfo2` of a task switch (15.14.1); bits 31:0 are the error code, if there is one. */
export const TASK_SWITCH = {
  iret: 1n << 36n,
  jump: 1n << 38n,
  errorCode: 1n << 44n,
  resumeFlag: 1n << 48n,
} as const;

/** Exit codes by name (appendix C); CR, DR and exception codes add the register or the vector. */
export const EXIT_CODE = {
  crRead: 0x00,
  crWrite: 0x10,
  drRead: 0x20,
  drWrite: 0x30,
  exception: 0x40,
  intr: 0x60,
  nmi: 0x61,
  smi: 0x62,
  init: 0x63,
  vintr: 0x64,
  cr0Selective: 0x65,
  idtrRead: 0x66,
  gdtrRead: 0x67,
  ldtrRead: 0x68,
  trRead: 0x69,
  idtrWrite: 0x6a,
  gdtrWrite: 0x6b,
  ldtrWrite: 0x6c,
  trWrite: 0x6d,
  rdtsc: 0x6e,
  rdpmc: 0x6f,
  pushf: 0x70,
  popf: 0x71,
  cpuid: 0x72,
  rsm: 0x73,
  iret: 0x74,
  intN: 0x75,
  invd: 0x76,
  pause: 0x77,
  hlt: 0x78,
  invlpg: 0x79,
  invlpga: 0x7a,
  io: 0x7b,
  msr: 0x7c,
  taskSwitch: 0x7d,
  ferrFreeze: 0x7e,
  shutdown: 0x7f,
  vmrun: 0x80,
  vmmcall: 0x81,
  vmload: 0x82,
  vmsave: 0x83,
  stgi: 0x84,
  clgi: 0x85,
  skinit: 0x86,
  rdtscp: 0x87,
  icebp: 0x88,
  wbinvd: 0x89,
  monitor: 0x8a,
  mwait: 0x8b,
  mwaitArmed: 0x8c,
  xsetbv: 0x8d,
  invpcid: 0xa2,
  nestedPageFault: 0x400,
  /** All 64 bits are ones: VMRUN refused the VMCB. Here its low 32 bits, signed. */
  invalid: -1,
} as const;

/** Codes that stand for one thing each, as the manual's names with hyphens. */
const plain: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(EXIT_CODE).filter(([, code]) => code >= 0x60).map((
    [name, code],
  ) => [code, name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)]),
);

/**
 * The name of an exit code (the low 32 bits, signed or unsigned).
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { exitCodeName } from "./vmcb.ts";
 * assertEquals(exitCodeName(0x13), "cr3-write");
 * assertEquals(exitCodeName(0x4e), "exception-14");
 * assertEquals(exitCodeName(-1), "invalid");
 * ```
 */
export function exitCodeName(code: number): string {
  const n = code >>> 0;
  if (n === 0xffff_ffff) return "invalid";
  if (n < 0x10) return `cr${n}-read`;
  if (n < 0x20) return `cr${n - 0x10}-write`;
  if (n < 0x30) return `dr${n - 0x20}-read`;
  if (n < 0x40) return `dr${n - 0x30}-write`;
  if (n < 0x60) return `exception-${n - 0x40}`;
  return plain[n] ?? `code-0x${n.toString(16)}`;
}

/** Bits of MSR VM_CR (15.30.1). */
export const VM_CR = { DPD: 1, R_INIT: 2, DIS_A20M: 4, LOCK: 8, SVMDIS: 0x10 } as const;

/** Bytes of the I/O permission map (15.10.1) and of the MSR permission map (15.11). */
export const IOPM_SIZE = 0x3000;
export const MSRPM_SIZE = 0x2000;

/** First MSR of each range of 0x2000 that the MSR permission map covers, 0x800 bytes a range (15.11). */
export const msrpmRanges = [0, 0xc000_0000, 0xc001_0000] as const;

/** Attributes in a segment record: 7:0 type, S, DPL, P; 8 AVL, 9 L, 10 D/B, 11 G. */
export const VMCB_ATTRIBUTE = {
  present: 0x80,
  long: 0x200,
  big: 0x400,
  granularity: 0x800,
} as const;

/**
 * Attributes of a segment record as the machine's have them (AVL in bit 12, L 13, D/B 14, G 15), and
 * back. An unusable segment (bit 16 there) is one that is not present.
 */
export function attributesFromVmcb(value: number): number {
  return value & 0xff | (value & 0xf00) << 4 | (value & VMCB_ATTRIBUTE.present ? 0 : 0x1_0000);
}
export function attributesToVmcb(value: number): number {
  return value & 0x1_0000 ? 0 : value & 0xff | value >>> 4 & 0xf00;
}
