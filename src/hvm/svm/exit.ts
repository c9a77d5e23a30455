/** From the exit fields of a VMCB to the neutral Exit, and events to and from their format there. */
import { exceptionVectors, VECTOR } from "../../abi/x86/vectors.ts";
import { CR0, DR6 } from "../../abi/x86/cr.ts";
import {
  EXIT_CODE,
  exitCodeName,
  IOIO,
  SVM_EVENT,
  SVM_EVENT_TYPE,
  TASK_SWITCH,
} from "../../abi/x86/vmcb.ts";
import { checkById } from "../../machine/checks.ts";
import {
  type Common,
  type Exit,
  type ExitOf,
  type GuestEvent,
  type PlainKind,
  type Wide,
  wide,
} from "../exit.ts";
import type { ExitKind } from "../exit_kinds.ts";
import { cpuidExit, gprOf, msrExit, portValue } from "../registers.ts";
import { F, OWN, type SvmVcpu } from "./cpu.ts";
import { instructionAt, registerOf, sourceWord } from "./instruction.ts";
import { nestedRights } from "./paging.ts";
import { is64 } from "./state.ts";

/** Kinds that are never made here: the neighbour's alone. */
export const NOT_HERE: readonly ExitKind[] = ["rdrand", "rdseed", "tpr"];

/** Exits whose name is all there is to say. */
const PLAIN: Readonly<Record<number, PlainKind>> = {
  [EXIT_CODE.vintr]: "interrupt-window",
  [EXIT_CODE.hlt]: "hlt",
  [EXIT_CODE.pause]: "pause",
  [EXIT_CODE.monitor]: "monitor",
  [EXIT_CODE.vmmcall]: "hypercall",
  [EXIT_CODE.rdpmc]: "rdpmc",
  [EXIT_CODE.shutdown]: "triple-fault",
  [EXIT_CODE.wbinvd]: "wbinvd",
  [EXIT_CODE.invd]: "invd",
  [EXIT_CODE.xsetbv]: "xsetbv",
  [EXIT_CODE.invpcid]: "invpcid",
  [EXIT_CODE.iret]: "iret",
  [EXIT_CODE.pushf]: "pushf",
  [EXIT_CODE.popf]: "popf",
  [EXIT_CODE.icebp]: "icebp",
  [EXIT_CODE.ferrFreeze]: "coprocessor-error",
  [EXIT_CODE.rsm]: "rsm",
  [EXIT_CODE.smi]: "smi",
  [EXIT_CODE.init]: "init",
};

const INSTRUCTIONS: readonly number[] = [
  EXIT_CODE.invlpga,
  EXIT_CODE.vmrun,
  EXIT_CODE.vmload,
  EXIT_CODE.vmsave,
  EXIT_CODE.stgi,
  EXIT_CODE.clgi,
  EXIT_CODE.skinit,
];

/** In the order of their exit codes, from `idtrRead` on. */
const TABLES: readonly ExitOf<"descriptor-table">["instruction"][] = [
  "sidt",
  "sgdt",
  "sldt",
  "str",
  "lidt",
  "lgdt",
  "lldt",
  "ltr",
];

/**
 * Exits of instructions, which all have an nRIP (APM 2 15.7.1): 0 is behind an instruction at the end
 * of 32-bit addresses. Of other exits 0 says that there is none.
 */
function ofInstruction(code: number): boolean {
  if (code < EXIT_CODE.exception) return true;
  if (code < EXIT_CODE.intr) return SOFTWARE.includes(code - EXIT_CODE.exception);
  return code >= EXIT_CODE.cr0Selective && code <= EXIT_CODE.invpcid && !ASIDE.includes(code);
}
/** #BP, #OF and #BR. */
const SOFTWARE: readonly number[] = [VECTOR.BP, VECTOR.OF, VECTOR.BR];
const ASIDE: readonly number[] = [
  EXIT_CODE.taskSwitch,
  EXIT_CODE.ferrFreeze,
  EXIT_CODE.shutdown,
];

function lengthOf(v: SvmVcpu, code: number): number {
  const { words } = v, next = words[F.nextRip >> 2];
  const none = next === 0 && words[(F.nextRip >> 2) + 1] === 0 && !ofInstruction(code);
  if (none || code === EXIT_CODE.nestedPageFault) return 0;
  return next - words[F.rip >> 2] & 15;
}

// --- events ---

/** An event in the format of EVENTINJ: its low half. The error code is the high half. */
export function eventInformation(event: GuestEvent): number {
  const { type, vector } = event;
  const number = type === "external-interrupt"
    ? SVM_EVENT_TYPE.externalInterrupt
    : type === "nmi"
    ? SVM_EVENT_TYPE.nmi
    : type === "software-interrupt"
    ? SVM_EVENT_TYPE.softwareInterrupt
    : SVM_EVENT_TYPE.exception;
  if (!(vector >= 0 && vector <= 255)) {
    throw new RangeError(
      `an event: a vector of 0 to 255 was expected, ${type} ${vector} was given`,
    );
  }
  const code = event.errorCode === undefined ? 0 : SVM_EVENT.errorCode;
  return (SVM_EVENT.valid | code | number << SVM_EVENT.typeShift | vector) | 0;
}

/** An event from EVENTINJ or EXITINTINFO that is valid; nRIP tells the length of its instruction. */
export function eventFrom(v: SvmVcpu, info: number, code: number): GuestEvent {
  const vector = info & SVM_EVENT.vector, type = info >>> SVM_EVENT.typeShift & 7;
  const length = () => v.words[F.nextRip >> 2] - v.words[F.rip >> 2] & 15;
  switch (type) {
    case SVM_EVENT_TYPE.externalInterrupt:
      return { type: "external-interrupt", vector };
    case SVM_EVENT_TYPE.nmi:
      return { type: "nmi", vector };
    case SVM_EVENT_TYPE.softwareInterrupt:
      return { type: "software-interrupt", vector, length: length() };
  }
  // Of other #DB no nRIP is told.
  const software = vector === VECTOR.DB
    ? v.read64(F.nextRip) && "privileged-software-exception"
    : vector === VECTOR.BP || vector === VECTOR.OF
    ? "software-exception"
    : undefined;
  if (software && length()) return { type: software, vector, length: length() };
  const event = { type: "exception", vector } as const;
  return info & SVM_EVENT.errorCode ? { ...event, errorCode: code >>> 0 } : event;
}

/**
 * The cut-short event goes in again at the next entry, unless a task switch consumed it; INT1, which
 * cannot be injected as the instruction it is, is executed again.
 */
export function requeue(v: SvmVcpu, info: number, code: number): GuestEvent {
  const error = v.readHigh(F.exitIntInfo), event = eventFrom(v, info, error);
  if (code !== EXIT_CODE.taskSwitch && event.type !== "privileged-software-exception") {
    v.write(F.eventInjection, info);
    v.write(F.eventInjection + 4, error);
    // An NMI that is to be delivered again does not block itself.
    if ((info >>> SVM_EVENT.typeShift & 7) === SVM_EVENT_TYPE.nmi) v.setOwn(OWN.nmiBlocked, 0);
  }
  return event;
}

// --- exits ---

/** Why the guest just left; the event whose delivery was cut short is queued again. */
export function decodeExit(v: SvmVcpu): Exit {
  const { words } = v;
  const code = words[F.exitCode >> 2], info = words[F.exitIntInfo >> 2];
  if (code === EXIT_CODE.invalid) return entryFailed(v, code);
  const length = lengthOf(v, code);
  const common: Common = info < 0 ? { length, vectoring: requeue(v, info, code) } : { length };
  const kind = PLAIN[code];
  if (kind !== undefined) return { kind, ...common };
  switch (code) {
    case EXIT_CODE.cpuid:
      return cpuidExit(v, common);
    case EXIT_CODE.io:
      return io(v, common);
    case EXIT_CODE.nestedPageFault:
      return nested(v, common);
    case EXIT_CODE.msr:
      return msrExit(v, (words[F.exitInfo1 >> 2] & 1) !== 0, common);
    case EXIT_CODE.intr:
      return { kind: "external-interrupt", vector: takeInterrupt(v), ...common };
    case EXIT_CODE.nmi:
      return { kind: "nmi", ...common };
  }
  if (code < 0x20 || code === EXIT_CODE.cr0Selective) return cr(v, code, common);
  if (code < 0x40) {
    const gpr = words[F.exitInfo1 >> 2] & 15;
    return { kind: "dr", dr: code & 15, write: code >= EXIT_CODE.drWrite, gpr, ...common };
  }
  return code < 0x60 ? exception(v, code - EXIT_CODE.exception, common) : rare(v, code, common);
}

/**
 * The interrupt is still pending after #VMEXIT. A host of machine code would now set GIF and take it;
 * here its controller is asked for the vector in the same way.
 */
function takeInterrupt({ on: { cpu } }: SvmVcpu): number {
  return cpu.interruptPending() ? cpu.acknowledge() : -1;
}

function readWide(v: SvmVcpu, field: number): Wide {
  return wide(v.read(field), v.readHigh(field));
}

function io(v: SvmVcpu, common: Common): Exit {
  const info = v.words[F.exitInfo1 >> 2];
  const write = (info & IOIO.in) === 0, string = (info & IOIO.string) !== 0;
  const size = info & IOIO.size8 ? 1 : info & IOIO.size16 ? 2 : 4;
  const exit = {
    kind: "io",
    write,
    port: info >>> IOIO.portShift,
    size,
    string,
    rep: (info & IOIO.rep) !== 0,
    value: portValue(v, write, size),
    ...common,
  } as const;
  return string ? { ...exit, address: stringAddress(v, info, write) } : exit;
}

const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"] as const;

/** Linear address of the memory operand: ES:rDI of INS, segment:rSI of OUTS. */
function stringAddress(v: SvmVcpu, info: number, write: boolean): Wide {
  const { low, high } = gprOf(v, write ? 6 : 7);
  const name = SEGMENTS[write ? info >>> IOIO.segmentShift & 7 : 0];
  const long = is64(v);
  const base = long && name !== "fs" && name !== "gs" ? 0n : v.read64(F[`${name}Base`]);
  const offset = info & IOIO.address64
    ? BigInt(high) << 32n | BigInt(low)
    : BigInt(info & IOIO.address16 ? low & 0xffff : low);
  const linear = BigInt.asUintN(long ? 64 : 32, base + offset);
  return wide(Number(linear & 0xffff_ffffn), Number(linear >> 32n));
}

const PRESENT = 1, WRITE = 2, RESERVED = 8, FETCH = 16, WALK = 2;

function nested(v: SvmVcpu, common: Common): Exit {
  const error = v.words[F.exitInfo1 >> 2];
  const gpa = v.readHigh(F.exitInfo2) * 2 ** 32 + (v.read(F.exitInfo2) >>> 0);
  const write = (error & WRITE) !== 0, fetch = (error & FETCH) !== 0;
  return {
    kind: "nested-page-fault",
    gpa,
    read: !write && !fetch,
    write,
    fetch,
    walk: (v.readHigh(F.exitInfo1) & WALK) !== 0,
    rights: error & PRESENT ? nestedRights(v, gpa) : 0,
    misconfigured: (error & RESERVED) !== 0,
    ...common,
  };
}

function cr(v: SvmVcpu, code: number, common: Common): ExitOf<"cr"> {
  const info = v.words[F.exitInfo1 >> 2], mov = v.readHigh(F.exitInfo1) < 0;
  const number = code === EXIT_CODE.cr0Selective ? 0 : code & 15;
  const write = code >= EXIT_CODE.crWrite;
  if (!mov) return systemWord(v, common);
  const gpr = info & 15;
  const value = write ? registerOf(v, gpr) : wide(0, 0);
  return { kind: "cr", cr: number, write, access: "mov", gpr, value, ...common };
}

/** CLTS and LMSW have no decode assist, nor has MOV with the selective intercept. */
function systemWord(v: SvmVcpu, common: Common): ExitOf<"cr"> {
  const instruction = instructionAt(v), mnemonic = instruction?.encoding.mnemonic;
  if (mnemonic === "mov") {
    const gpr = instruction!.rm, value = registerOf(v, gpr);
    return { kind: "cr", cr: 0, write: true, access: "mov", gpr, value, ...common };
  }
  const lmsw = instruction && mnemonic === "lmsw";
  const value = lmsw ? wide(sourceWord(v, instruction), 0) : wide(0, 0);
  const gpr = lmsw && !instruction.memory ? instruction.rm : 0;
  return {
    kind: "cr",
    cr: 0,
    write: true,
    access: lmsw ? "lmsw" : "clts",
    gpr,
    value,
    ...common,
  };
}

function exception(v: SvmVcpu, vector: number, common: Common): Exit {
  if (vector === VECTOR.NMI) return { kind: "nmi", ...common };
  const software = (vector === VECTOR.BP || vector === VECTOR.OF) && common.length > 0;
  const code = v.words[F.exitInfo1 >> 2] >>> 0;
  // Of INT1 the length is known, of a trap it is not.
  const event: GuestEvent = vector === VECTOR.DB && common.length > 0
    ? { type: "privileged-software-exception", vector, length: common.length }
    : software
    ? { type: "software-exception", vector, length: common.length }
    : HAS_CODE >>> vector & 1 && (vector === VECTOR.PF || v.words[F.cr0 >> 2] & CR0.PE)
    ? { type: "exception", vector, errorCode: code }
    : { type: "exception", vector };
  let qualification = wide(0, 0);
  if (vector === VECTOR.PF) qualification = readWide(v, F.exitInfo2);
  // DR6 is the guest's new one already.
  else if (vector === VECTOR.DB) {
    qualification = wide(v.read(F.dr6) & (DR6.BD | DR6.BS | DR6.breakpoints), 0);
  }
  return { kind: "exception", event, qualification, ...common };
}

/** #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP; not in real mode, but for #PF, with shadow paging. */
const HAS_CODE = exceptionVectors.filter((x) => x.errorCode)
  .reduce((set, { vector }) => set | 1 << vector, 0);

function taskSwitch(v: SvmVcpu, common: Common): ExitOf<"task-switch"> {
  const high = v.readHigh(F.exitInfo2), selector = v.words[F.exitInfo1 >> 2] & 0xffff;
  const has = (bit: bigint) => (high & Number(bit >> 32n)) !== 0;
  const source = has(TASK_SWITCH.iret)
    ? "iret"
    : has(TASK_SWITCH.jump)
    ? "jmp"
    : common.vectoring
    ? "gate"
    : "call";
  return { kind: "task-switch", selector, source, ...common };
}

type Instruction = ExitOf<"virtualization-instruction">["instruction"];

function rare(v: SvmVcpu, code: number, common: Common): Exit {
  switch (code) {
    case EXIT_CODE.taskSwitch:
      return taskSwitch(v, common);
    case EXIT_CODE.invlpg:
      return { kind: "invlpg", linear: readWide(v, F.exitInfo1), ...common };
    case EXIT_CODE.rdtsc:
    case EXIT_CODE.rdtscp:
      return { kind: "rdtsc", aux: code === EXIT_CODE.rdtscp, ...common };
    case EXIT_CODE.mwait:
    case EXIT_CODE.mwaitArmed:
      return { kind: "mwait", armed: code === EXIT_CODE.mwaitArmed, ...common };
    case EXIT_CODE.intN:
      return { kind: "software-interrupt", vector: v.read(F.exitInfo1) & 0xff, ...common };
  }
  if (code >= EXIT_CODE.idtrRead && code <= EXIT_CODE.trWrite) {
    const instruction = TABLES[code - EXIT_CODE.idtrRead];
    return { kind: "descriptor-table", instruction, ...common };
  }
  if (INSTRUCTIONS.includes(code)) {
    const instruction = exitCodeName(code) as Instruction;
    return { kind: "virtualization-instruction", instruction, ...common };
  }
  return { kind: "unknown", reason: code, ...common };
}

/** Checks of what is not the guest's. */
const CONTROLS = /\.(asid|iopm|msrpm|hsave|address|intercept|inject|nested)\b/;

/** VMRUN that refused the VMCB. */
function entryFailed(v: SvmVcpu, code: number): ExitOf<"entry-failure"> {
  const { id, text } = v.on.lastCheck(), check = checkById(id).name;
  const what = CONTROLS.test(check) ? "controls" : "guest-state";
  return { kind: "entry-failure", what, check, text, code, length: 0 };
}
