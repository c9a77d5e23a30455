/**
 * Why a guest in a hardware virtual machine came back, in words that no vendor owns. `hvm` makes
 * these from the vendor's raw fields; `xen/exits` handles them by kind.
 *
 * Numbers are unsigned unless they say otherwise. Values of 64 bits come as two halves
 * ({@linkcode Wide}), because exits are hot; {@linkcode wideToBigInt} joins them.
 */

/** A 64-bit value as unsigned halves. */
export interface Wide {
  readonly low: number;
  readonly high: number;
}

export function wide(low: number, high: number): Wide {
  return { low: low >>> 0, high: high >>> 0 };
}
export function wideToBigInt(value: Wide): bigint {
  return BigInt(value.high) << 32n | BigInt(value.low);
}
/** The value as a number; exact below 2^53 (physical addresses are). */
export function wideToNumber(value: Wide): number {
  return value.high * 2 ** 32 + value.low;
}
export function toWide(value: bigint | number): Wide {
  const v = BigInt.asUintN(64, BigInt(value));
  return { low: Number(v & 0xffff_ffffn), high: Number(v >> 32n) };
}

/** What kind of event is injected, was being delivered, or made a guest leave. */
export type EventType =
  | "external-interrupt"
  | "nmi"
  | "exception"
  /** INT n. */
  | "software-interrupt"
  /** INT1. */
  | "privileged-software-exception"
  /** INT3, INTO. */
  | "software-exception";

/** An interrupt or exception. */
export interface GuestEvent {
  readonly type: EventType;
  /** 0 to 255. */
  readonly vector: number;
  readonly errorCode?: number;
  /** Bytes of the instruction, for the software events. */
  readonly length?: number;
}

interface Common {
  /** Bytes of the instruction that left, 0 where there is none. */
  readonly length: number;
  /** The event whose delivery was cut short; it is queued again before this exit is handed on. */
  readonly vectoring?: GuestEvent;
}

export interface CpuidExit extends Common {
  readonly kind: "cpuid";
  readonly leaf: number;
  readonly subleaf: number;
}
export interface MsrExit extends Common {
  readonly kind: "msr";
  readonly write: boolean;
  /** The MSR's number. */
  readonly msr: number;
  /** EDX:EAX; what is written, if it is a write. */
  readonly value: Wide;
}
export interface IoExit extends Common {
  readonly kind: "io";
  readonly write: boolean;
  readonly port: number;
  /** 1, 2 or 4 bytes. */
  readonly size: number;
  /** INS or OUTS; then `address` is the linear address of its memory operand. */
  readonly string: boolean;
  readonly rep: boolean;
  /** What OUT writes, cut to its size. */
  readonly value: number;
  readonly address?: Wide;
}
export interface NestedPageFaultExit extends Common {
  readonly kind: "nested-page-fault";
  /** Guest-physical address. */
  readonly gpa: number;
  /** Linear address, where the access had one. */
  readonly linear?: Wide;
  readonly read: boolean;
  readonly write: boolean;
  readonly fetch: boolean;
  /** The access was the guest's page walk, not what it was for. */
  readonly walk: boolean;
  /** Rights of the nested translation: bits 0 read, 1 write, 2 execute; 0: not present. */
  readonly rights: number;
  /** The nested entry is malformed. */
  readonly misconfigured: boolean;
}
/**
 * A write that shadow paging keeps to itself: to a frame that is shadowed as a paging structure, or
 * by a supervisor to a read-only page while CR0.WP is clear. The one emulator completes it.
 */
export interface ShadowWriteExit extends Common {
  readonly kind: "shadow-write";
  /** Guest-physical address. */
  readonly gpa: number;
  readonly linear: Wide;
}
export interface CrExit extends Common {
  readonly kind: "cr";
  /** 0, 3, 4 or 8. */
  readonly cr: number;
  readonly write: boolean;
  readonly access: "mov" | "clts" | "lmsw";
  /** General register of MOV, 0 (RAX) to 15. */
  readonly gpr: number;
  /** What is written: the register, or for LMSW the 16-bit source. */
  readonly value: Wide;
}
export interface DrExit extends Common {
  readonly kind: "dr";
  readonly dr: number;
  readonly write: boolean;
  readonly gpr: number;
}
export interface ExceptionExit extends Common {
  readonly kind: "exception";
  readonly event: GuestEvent;
  /** The linear address of a #PF; bits as in DR6 for a #DB. */
  readonly qualification: Wide;
}
export interface NmiExit extends Common {
  readonly kind: "nmi";
}
/** An interrupt of the host arrived. */
export interface ExternalInterruptExit extends Common {
  readonly kind: "external-interrupt";
  /** Acknowledged vector, -1 if it is still pending. */
  readonly vector: number;
}
export interface TaskSwitchExit extends Common {
  readonly kind: "task-switch";
  readonly selector: number;
  readonly source: "call" | "iret" | "jmp" | "gate";
}
/** INT n. */
export interface SoftwareInterruptExit extends Common {
  readonly kind: "software-interrupt";
  readonly vector: number;
}
export interface InvlpgExit extends Common {
  readonly kind: "invlpg";
  readonly linear: Wide;
}
export interface DescriptorTableExit extends Common {
  readonly kind: "descriptor-table";
  readonly instruction: "sgdt" | "sidt" | "lgdt" | "lidt" | "sldt" | "str" | "lldt" | "ltr";
}
export interface RdtscExit extends Common {
  readonly kind: "rdtsc";
  /** RDTSCP: ECX gets the TSC_AUX MSR too. */
  readonly aux: boolean;
}
export interface MwaitExit extends Common {
  readonly kind: "mwait";
  readonly armed: boolean;
}
/** An instruction of the virtualization extensions themselves, other than the hypercall. */
export interface VirtualizationExit extends Common {
  readonly kind: "virtualization-instruction";
  readonly instruction: string;
}
/** Exits that say all by their name. */
export interface PlainExit extends Common {
  readonly kind:
    | "interrupt-window"
    | "nmi-window"
    | "hlt"
    | "pause"
    | "monitor"
    | "hypercall"
    | "rdpmc"
    | "triple-fault"
    | "wbinvd"
    | "invd"
    | "xsetbv"
    | "invpcid"
    | "rdrand"
    | "rdseed"
    | "preemption-timer"
    | "iret"
    | "pushf"
    | "popf"
    /** INT1. */
    | "icebp"
    /** CR0.NE is clear, and a waiting x87 instruction found an exception pending (FERR#). */
    | "coprocessor-error"
    | "rsm"
    /** A system-management interrupt of the host. */
    | "smi"
    /** The host was asked to initialize. */
    | "init"
    /** The guest's task priority fell below the threshold. */
    | "tpr"
    /** One instruction was executed (monitor trap, single-step). */
    | "debug";
}
/** The guest could not be entered: its state or the controls are not allowed. */
export interface EntryFailureExit extends Common {
  readonly kind: "entry-failure";
  readonly what: "controls" | "host-state" | "guest-state" | "msr-loading" | "instruction";
  /** The check that failed (machine/checks.ts), with its operands filled in. */
  readonly check: string;
  readonly text: string;
  /** The vendor's number for it. */
  readonly code: number;
}
/** Not the guest's doing: the run was over. */
export interface StoppedExit extends Common {
  readonly kind: "stopped";
  readonly why:
    | "budget"
    | "halt"
    | "shutdown"
    | "breakpoint"
    | "watch"
    | "unanswered"
    | "fault"
    | "stopped";
}
/** A reason this hypervisor asks for nowhere. */
export interface UnknownExit extends Common {
  readonly kind: "unknown";
  /** The vendor's number. */
  readonly reason: number;
}

/** Why a guest left. */
export type Exit =
  | CpuidExit
  | MsrExit
  | IoExit
  | NestedPageFaultExit
  | ShadowWriteExit
  | CrExit
  | DrExit
  | ExceptionExit
  | NmiExit
  | ExternalInterruptExit
  | TaskSwitchExit
  | SoftwareInterruptExit
  | InvlpgExit
  | DescriptorTableExit
  | RdtscExit
  | MwaitExit
  | VirtualizationExit
  | PlainExit
  | EntryFailureExit
  | StoppedExit
  | UnknownExit;

export type ExitKind = Exit["kind"];

/** Every kind of exit, for statistics, completion and filters. */
export const exitKinds: readonly ExitKind[] = [
  "cpuid",
  "msr",
  "io",
  "nested-page-fault",
  "shadow-write",
  "cr",
  "dr",
  "exception",
  "nmi",
  "external-interrupt",
  "task-switch",
  "invlpg",
  "descriptor-table",
  "rdtsc",
  "mwait",
  "virtualization-instruction",
  "interrupt-window",
  "nmi-window",
  "hlt",
  "pause",
  "monitor",
  "hypercall",
  "rdpmc",
  "triple-fault",
  "wbinvd",
  "invd",
  "xsetbv",
  "invpcid",
  "rdrand",
  "rdseed",
  "preemption-timer",
  "iret",
  "pushf",
  "popf",
  "software-interrupt",
  "icebp",
  "coprocessor-error",
  "rsm",
  "smi",
  "init",
  "tpr",
  "debug",
  "entry-failure",
  "stopped",
  "unknown",
];
