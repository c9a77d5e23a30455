/**
 * Where a processor's state lies in its own memory (memory 0 of its Wasm modules).
 *
 * `[0x100, ARCHITECTURAL_END)` is what a program can observe: it is saved, hashed, shown and diffed.
 * What lies behind it is derived or lives only within one call (faults, exits, TLBs, records).
 */
import { gpr64 } from "../abi/x86/registers.ts";

type Width = 1 | 2 | 4 | 8 | 10 | 16;
export interface Field {
  readonly name: string;
  /** Byte offset in memory 0. */
  readonly at: number;
  /** Bytes. */
  readonly width: Width;
}

/** Bytes of a segment register: base u64, limit u32, attributes u32, selector u32. */
export const SEGMENT_SIZE = 32;
export const SEGMENT = { base: 0, limit: 8, attributes: 12, selector: 16 } as const;

/** Segment registers in encoding order, then the system ones. */
export const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;
export const GPRS = gpr64;

const ARCHITECTURAL_START = 0x100;

/** name, width in bytes, how many. In the order of the saved block. */
const ARCHITECTURAL = [
  ...GPRS.map((r) => [r, 8] as const),
  ["rip", 8],
  // Flags apart from the arithmetic ones while those are lazy; see flags.ts.
  ["rflags", 8],
  // The last arithmetic result: kind and width, CF while that is not 0, and two values.
  ["flagOp", 4],
  ["flagCarry", 4],
  ["flagX", 8],
  ["flagY", 8],
  ["cr0", 8],
  ["cr2", 8],
  ["cr3", 8],
  ["cr4", 8],
  ["cr8", 8],
  ["xcr0", 8],
  ["xss", 8],
  ...[0, 1, 2, 3, 6, 7].map((n) => [`dr${n}`, 8] as const),
  ...SEGMENTS.flatMap((s) =>
    [[`${s}.base`, 8], [`${s}.limit`, 4], [`${s}.attributes`, 4], [`${s}.selector`, 4], [
      `${s}.pad`,
      4,
    ], [`${s}.pad2`, 8]] as const
  ),
  ["gdtr.base", 8],
  ["gdtr.limit", 8],
  ["idtr.base", 8],
  ["idtr.limit", 8],
  // PAE page-directory-pointer registers (SDM 3 4.4.1).
  ["pdpte0", 8],
  ["pdpte1", 8],
  ["pdpte2", 8],
  ["pdpte3", 8],
  // Model-specific registers that have a home of their own.
  ["efer", 8],
  ["star", 8],
  ["lstar", 8],
  ["cstar", 8],
  ["sfmask", 8],
  ["kernelGsBase", 8],
  ["tscAux", 8],
  ["tscOffset", 8],
  ["tscAdjust", 8],
  ["sysenterCs", 8],
  ["sysenterEsp", 8],
  ["sysenterEip", 8],
  ["pat", 8],
  ["apicBase", 8],
  ["miscEnable", 8],
  ["featureControl", 8],
  ["debugctl", 8],
  ["mtrrDefType", 8],
  ...Array.from({ length: 16 }, (_, n) => [`mtrrVariable${n}`, 8] as const),
  ...Array.from({ length: 11 }, (_, n) => [`mtrrFixed${n}`, 8] as const),
  // 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI (SDM 3 table 25-3, activity state).
  ["activity", 4],
  // Bit 0: by STI, 1: by MOV SS, 2: by SMI, 3: by NMI (SDM 3, interruptibility state).
  ["interruptibility", 4],
  // Single-step and breakpoints waiting for the instruction boundary (format of DR6).
  ["pendingDebug", 8],
  ["pendingNmi", 4],
  ["a20Mask", 4],
  // x87: eight registers of 10 bytes in slots of 16, physical order; MMX aliases the low 8 bytes.
  ...Array.from({ length: 8 }, (_, n) => [`fpr${n}`, 16] as const),
  ["fcw", 4],
  ["fsw", 4],
  // Full tag word, two bits a register.
  ["ftw", 4],
  ["fop", 4],
  ["fip", 8],
  ["fdp", 8],
  ["fcs", 4],
  ["fds", 4],
  ["mxcsr", 4],
  ["mxcsrPad", 4],
  ...Array.from({ length: 16 }, (_, n) => [`xmm${n}`, 16] as const),
  // VMX operation: 0 off, 1 root, 2 non-root; current VMCS pointer (-1: none), VMXON pointer.
  ["vmxMode", 4],
  ["vmxPad", 4],
  ["vmcsPointer", 8],
  ["vmxonPointer", 8],
  // SVM: global interrupt flag, host save area, guest mode.
  ["gif", 4],
  ["svmMode", 4],
  ["vmHsave", 8],
  ["vmCr", 8],
  // The VMCB of the running guest; TSC ratio in 8.32 bits; last branch and exception records.
  ["vmcb", 8],
  ["tscRatio", 8],
  ["branchFrom", 8],
  ["branchTo", 8],
  ["lastExceptionFrom", 8],
  ["lastExceptionTo", 8],
  // AMD's performance counters: what each counts, and how much of it.
  ...Array.from({ length: 4 }, (_, n) => [`perfEvtSel${n}`, 8] as const),
  ...Array.from({ length: 4 }, (_, n) => [`perfCtr${n}`, 8] as const),
] as const;

const fields: Field[] = [];
let next = ARCHITECTURAL_START;
for (const [name, width] of ARCHITECTURAL) {
  fields.push({ name, at: next, width: width as Width });
  next += width;
}

export const ARCHITECTURAL_END = (next + 63) & ~63;
if (ARCHITECTURAL_END > 0x1000) throw new Error("the architectural state has outgrown its page");

/** All fields of the architectural block, in order. */
export const architecturalFields: readonly Field[] = fields;
export { ARCHITECTURAL_START };

const offsets = new Map(fields.map((f) => [f.name, f.at]));

/** Byte offset of an architectural field in memory 0. */
export function at(name: string): number {
  const offset = offsets.get(name);
  if (offset === undefined) throw new Error(`no state field named ${name}`);
  return offset;
}

/** Offsets of what every part of the machine uses, by name. */
export const CPU = Object.fromEntries(offsets) as Record<string, number>;

/** Byte offset of general register `n` (0 to 15, encoding order). */
export const gpr = (n: number): number => ARCHITECTURAL_START + 8 * n;
const FIRST_SEGMENT = at("es.base");
/** Byte offset of segment register `n` (0 to 5: ES CS SS DS FS GS, 6 LDTR, 7 TR). */
export const segment = (n: number): number => FIRST_SEGMENT + SEGMENT_SIZE * n;

/** Volatile cells: valid within a run, never saved. */
export const V = {
  /** Always zero: the absent base or index register. */
  zero: 0x1000,
  /** Why an instruction was given up: an ABORT value. */
  abort: 0x1008,
  /** The exception being raised: vector, error code, whether there is one, SDM type (3 = exception). */
  vector: 0x100c,
  errorCode: 0x1010,
  hasError: 0x1014,
  /** 2 = NMI, 3 = hardware exception, 4 = software interrupt, 5 = privileged software, 6 = software exception. */
  eventType: 0x1018,
  /** The check that failed (checks.ts) and what it looked at. */
  check: 0x101c,
  checkA: 0x1020,
  checkB: 0x1028,
  faultAddress: 0x1030,
  /** Access class of the running code: ACCESS.user, ACCESS.smap or 0. */
  access: 0x1038,
  /** Current privilege level. */
  cpl: 0x103c,
  /** Linear minus EIP of the running page: EIP = this + offset in page. */
  ipBase: 0x1040,
  /** Budget left when a handler needs it: instructions still allowed, the running one taken off. */
  left: 0x1048,
  /** Budget of the slice and the instruction count at its start. */
  slice: 0x104c,
  countBase: 0x1050,
  /** First byte of the TLB class in use. */
  tlb: 0x1058,
  /** Not zero: paging structures are walked. */
  paging: 0x105c,
  /** Size of machine memory in bytes, as i64. */
  ramSize: 0x1060,
  /** Physical address of an access that is not memory. */
  pa: 0x1068,
  /** Value passed between a device access and its handler. */
  value: 0x1070,
  /** Length of the running instruction. */
  length: 0x1078,
  /** The record of an instruction that is being intercepted. */
  record: 0x10f8,
  /** Number of steps a probing walk has recorded (see walk.ts). */
  walkCount: 0x108c,
  /** Number of TLB fills since the last flush. */
  fills: 0x1090,
  /** VM exit in the making: basic reason, qualification, and more (vmx). */
  exitReason: 0x1098,
  exitQualification: 0x10a0,
  exitInstructionInfo: 0x10a8,
  exitGuestLinear: 0x10b0,
  exitGuestPhysical: 0x10b8,
  exitInstructionLength: 0x10c0,
  /** Not zero: intercepts are to be tested (non-root). */
  nonRoot: 0x10c4,
  /** EPT pointer in use, 0 if none. */
  eptp: 0x10c8,
  /** Emulation of one instruction for the hypervisor: accesses come from a log. */
  emulating: 0x10d0,
  /** Watches armed; debug-register data breakpoints armed. */
  watching: 0x10d4,
  /** Number of frames marked as tables since the last flush. */
  tables: 0x10dc,
  /** Physical address mask of this processor (MAXPHYADDR), reserved bits of entries. */
  reservedHigh: 0x10e0,
  /** Valid bits of an interruption being delivered (vectoring), for nested faults. */
  vectoring: 0x10e8,
  vectoringError: 0x10ec,
  vectoringLength: 0x10f0,
  /** Access class of implicit supervisor accesses (descriptor tables, task states): ACCESS.smap or 0. */
  accessSystem: 0x10f4,
  /** Base and limit of the code segment as fetches use them (0 and all ones in 64-bit mode), i64. */
  codeBase: 0x1100,
  codeLimit: 0x1108,
  /** Instruction pointer of an execution breakpoint that is being passed, i64; -1 for none. */
  passing: 0x1110,
  /** Not zero while the running instruction is traced (TF); delivering an event clears it. */
  stepping: 0x1118,
  /** Not zero: the run ended between two iterations of a repeated instruction. */
  repeating: 0x1174,
  /** Not zero if something waits for IF: who sets IF then ends the slice (serialize). */
  interruptPending: 0x111c,
  /** The code mode (predecode.ts) of what runs, i64: the low bits of tags in the code TLB. */
  codeMode: 0x1120,
  /** TSC ratio in force, 0 for 1.0, i64 (SVM guests). */
  tscRatio: 0x1168,
  /** Not zero: PAE paging reads its PDPTEs in memory at each walk (SVM guests with nested paging). */
  pdptesInMemory: 0x1170,
  /** What the IRET of a VMX guest that is under way does to the blocking of NMIs: IRET_NMI; 0 else. */
  iret: 0x1178,
  /** Not zero: AMD's ways where the two vendors' instructions differ (vendors.ts). */
  amd: 0x117c,
  /** Entries of a running walk: address and value of each, to set their accessed bits at the end. */
  walkEntries: 0x1e00,
  /** The opcode of the x87 instruction that runs, as FOP has it. */
  x87Opcode: 0x11d8,
  /** Not zero: FERR# was seen, and who saw it is to be told when no exception is pending any more. */
  ferr: 0x11dc,
  /**
   * Not zero: CPUID hides MXCSR.MM, and so do FXSAVE's mask and LDMXCSR. No processor can do that to a
   * guest; here a CPUID that is common to both vendors leaves the same images in memory.
   */
  noMisaligned: 0x11e0,
  /** 1: the last entry of a guest has delivered the INT n, INT1, INT3 or INTO that it injected. */
  injected: 0x11e4,
  // 0x1180 to 0x11d7: LINK in segmentation/descriptor.ts.
  /** Scratch for semantics that store structures (FXSAVE images, task states). */
  buffer: 0x1200,
} as const;

/** V.iret (SDM 3 25.3). */
export const IRET_NMI = {
  /** It ends, even if the IRET faults. */
  unblocks: 1,
  /** It stays. */
  keeps: 2,
} as const;

/** Bits of an access, as in a page-fault error code where it has them (SDM 3 4.7). */
export const ACCESS = {
  write: 2,
  user: 4,
  fetch: 16,
  /** A supervisor access that SMAP keeps from user pages. */
  smap: 0x40,
  /** A user access while alignment is checked (CR0.AM, RFLAGS.AC). */
  align: 0x80,
  /** A look by the shell: no accessed or dirty bits, no faults counted, levels recorded. */
  probe: 0x100,
  /** An access of the walk itself to a paging structure. */
  table: 0x1000,
} as const;

/**
 * Kinds of code that need records of their own: values of V.codeMode. The flat ones have hot
 * handlers; 64-bit code always is, unless hot handlers are off.
 */
export const CODE_MODE = { code16: 0, code32: 1, flat32: 2, code64: 3, flat64: 4 } as const;

/** Values of V.abort. */
export const ABORT = {
  none: 0,
  /** An exception: vector and error code say which. */
  fault: 1,
  /** A VM exit: exitReason and the fields behind it. */
  exit: 2,
  /** The hypervisor's log has no answer yet for an access of the emulated instruction. */
  unanswered: 4,
  /** The host wants its thread (Machine.due): the instruction has not begun. */
  due: 5,
  /** The processor waits before the instruction for an interrupt (FERR#). */
  frozen: 6,
  /** The event that the instruction raises came to a fault, and that was delivered. */
  delivered: 7,
} as const;

/** Set in a "physical" address that the hypervisor's log answers while it emulates an instruction. */
export const EMULATED = 1n << 62n;

/** TLBs: per class, a read, a write and a code table of 1024 entries of 16 bytes. */
export const TLB = {
  start: 0x4000,
  entries: 1024,
  entrySize: 16,
  read: 0,
  write: 0x4000,
  code: 0x8000,
  /** Translations of stores that must be looked at: to code, paging structures, ROM. */
  slow: 0xc000,
  classSize: 0x10000,
  /**
   * user; supervisor; supervisor that may not touch user pages (SMAP, AC = 0); user with alignment
   * checks, whose read and write tables stay empty: each access goes the slow way.
   */
  classes: 4,
} as const;

/** Places of the TLB entries filled, and of the frame-table entries marked, since the last flush. */
export const TLB_LIST = { fills: 0x3000, maxFills: 480, tables: 0x3800, maxTables: 480 } as const;

/** VMCS cache and other structures of the virtualization extensions. */
export const VMX_AREA = 0x50000;

/** Where predecoded records begin; everything below 1 MiB is fixed. */
export const RECORDS_START = 0x100000;
export const RECORDS_SIZE = 48 << 20;
export const RECORD_SIZE = 32;

/**
 * Fields of a predecoded record, byte offsets. The hot handlers read the first two words of 8 bytes
 * at once: each access to memory has its price (see interpreter/hot.ts).
 */
export const REC = {
  handler: 0,
  /** Addresses of register operands in memory 0. */
  a: 2,
  b: 4,
  base: 6,
  /** In place of `b` and `base` where they are not needed: a copy of the immediate (32 bits). */
  copy: 4,
  /** In direct branches: the record of the target if it is known. What a pseudo record leads to. */
  target: 4,
  index: 8,
  scale: 10,
  length: 11,
  displacement: 12,
  immediate: 16,
  /** High half of an immediate, or second immediate. */
  link: 20,
  /** Offset of the instruction in its page. */
  offset: 24,
  /** Bit field: see predecode. */
  prefixes: 26,
  /** Address of the segment register of the memory operand. */
  segment: 28,
  /** Function index of a cold handler. */
  cold: 30,
} as const;

/** Bits of REC.prefixes. */
export const PREFIX = {
  operand16: 1,
  operand64: 2,
  address16: 4,
  address64: 8,
  rep: 16,
  repne: 32,
  lock: 64,
  memory: 128,
  rex: 256,
  /** The displacement is 64 bits wide: its upper half is in REC.immediate. */
  wideOffset: 512,
} as const;

/** Pages (64 KiB) of memory 0. */
export const CPU_MEMORY_PAGES = (RECORDS_START + RECORDS_SIZE) >> 16;

/** Frame table, memory 2: 16 bytes a machine frame. */
export const FRAME = { size: 16, flags: 0, stores: 4, code: 8 } as const;
export const FRAME_FLAG = {
  /** Predecoded instructions lie in it. */
  code: 1,
  /** Paging structures that a TLB entry was derived from. */
  table: 2,
  /** Written since the last hash or snapshot. */
  dirty: 4,
  /** A watchpoint lies in it. */
  watch: 8,
  /** Writes are ignored. */
  rom: 16,
  /** No memory answers here: devices do. */
  mmio: 32,
  /** A write entry of a TLB may reach it. */
  inWriteTlb: 64,
  /** A hypervisor has derived something from its contents: {@linkcode Machine.onWrite} is told of writes. */
  derived: 128,
  /** Written at some time: it was dirty, and is not any more. */
  written: 256,
} as const;
