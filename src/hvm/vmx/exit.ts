/** From the exit fields of a VMCS to the neutral Exit. */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { CR0, RFLAGS } from "../../abi/x86/cr.ts";
import { EVENT, EXIT_REASON, exitReasonNames } from "../../abi/x86/vmx.ts";
import { checkById } from "../../machine/checks.ts";
import {
  type Common,
  type EventType,
  type Exit,
  type ExitOf,
  type GuestEvent,
  type PlainKind,
  type Wide,
  wide,
} from "../exit.ts";
import type { ExitKind } from "../exit_kinds.ts";
import { cpuidExit, msrExit, portValue } from "../registers.ts";
import { INTERRUPTIBILITY } from "../../machine/state.ts";
import { STUB } from "../../machine/vmx/layout.ts";
import { F, type VmxVcpu } from "./cpu.ts";

const TYPES: readonly (EventType | undefined)[] = [
  "external-interrupt",
  undefined,
  "nmi",
  "exception",
  "software-interrupt",
  "privileged-software-exception",
  "software-exception",
  undefined,
];

/** Interruption information for the VMCS. */
export function eventInformation(event: GuestEvent): number {
  const type = TYPES.indexOf(event.type);
  if (type < 0 || !(event.vector >= 0 && event.vector <= 255)) {
    throw new RangeError(
      `an event: a type of ${TYPES.filter((t) => t)} and a vector of 0 to 255 were expected, ` +
        `${event.type} ${event.vector} was given`,
    );
  }
  const code = event.errorCode === undefined ? 0 : EVENT.errorCode;
  return EVENT.valid | code | type << EVENT.typeShift | event.vector;
}

/** An event from interruption or IDT-vectoring information that is valid. */
export function eventFrom(info: number, code: number, length: number): GuestEvent {
  const number = info >>> EVENT.typeShift & 7;
  const type = TYPES[number] ?? "exception";
  const event = { type, vector: info & EVENT.vector };
  if (info & EVENT.errorCode) return { ...event, errorCode: code >>> 0 };
  return number >= 4 ? { ...event, length } : event;
}

/** Kinds that are never made here: the neighbour's alone. */
export const NOT_HERE: readonly ExitKind[] = [
  "iret",
  "pushf",
  "popf",
  "software-interrupt",
  "icebp",
  "rsm",
  "smi",
  "init",
];

/** Exits whose name is all there is to say. */
const PLAIN: Readonly<Record<number, PlainKind>> = {
  [EXIT_REASON.interruptWindow]: "interrupt-window",
  [EXIT_REASON.nmiWindow]: "nmi-window",
  [EXIT_REASON.hlt]: "hlt",
  [EXIT_REASON.pause]: "pause",
  [EXIT_REASON.monitor]: "monitor",
  [EXIT_REASON.vmcall]: "hypercall",
  [EXIT_REASON.rdpmc]: "rdpmc",
  [EXIT_REASON.tripleFault]: "triple-fault",
  [EXIT_REASON.wbinvd]: "wbinvd",
  [EXIT_REASON.invd]: "invd",
  [EXIT_REASON.xsetbv]: "xsetbv",
  [EXIT_REASON.invpcid]: "invpcid",
  [EXIT_REASON.rdrand]: "rdrand",
  [EXIT_REASON.rdseed]: "rdseed",
  [EXIT_REASON.preemptionTimer]: "preemption-timer",
  [EXIT_REASON.tprBelowThreshold]: "tpr",
  [EXIT_REASON.monitorTrapFlag]: "debug",
};

const INSTRUCTIONS = [
  EXIT_REASON.vmclear,
  EXIT_REASON.vmlaunch,
  EXIT_REASON.vmptrld,
  EXIT_REASON.vmptrst,
  EXIT_REASON.vmread,
  EXIT_REASON.vmresume,
  EXIT_REASON.vmwrite,
  EXIT_REASON.vmxoff,
  EXIT_REASON.vmxon,
  EXIT_REASON.invept,
  EXIT_REASON.invvpid,
] as readonly number[];

const TABLES = ["sgdt", "sidt", "lgdt", "lidt", "sldt", "str", "lldt", "ltr"] as const;

/** Why the guest just left; the event whose delivery was cut short is queued again. */
export function decodeExit(v: VmxVcpu): Exit {
  const { on } = v;
  const reason = on.exit(STUB.reason);
  if (reason < 0) return entryFailed(v, reason & 0xffff);
  const vectoring = on.exit(STUB.vectoring);
  const length = on.exit(STUB.length);
  const common: Common = vectoring < 0
    ? { length, vectoring: requeue(v, vectoring, reason) }
    : { length };
  if (vectoring >= 0) blockAgain(v, reason);
  const kind = PLAIN[reason];
  if (kind !== undefined) return { kind, ...common };
  switch (reason) {
    case EXIT_REASON.cpuid:
      return cpuidExit(v, common);
    case EXIT_REASON.io:
      return io(v, common);
    case EXIT_REASON.eptViolation:
    case EXIT_REASON.eptMisconfiguration:
      return nested(v, reason === EXIT_REASON.eptMisconfiguration, common);
    case EXIT_REASON.cr:
      return cr(v, common);
    case EXIT_REASON.rdmsr:
    case EXIT_REASON.wrmsr:
      return msrExit(v, reason === EXIT_REASON.wrmsr, common);
    case EXIT_REASON.externalInterrupt: {
      const info = on.exit(STUB.interruption);
      return { kind: "external-interrupt", vector: info < 0 ? info & 0xff : -1, ...common };
    }
    case EXIT_REASON.exception:
      return exception(v, common);
    default:
      return rare(v, reason, common);
  }
}

/** Types of events that instructions raise: INT n, INT1, INT3 and INTO. */
export const FIRST_SOFTWARE = 4;

/** The cut-short event goes in again at the next entry, unless a task switch consumed it. */
export function requeue(v: VmxVcpu, info: number, reason: number): GuestEvent {
  const { on } = v;
  const code = on.read(F.idtVectoringErrorCode), length = on.exit(STUB.length);
  if (reason !== EXIT_REASON.taskSwitch) {
    on.write(F.entryInterruptionInformation, info & ~EVENT.nmiUnblocking, 0);
    on.write(F.entryExceptionErrorCode, code, 0);
    on.write(F.entryInstructionLength, length, 0);
    const type = info >>> EVENT.typeShift & 7;
    // RF is that of the fault's image (27.3.3); what an instruction raised is no fault.
    if (reason === EXIT_REASON.exception && type >= FIRST_SOFTWARE) {
      on.write(F.guestRflags, on.read(F.guestRflags) & ~RFLAGS.RF, 0);
    }
    // An NMI that is to be delivered again does not block itself.
    if (type === 2) {
      on.write(F.guestInterruptibility, on.read(F.guestInterruptibility) & ~8, 0);
    }
  }
  return eventFrom(info, code, length);
}

/** The guest is to repeat an IRET that has unblocked NMIs before it gave up (SDM 3 27.2.3). */
function blockAgain(v: VmxVcpu, reason: number): void {
  const { on } = v;
  let word = 0;
  if (reason === EXIT_REASON.exception) word = on.exit(STUB.interruption);
  else if (reason === EXIT_REASON.eptViolation) word = on.exit(STUB.qualification);
  if ((word & EVENT.nmiUnblocking) === 0) return;
  on.write(F.guestInterruptibility, on.read(F.guestInterruptibility) | INTERRUPTIBILITY.nmi, 0);
}

function readWide(v: VmxVcpu, field: number): Wide {
  v.on.read(field);
  return wide(v.on.low, v.on.high);
}

const qualification = (v: VmxVcpu): Wide =>
  wide(v.on.exit(STUB.qualification), v.on.exit(STUB.qualification + 4));

function io(v: VmxVcpu, common: Common): Exit {
  const q = v.on.exit(STUB.qualification);
  const size = (q & 7) + 1, string = (q & 0x10) !== 0, write = (q & 8) === 0;
  const exit = {
    kind: "io",
    write,
    port: q >>> 16,
    size,
    string,
    rep: (q & 0x20) !== 0,
    value: portValue(v, write, size),
    ...common,
  } as const;
  return string ? { ...exit, address: readWide(v, F.guestLinearAddress) } : exit;
}

function nested(v: VmxVcpu, misconfigured: boolean, common: Common): Exit {
  const { on } = v;
  on.read(F.guestPhysicalAddress);
  const gpa = (on.high >>> 0) * 2 ** 32 + (on.low >>> 0);
  const q = misconfigured ? 0 : on.exit(STUB.qualification);
  return {
    kind: "nested-page-fault",
    gpa,
    linear: q & 0x80 ? readWide(v, F.guestLinearAddress) : undefined,
    read: (q & 1) !== 0,
    write: (q & 2) !== 0,
    fetch: (q & 4) !== 0,
    walk: (q & 0x180) === 0x80,
    rights: q >>> 3 & 7,
    misconfigured,
    ...common,
  };
}

const CR_ACCESS = ["mov", "mov", "clts", "lmsw"] as const;

function cr(v: VmxVcpu, common: Common): ExitOf<"cr"> {
  const q = v.on.exit(STUB.qualification);
  const type = q >>> 4 & 3, gpr = q >>> 8 & 15;
  const write = type !== 1;
  let value = wide(0, 0);
  if (type === 0) value = registerOf(v, gpr);
  else if (type === 3) value = wide(q >>> 16, 0);
  const number = type >= 2 ? 0 : q & 15;
  return { kind: "cr", cr: number, write, access: CR_ACCESS[type], gpr, value, ...common };
}

/** A general register by number; RSP lies in the VMCS. Outside 64-bit mode the low half counts. */
function registerOf(v: VmxVcpu, n: number): Wide {
  if (n === 4) return readWide(v, F.guestRsp);
  return wide(v.gprs[2 * n], v.gprs[2 * n + 1]);
}

function exception(v: VmxVcpu, common: Common): Exit {
  const { on } = v;
  const info = on.exit(STUB.interruption);
  if ((info >>> EVENT.typeShift & 7) === 2) return { kind: "nmi", ...common };
  const event = eventFrom(info, on.read(F.exitInterruptionErrorCode), common.length);
  // NE is the hardware's, the guest's own is in the shadow.
  if (event.vector === VECTOR.MF && !(on.read(F.cr0ReadShadow) & CR0.NE)) {
    return { kind: "coprocessor-error", ...common };
  }
  return {
    kind: "exception",
    event,
    qualification: qualification(v),
    ...common,
  };
}

const SOURCES: readonly ExitOf<"task-switch">["source"][] = ["call", "iret", "jmp", "gate"];

type Instruction = ExitOf<"virtualization-instruction">["instruction"];

function rare(v: VmxVcpu, reason: number, common: Common): Exit {
  const { on } = v;
  const q = on.exit(STUB.qualification);
  switch (reason) {
    case EXIT_REASON.dr:
      return { kind: "dr", dr: q & 7, write: (q & 0x10) === 0, gpr: q >>> 8 & 15, ...common };
    case EXIT_REASON.invlpg:
      return { kind: "invlpg", linear: qualification(v), ...common };
    case EXIT_REASON.rdtsc:
    case EXIT_REASON.rdtscp:
      return { kind: "rdtsc", aux: reason === EXIT_REASON.rdtscp, ...common };
    case EXIT_REASON.mwait:
      return { kind: "mwait", armed: (q & 1) !== 0, ...common };
    case EXIT_REASON.taskSwitch:
      return { kind: "task-switch", selector: q & 0xffff, source: SOURCES[q >>> 30], ...common };
    case EXIT_REASON.gdtrIdtr:
    case EXIT_REASON.ldtrTr: {
      const number = on.read(F.exitInstructionInformation) >>> 28 & 3;
      const instruction: ExitOf<"descriptor-table">["instruction"] =
        TABLES[number + (reason === EXIT_REASON.ldtrTr ? 4 : 0)];
      return { kind: "descriptor-table", instruction, ...common };
    }
  }
  if (INSTRUCTIONS.includes(reason)) {
    const instruction = exitReasonNames[reason] as Instruction;
    return { kind: "virtualization-instruction", instruction, ...common };
  }
  return { kind: "unknown", reason, ...common };
}

function entryFailed(v: VmxVcpu, reason: number): ExitOf<"entry-failure"> {
  const what = reason === EXIT_REASON.msrLoading ? "msr-loading" : "guest-state";
  return failure(v, what, reason);
}

function failure(
  v: VmxVcpu,
  what: ExitOf<"entry-failure">["what"],
  code: number,
): ExitOf<"entry-failure"> {
  const { id, text } = v.on.lastCheck();
  return { kind: "entry-failure", what, check: checkById(id).name, text, code, length: 0 };
}

/** VM entry that failed as an instruction (VMfailValid). */
export function entryRefused(v: VmxVcpu): ExitOf<"entry-failure"> {
  const { check } = failure(v, "instruction", 0);
  const error = v.on.read(F.instructionError);
  const what = check.startsWith("vmx.host")
    ? "host-state"
    : error === 7
    ? "controls"
    : "instruction";
  return failure(v, what, error);
}
