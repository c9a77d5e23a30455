/**
 * The function table through which the hypervisor reaches the virtualization hardware, whoever made
 * it: in the spirit of Xen's hvm_function_table and of the xvm_ops proposed in 2005. `vmx.ts` and
 * `svm.ts` fill it; nothing else names a vendor.
 *
 * A vCPU's state lies in machine memory: in the vendor's control structure and in a save area. The
 * objects here are handles. Hot operations take and give 32-bit halves; `bigint` is for views.
 */
import { CR0, CR4 } from "../abi/x86/cr.ts";
import type { Cpu } from "../machine/cpu.ts";
import type { RunStop } from "../machine/run.ts";
import type { CellField } from "../machine/wasm/cells.ts";
import type { Exit, GuestEvent } from "./exit.ts";
import type { ExitKind, FlagExitKind, Selective } from "./exit_kinds.ts";

/** Whole frames of machine memory (4 KiB), zeroed, for control structures and bitmaps. */
export interface FrameSource {
  /**
   * The machine address of a fresh frame, or of the first of `count` consecutive ones.
   * @throws if there are none left
   */
  allocate(count?: number): number;
  /** Gives one frame back. */
  free(address: number): void;
}

/** A processor whose virtualization extensions are on. */
export interface HvmCpu {
  readonly cpu: Cpu;
  /** The vCPU whose state is in the processor, if any. */
  readonly current: HvmVcpu | undefined;
}

/** A vCPU's hardware state. */
export interface HvmVcpu {
  readonly on: HvmCpu;
  /** Machine address of the control structure. */
  readonly control: number;
  /** Machine address of the save area; see {@linkcode AREA}. */
  readonly area: number;
  /**
   * General registers while the guest is not running: low and high halves of RAX, RCX, RDX, RBX,
   * (RSP, not here: {@linkcode HvmOps.getRegister}), RBP, RSI, RDI, R8 to R15.
   */
  readonly gprs: Int32Array;
  /**
   * What a shadowed guest sees where the hardware holds the hypervisor's own: words by
   * {@linkcode GUEST}, in the save area. Meaningful after {@linkcode HvmOps.setShadowRoot}; of CR0
   * and CR4 only the bits that the hypervisor owns ({@linkcode SHADOW_CR0}, {@linkcode SHADOW_CR4}).
   */
  readonly guest: Int32Array;
}

/** Places in {@linkcode HvmVcpu.guest}: the low half; the high one is behind it. */
export const GUEST = {
  cr0: 0,
  cr3: 2,
  cr4: 4,
  efer: 6,
  /** The four page-directory-pointer registers of PAE paging. */
  pdptes: 8,
  /** Bit 0: the vCPU is shadowed. */
  flags: 16,
  /** Of VMX: the debug trap of a task's T bit that is due, as in DR6. */
  taskTrap: 18,
} as const;

/** CR0: PE, WP, PG. CR4: PSE, PAE, PCIDE, SMEP, SMAP. What shadow paging keeps for itself. */
export const SHADOW_CR0 = (CR0.PG | CR0.WP | CR0.PE) >>> 0;
export const SHADOW_CR4 = CR4.PSE | CR4.PAE | CR4.PCIDE | CR4.SMEP | CR4.SMAP;

/** Offsets in a vCPU's save area (one frame). */
export const AREA = {
  /** 16 general registers of 8 bytes, encoding order; the place of RSP is unused. */
  gprs: 0,
  /** What the vendor's entry and exit do not switch; in the processor while the vCPU is loaded. */
  switched: 0x100,
  /** {@linkcode HvmVcpu.guest}. */
  guest: 0x800,
} as const;

/** Segment registers and the two system ones. */
export type SegmentRegister = "es" | "cs" | "ss" | "ds" | "fs" | "gs" | "ldtr" | "tr";
export const segmentRegisters: readonly SegmentRegister[] = [
  "es",
  "cs",
  "ss",
  "ds",
  "fs",
  "gs",
  "ldtr",
  "tr",
];

/** A segment register with its hidden part. */
export interface Segment {
  /** 16 bits, RPL in 1:0. */
  readonly selector: number;
  /** Linear address. */
  readonly base: bigint;
  /** In bytes. */
  readonly limit: number;
  /** Type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16. */
  readonly attributes: number;
}

export interface DescriptorTable {
  readonly base: bigint;
  readonly limit: number;
}

/** Names of 64-bit registers: the general ones, and rip, rsp, rflags, cr2, dr0 to dr3, dr6, dr7. */
export type RegisterName =
  | "rax"
  | "rcx"
  | "rdx"
  | "rbx"
  | "rsp"
  | "rbp"
  | "rsi"
  | "rdi"
  | "r8"
  | "r9"
  | "r10"
  | "r11"
  | "r12"
  | "r13"
  | "r14"
  | "r15"
  | "rip"
  | "rflags"
  | "cr2"
  | "dr0"
  | "dr1"
  | "dr2"
  | "dr3"
  | "dr6"
  | "dr7";

/** cpu_user_regs: what a vCPU's code sees of itself, as one view. */
export type UserRegisters = Readonly<Record<RegisterName, bigint>>;

/**
 * Which exits are wanted. What is left out stays as it is. Some exits come whatever one asks (CPUID
 * on one vendor); they are then handled and not shown. Those a vendor does not have
 * ({@linkcode HvmOps.exitKinds}) do not come however one asks.
 */
export type Intercepts =
  & { readonly [K in FlagExitKind]?: boolean }
  & Readonly<Selective>
  & {
    /** Of {@linkcode HvmOps.takesAway}: instructions that are undefined. */
    readonly absent?: readonly string[];
  };
/** The same, while it is being put together. */
export type Wanted = { -readonly [K in keyof Intercepts]: Intercepts[K] };

/** Why the processor came back without an exit: nothing that the guest did. */
export type Stopped = Exclude<RunStop, "exit">;

/** What may run and how long in {@linkcode HvmOps.enter}. */
export interface EnterOptions {
  /** Most instructions to run. */
  readonly budget: number;
  /** Accesses to guest-physical addresses without memory go to the processor's emulation hooks. */
  readonly emulate?: boolean;
  /**
   * Asked of each #PF that makes a shadowed guest leave, before an exit is made of it: linear
   * address and error code of the hardware. True: the guest is entered again at once.
   */
  readonly pageFault?: (low: number, high: number, errorCode: number) => boolean;
}

/** Rights of a nested translation. */
export interface NestedRights {
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
}

/** Format of nested page-table entries: 8 bytes each, four levels of 512. */
export interface NestedFormat {
  /** An entry for a table at a machine address. */
  table(address: number): bigint;
  /** An entry for a 4-KByte page. */
  page(address: number, rights: NestedRights): bigint;
  /** Machine address in an entry, undefined if it is not present. */
  address(entry: bigint): number | undefined;
  /** What the processor's walk goes by: the root, and how its tables are to be read. */
  pointer(root: number): bigint;
  /** An entry's flags in words; absent where they are those of 4-level paging. */
  flags?(entry: bigint, level: number): readonly string[];
}

/** One field of a raw control structure, for the shell. */
export interface RawField {
  readonly name: string;
  /** The vendor's encoding or offset. */
  readonly code: number;
  readonly bits: number;
  readonly value: bigint;
  /** Names of the bits set, for control words. */
  readonly set?: readonly string[];
}

/** State of a vCPU between instructions. */
export type Activity = "active" | "hlt" | "shutdown" | "wait-for-sipi";
/** By the processor's number of it. */
export const ACTIVITIES: readonly Activity[] = ["active", "hlt", "shutdown", "wait-for-sipi"];

/** Shadows: after STI, after MOV SS, and while an NMI is being handled. */
export interface InterruptShadow {
  readonly sti: boolean;
  readonly movSs: boolean;
  readonly nmi: boolean;
}

/**
 * The table. Functions that read or write a vCPU's state make it current on its processor first.
 *
 * Registers with bits the hardware keeps for itself (CR0, CR4) read and write as the guest sees them.
 */
export interface HvmOps {
  /** The hardware's name, for display only. */
  readonly name: string;
  /** Bytes of the instruction by which a guest calls the hypervisor. */
  readonly hypercallInstruction: readonly number[];
  /** The kinds of exit it can give. */
  readonly exitKinds: readonly ExitKind[];
  /** What lies in a vCPU's control structure and in its save area, by the manual's names. */
  readonly fields: { readonly control: readonly CellField[]; readonly area: readonly CellField[] };
  /** CPUID features whose instructions it can make undefined; see {@linkcode Intercepts.absent}. */
  readonly takesAway: readonly string[];

  /** Turns the extensions on. @throws if the processor has none or its firmware locked them */
  enable(cpu: Cpu, frames: FrameSource): HvmCpu;
  disable(on: HvmCpu, frames: FrameSource): void;

  /** A vCPU in its state after reset, with nested paging, and no exits asked for. */
  createVcpu(on: HvmCpu, frames: FrameSource): HvmVcpu;
  destroyVcpu(v: HvmVcpu, frames: FrameSource): void;
  /** A handle on a vCPU whose state is in memory already (after a restore). */
  attachVcpu(on: HvmCpu, control: number, area: number): HvmVcpu;

  /** Makes the vCPU current: what entry does not switch goes to the processor. */
  load(v: HvmVcpu): void;
  /** Takes the current vCPU's state back to memory. */
  unload(on: HvmCpu): void;
  /** After state was restored from outside, or frames of a control structure were written. */
  refresh(on: HvmCpu, current: HvmVcpu | undefined): void;

  /** Runs the guest until it leaves, or the processor stops for something else: that is no exit. */
  enter(v: HvmVcpu, options: EnterOptions): Exit | Stopped;

  storeRegisters(v: HvmVcpu): UserRegisters;
  loadRegisters(v: HvmVcpu, registers: Partial<UserRegisters>): void;
  getRegister(v: HvmVcpu, name: RegisterName): bigint;
  setRegister(v: HvmVcpu, name: RegisterName, value: bigint): void;
  getSegment(v: HvmVcpu, name: SegmentRegister): Segment;
  setSegment(v: HvmVcpu, name: SegmentRegister, value: Segment): void;
  getDescriptorTable(v: HvmVcpu, name: "gdtr" | "idtr"): DescriptorTable;
  setDescriptorTable(v: HvmVcpu, name: "gdtr" | "idtr", value: DescriptorTable): void;
  /** CR0, CR2, CR3, CR4 or CR8 as the guest sees it. */
  getCr(v: HvmVcpu, n: 0 | 2 | 3 | 4 | 8): bigint;
  /** Sets it as the guest would see it; modes that follow (long mode) are seen to. */
  setCr(v: HvmVcpu, n: 0 | 2 | 3 | 4 | 8, value: bigint): void;
  /** An MSR that belongs to the vCPU's hardware state; undefined for any other. */
  getMsr(v: HvmVcpu, msr: number): bigint | undefined;
  /** False if the MSR is not part of the vCPU's hardware state. */
  setMsr(v: HvmVcpu, msr: number, value: bigint): boolean;
  getActivity(v: HvmVcpu): Activity;
  setActivity(v: HvmVcpu, activity: Activity): void;
  /** Current privilege level. */
  getCpl(v: HvmVcpu): number;
  /** EFER.LMA and CS.L. */
  in64BitMode(v: HvmVcpu): boolean;

  /** Moves the instruction pointer past the instruction that left; ends interrupt shadows. */
  advance(v: HvmVcpu, length: number): void;
  /** Breakpoints that the instruction just completed has met (bits B0 to B3): their #DB is due. */
  trap(v: HvmVcpu, causes: number): void;
  /** Injects at the next entry. One event at a time: a second replaces the first. */
  inject(v: HvmVcpu, event: GuestEvent): void;
  /** The event that waits for the next entry. */
  pendingEvent(v: HvmVcpu): GuestEvent | undefined;
  cancelEvent(v: HvmVcpu): void;
  interruptShadow(v: HvmVcpu): InterruptShadow;
  setInterruptShadow(v: HvmVcpu, shadow: InterruptShadow): void;
  /** An external interrupt could be injected now: IF set, no shadow, no event pending. */
  canInterrupt(v: HvmVcpu): boolean;
  /** Asks for an exit as soon as an interrupt (an NMI) could be injected. */
  setInterruptWindow(v: HvmVcpu, on: boolean): void;
  setNmiWindow(v: HvmVcpu, on: boolean): void;
  /** Asks for an exit of kind "debug" after one instruction. */
  setSingleStep(v: HvmVcpu, on: boolean): void;
  /** Instructions until an exit of kind "preemption-timer" (rounded up), undefined: never. */
  setPreemptionTimer(v: HvmVcpu, instructions: number | undefined): void;

  setIntercepts(v: HvmVcpu, wanted: Intercepts): void;
  /** Added to the host's time-stamp counter when the guest reads its own. */
  setTscOffset(v: HvmVcpu, offset: bigint): void;
  /** Entries of the nested page tables. */
  readonly nestedFormat: NestedFormat;
  /** Nested paging with its root at a machine address; undefined: the guest's CR3 is machine's. */
  setNestedRoot(v: HvmVcpu, root: number | undefined): void;
  /**
   * Shadow paging: the processor walks the tables at this machine address and no others, PAE ones
   * (four pointers) unless the guest is in long mode, then 4-level ones. From the first call:
   * - CR0, CR3, CR4 and EFER that the guest sees are kept in `v.guest` (all that `getCr`, `setCr`,
   *   `getMsr` and `setMsr` show); in hardware PG, WP, PAE and NXE are set whatever the guest does;
   * - all #PF, reads and writes of CR3, and writes that change {@linkcode SHADOW_CR0} and
   *   {@linkcode SHADOW_CR4} leave, besides what `setIntercepts` asks for;
   * - real mode works, by whatever means the hardware has; "budget" may then come early, when the
   *   guest's paging may have changed;
   * - `enter` with `emulate` runs on the guest's own control registers and tables, over the nested
   *   tables given to `setNestedRoot`, which serve for nothing else.
   *
   * Undefined: nested paging again.
   */
  setShadowRoot(v: HvmVcpu, root: number | undefined): void;
  /** Drops what was derived from this vCPU's translations. */
  flushTranslations(v: HvmVcpu): void;

  /** Every field of the control structure. */
  dump(v: HvmVcpu): readonly RawField[];
  /** A raw field by name. @throws {RangeError} if there is no such field */
  readRaw(v: HvmVcpu, name: string): bigint;
  writeRaw(v: HvmVcpu, name: string, value: bigint): void;
}
