/**
 * Where a processor's state lies in its own memory (memory 0 of its Wasm modules).
 *
 * `[0x100, ARCHITECTURAL_END)` is what a program can observe: it is saved, hashed, shown and diffed.
 * What lies behind it is derived or lives only within one call (faults, exits, TLBs, records).
 */
import { HOST_PROCESSORS_MAX } from "../abi/limits.ts";
import { gpr64, type GprName } from "../abi/x86/registers.ts";
import {
  areaOf,
  type Cell,
  type CellField,
  cells,
  each,
  fieldsOf,
  numbered,
} from "./wasm/cells.ts";

/** Bytes of a segment register: base u64, limit u32, attributes u32, selector u32. */
export const SEGMENT_SIZE = 32;
export const SEGMENT = { base: 0, limit: 8, attributes: 12, selector: 16 } as const;

/** Segment registers in encoding order, then the system ones. */
export const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;
export type SegmentName = typeof SEGMENTS[number];
export const GPRS = gpr64;

/** Bytes of a class of TLBs, how many there are, and bytes of a list of what to drop: TLB, TLB_LIST. */
const TLB_CLASS = 0x10000, TLB_CLASSES = 4, TLB_LIST_BYTES = 0x800;

/** Where predecoded records begin; everything below 1 MiB is fixed. */
export const RECORDS_START = 0x100000;
export const RECORDS_SIZE = 48 << 20;

/** All that lies in memory 0 before the records. */
const MAP = cells({ name: "memory 0", start: 0x100, end: RECORDS_START }, {
  architectural: 0xf00,
  volatile: 0x2000,
  tlbFills: TLB_LIST_BYTES,
  tlbTables: TLB_LIST_BYTES,
  tlb: TLB_CLASSES * TLB_CLASS,
  /** What the virtualization extensions of either vendor keep besides. */
  vmx: 0x2000,
  svm: 0x2000,
});
/** Places of the cells of the virtualization extensions, one vendor's each. */
export const EXTENSION_AREA = { vmx: areaOf(MAP, "vmx"), svm: areaOf(MAP, "svm") } as const;

const segmentCells = <Name extends string>(names: readonly Name[]) =>
  Object.assign(
    {},
    ...names.map((s) => ({
      [`${s}.base`]: 8,
      [`${s}.limit`]: 4,
      [`${s}.attributes`]: 4,
      [`${s}.selector`]: 4,
      [`${s}.pad`]: 4,
      [`${s}.pad2`]: 8,
    })),
  ) as
    & Record<`${Name}.${"base" | "pad2"}`, 8>
    & Record<`${Name}.${"limit" | "attributes" | "selector" | "pad"}`, 4>;

/** Registers of 8 bytes, as they lie together. */
const CONTROL = ["cr0", "cr2", "cr3", "cr4", "cr8", "xcr0", "xss"] as const;
const DEBUG = [0, 1, 2, 3, 6, 7] as const;
const TABLES = ["gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit"] as const;
/** Model-specific registers that have a home of their own. */
const MSRS = [
  "efer",
  "star",
  "lstar",
  "cstar",
  "sfmask",
  "kernelGsBase",
  "tscAux",
  "tscOffset",
  "tscAdjust",
  "sysenterCs",
  "sysenterEsp",
  "sysenterEip",
  "pat",
  "apicBase",
  "miscEnable",
  "featureControl",
  "debugctl",
  "mtrrDefType",
] as const;
/** Current VMCS pointer and VMXON pointer; -1: none. */
const VMX_POINTERS = ["vmcsPointer", "vmxonPointer"] as const;
/** Host save area; the VMCB of the running guest; TSC ratio in 8.32 bits. */
const SVM_REGISTERS = ["vmHsave", "vmCr", "vmcb", "tscRatio"] as const;
/** Last branch and exception records. */
const BRANCHES = ["branchFrom", "branchTo", "lastExceptionFrom", "lastExceptionTo"] as const;
const UP_TO_3 = [0, 1, 2, 3] as const;
const UP_TO_7 = [...UP_TO_3, 4, 5, 6, 7] as const;
const UP_TO_10 = [...UP_TO_7, 8, 9, 10] as const;
const UP_TO_15 = [...UP_TO_10, 11, 12, 13, 14, 15] as const;

/** Names of registers of 8 bytes: of these lists, so that a public type can name them. */
export type WideCell =
  | GprName
  | "rip"
  | "rflags"
  | typeof CONTROL[number]
  | `dr${typeof DEBUG[number]}`
  | `${SegmentName}.base`
  | typeof TABLES[number]
  | typeof MSRS[number]
  | `mtrrVariable${typeof UP_TO_15[number]}`
  | `mtrrFixed${typeof UP_TO_10[number]}`
  | "pendingDebug"
  | "fip"
  | "fdp"
  | typeof VMX_POINTERS[number]
  | typeof SVM_REGISTERS[number]
  | typeof BRANCHES[number]
  | `${"pdpte" | "perfEvtSel" | "perfCtr"}${typeof UP_TO_3[number]}`;
/** The same, and those of 16. */
export type LargeCell =
  | WideCell
  | `fpr${typeof UP_TO_7[number]}`
  | `xmm${typeof UP_TO_15[number]}`;

/** What a program can observe of a processor, in the order of the saved block. */
export const CPU = cells(areaOf(MAP, "architectural"), {
  ...each(GPRS, 8),
  rip: 8,
  // Flags apart from the arithmetic ones while those are lazy; see flags.ts.
  rflags: 8,
  // The last arithmetic result: kind and width, CF while that is not 0, and two values.
  flagOp: 4,
  flagCarry: 4,
  flagX: 8,
  flagY: 8,
  ...each(CONTROL, 8),
  ...numbered("dr", DEBUG, 8),
  ...segmentCells(SEGMENTS),
  ...each(TABLES, 8),
  // PAE page-directory-pointer registers (SDM 3 4.4.1).
  ...numbered("pdpte", UP_TO_3, 8),
  ...each(MSRS, 8),
  ...numbered("mtrrVariable", UP_TO_15, 8),
  ...numbered("mtrrFixed", UP_TO_10, 8),
  // ACTIVITY, and bits of INTERRUPTIBILITY.
  activity: 4,
  interruptibility: 4,
  // Single-step and breakpoints waiting for the instruction boundary (format of DR6).
  pendingDebug: 8,
  pendingNmi: 4,
  a20Mask: 4,
  // x87: eight registers of 10 bytes in slots of 16, physical order; MMX aliases the low 8 bytes.
  ...numbered("fpr", UP_TO_7, 16),
  fcw: 4,
  fsw: 4,
  // Full tag word, two bits a register.
  ftw: 4,
  fop: 4,
  fip: 8,
  fdp: 8,
  fcs: 4,
  fds: 4,
  mxcsr: 4,
  mxcsrPad: 4,
  ...numbered("xmm", UP_TO_15, 16),
  // VMX operation: 0 off, 1 root, 2 non-root.
  vmxMode: 4,
  vmxPad: 4,
  ...each(VMX_POINTERS, 8),
  // SVM: global interrupt flag, guest mode.
  gif: 4,
  svmMode: 4,
  ...each(SVM_REGISTERS, 8),
  ...each(BRANCHES, 8),
  // AMD's performance counters: what each counts, and how much of it.
  ...numbered("perfEvtSel", UP_TO_3, 8),
  ...numbered("perfCtr", UP_TO_3, 8),
  // INIT was signalled, and has not been taken.
  pendingInit: 4,
  initPad: 4,
});
export type CpuCell = keyof typeof CPU;
/** All fields of the architectural block, in order. */
export const architecturalFields: readonly CellField[] = fieldsOf(CPU);
export const ARCHITECTURAL_START = architecturalFields[0].at;
const last = architecturalFields.at(-1)!;
export const ARCHITECTURAL_END = (last.at + last.width + 63) & ~63;

/** Byte offset of general register `n` (0 to 15, encoding order). */
export const gpr = (n: number): Cell<8> => CPU.rax + 8 * n;
/** Byte offset of debug register `n` (0 to 3, 6, 7). */
export const debugRegister = (n: number): Cell<8> => CPU.dr0 + 8 * (n < 4 ? n : n - 2);
/** Byte offset of PAE page-directory-pointer register `n` (0 to 3). */
export const pdpte = (n: number): Cell<8> => CPU.pdpte0 + 8 * n;
/** Byte offset of segment register `n` (0 to 5: ES CS SS DS FS GS, 6 LDTR, 7 TR). */
export const segment = (n: number): number => CPU["es.base"] + SEGMENT_SIZE * n;

/** Volatile cells: valid within a run, never saved. */
export const V = cells(areaOf(MAP, "volatile"), {
  /** Always zero: the absent base or index register. */
  zero: 8,
  /** Why an instruction was given up: an ABORT value. */
  abort: 4,
  /** The event being raised: vector, error code, whether there is one. */
  vector: 4,
  errorCode: 4,
  hasError: 4,
  /** EVENT_TYPE. */
  eventType: 4,
  /** The check that failed (checks.ts) and what it looked at. */
  check: 4,
  checkA: 8,
  checkB: 8,
  faultAddress: 8,
  /** Access class of the running code: ACCESS.user, ACCESS.smap or 0. */
  access: 4,
  /** Current privilege level. */
  cpl: 4,
  /** Linear minus EIP of the running page: EIP = this + offset in page. */
  ipBase: 8,
  /** Budget left when a handler needs it: instructions still allowed, the running one taken off. */
  left: 4,
  /** Budget of the slice and the instruction count at its start. */
  slice: 4,
  countBase: 8,
  /** First byte of the TLB class in use. */
  tlb: 4,
  /** Not zero: paging structures are walked. */
  paging: 4,
  /** Size of machine memory in bytes, as i64. */
  ramSize: 8,
  /** Value passed between a device access and its handler. */
  value: 8,
  /** Length of the running instruction. */
  length: 4,
  /** Number of steps a probing walk has recorded (see walk.ts). */
  walkCount: 4,
  /** Number of TLB fills since the last flush. */
  fills: 4,
  /** VM exit in the making: basic reason, qualification, and more (vmx). */
  exitReason: 8,
  exitQualification: 8,
  exitInstructionInfo: 8,
  exitGuestLinear: 8,
  exitGuestPhysical: 8,
  exitInstructionLength: 4,
  /** Not zero: intercepts are to be tested (non-root). */
  nonRoot: 4,
  /** EPT pointer in use, 0 if none. */
  eptp: 8,
  /** Emulation of one instruction for the hypervisor: accesses come from a log. */
  emulating: 4,
  /** Who watches data: WATCHING. */
  watching: 4,
  /** Number of frames marked as tables since the last flush. */
  tables: 4,
  /** This processor's bits of FRAME_FLAG.inWriteTlb and FRAME_FLAG.table. */
  writeMark: 4,
  tableMark: 4,
  /** Physical address mask of this processor (MAXPHYADDR), reserved bits of entries. */
  reservedHigh: 8,
  /** Valid bits of an interruption being delivered (vectoring), for nested faults. */
  vectoring: 4,
  vectoringError: 4,
  vectoringLength: 4,
  /** Access class of implicit supervisor accesses (descriptor tables, task states): ACCESS.smap or 0. */
  accessSystem: 4,
  /** The record of an instruction that is being intercepted. */
  record: 4,
  /** Base and limit of the code segment as fetches use them (0 and all ones in 64-bit mode), i64. */
  codeBase: 8,
  codeLimit: 8,
  /** Instruction pointer of an execution breakpoint that is being passed, i64; -1 for none. */
  passing: 8,
  /** Not zero while the running instruction is traced (TF); delivering an event clears it. */
  stepping: 4,
  /** Not zero if something waits for IF: who sets IF then ends the slice (serialize). */
  interruptPending: 4,
  /** The code mode (predecode.ts) of what runs, i64: the low bits of tags in the code TLB. */
  codeMode: 8,
  /** TSC ratio in force, 0 for 1.0, i64 (SVM guests). */
  tscRatio: 8,
  /** Not zero: PAE paging reads its PDPTEs in memory at each walk (SVM guests with nested paging). */
  pdptesInMemory: 4,
  /** Not zero: the run ended between two iterations of a repeated instruction. */
  repeating: 4,
  /** What the IRET of a VMX guest that is under way does to the blocking of NMIs: IRET_NMI; 0 else. */
  iret: 4,
  /** Not zero: AMD's ways where the two vendors' instructions differ (vendors.ts). */
  amd: 4,
  /** What the functions of system/segmentation/ hand each other: LINK in its descriptor.ts. */
  link: 0x40,
  /** Bits of PAGES_ABSENT: kinds of large pages that CPUID does not show. */
  pagesAbsent: 4,
  /** Bits of `hiddenMsrs`: registers that CPUID does not show. */
  hiddenMsrs: 4,
  /** Bits of CR4 and of EFER that this processor implements, i64; 0 stands for all that the machine knows. */
  cr4Valid: 8,
  eferValid: 8,
  /** The opcode of the x87 instruction that runs, as FOP has it. */
  x87Opcode: 4,
  /** Not zero: FERR# was seen, and who saw it is to be told when no exception is pending any more. */
  ferr: 4,
  /**
   * Not zero: CPUID hides MXCSR.MM, and so do FXSAVE's mask and LDMXCSR. No processor can do that to a
   * guest; here a CPUID that is common to both vendors leaves the same images in memory.
   */
  noMisaligned: 4,
  /** Not zero: the host of guests is played by TypeScript, no code runs in it. */
  hostedRoot: 4,
  /** 1: the last entry of a guest has delivered the INT n, INT1, INT3 or INTO that it injected. */
  injected: 4,
  /** Parameters that a call gate copies from one stack to the other. */
  gateParameters: 0x80,
  /** What XRSTOR has read of its header: XSTATE_BV, and 1 for the compacted format. */
  xstateBv: 8,
  xstateCompacted: 4,
  /** PDPTEs that a load of CR3 has read and not yet put in force. */
  pdptes: 4 * 8,
  /** Environment and results of the float functions: F in float/cells.ts. */
  float: 0x100,
  /** Operands of the SSE 4.2 string comparisons. */
  strings: 0x20,
  /** Entries of a running walk: address and value of each, to set their accessed bits at the end. */
  walkEntries: 0x50,
  /** What the TSS of a task that is switched to holds, in the order of system/segmentation/tasks.ts. */
  task: 0x50,
});

/** Values of CPU.activity (SDM 3 24.4.2). */
export const ACTIVITY = { active: 0, hlt: 1, shutdown: 2, waitForSipi: 3 } as const;

/** Bits of CPU.interruptibility: what blocks events (SDM 3 table 24-3). */
export const INTERRUPTIBILITY = { sti: 1, movSs: 2, smi: 4, nmi: 8 } as const;
/** Blocking by STI and by MOV SS: both end with the next instruction. */
export const SHADOW = INTERRUPTIBILITY.sti | INTERRUPTIBILITY.movSs;

/** What `interruptMode()` gives: an interrupt is the running guest's, or makes it leave; else it waits. */
export const INTERRUPT = { guests: 0, leaves: 1 } as const;

/** Bits of V.watching. */
export const WATCHING = { observers: 1, debugRegisters: 2 } as const;

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
  start: MAP.tlb,
  entries: 1024,
  entrySize: 16,
  read: 0,
  write: 0x4000,
  code: 0x8000,
  /** Translations of stores that must be looked at: to code, paging structures, ROM. */
  slow: 0xc000,
  classSize: TLB_CLASS,
  /**
   * user; supervisor; supervisor that may not touch user pages (SMAP, AC = 0); user with alignment
   * checks, whose read and write tables stay empty: each access goes the slow way.
   */
  classes: TLB_CLASSES,
} as const;

/** Places of the TLB entries filled, and of the frame-table entries marked, since the last flush. */
export const TLB_LIST = {
  fills: MAP.tlbFills,
  maxFills: 480,
  tables: MAP.tlbTables,
  maxTables: 480,
} as const;

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

/** Most processors of a machine: what each has derived from a frame is a bit of its flags. */
export const PROCESSORS: number = HOST_PROCESSORS_MAX;
/** Frame table, memory 2: 16 bytes a machine frame. */
export const FRAME = { size: 16, flags: 0, stores: 4, code: 8 } as const;
export const FRAME_FLAG = {
  /** Predecoded instructions lie in it. */
  code: 1,
  /** Written since the last hash or snapshot. */
  dirty: 4,
  /** A watchpoint lies in it. */
  watch: 8,
  /** Writes are ignored. */
  rom: 16,
  /** No memory answers here: devices do. */
  mmio: 32,
  /** A hypervisor has derived something from its contents: {@linkcode Machine.onWrite} is told of writes. */
  derived: 128,
  /** Written at some time: it was dirty, and is not any more. */
  written: 256,
  /** A write entry of a TLB may reach it: V.writeMark of each processor. */
  inWriteTlb: 0xff << 16,
  /** Paging structures that a TLB entry was derived from: V.tableMark of each processor. */
  table: 0xff << 24,
} as const;
/** The bits of processor `n`. */
export const frameMarks = (n: number): { readonly write: number; readonly table: number } => ({
  write: 1 << (16 + n),
  table: 1 << (24 + n),
});
