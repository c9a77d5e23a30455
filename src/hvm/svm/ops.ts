/**
 * The function table over AMD's SVM. The hypervisor is host software written in TypeScript: it
 * reaches the processor by VMRUN, VMLOAD and VMSAVE, and the guest's state by the VMCB in memory;
 * general registers lie in a save area, as an assembly stub would keep them.
 *
 * What the hardware lacks beside its neighbour is made here of what it has: the NMI window of the
 * IRET intercept, single steps and timers of exact budgets (TF would show), narrow intercepts of
 * wide ones that are looked at and passed over.
 */
import { CR0, RFLAGS } from "../../abi/x86/cr.ts";
import { VECTOR } from "../../abi/x86/vectors.ts";
import {
  CR_MOV,
  EXIT_CODE,
  INTERRUPT_SHADOW,
  NP_ENABLE,
  SVM_EVENT,
  SVM_EVENT_TYPE,
  vmcbFields,
} from "../../abi/x86/vmcb.ts";
import type { Cpu } from "../../machine/cpu.ts";
import type { RunStop } from "../../machine/run.ts";
import { CPU } from "../../machine/state.ts";
import { type Exit, type ExitOf, type GuestEvent, wideToBigInt } from "../exit.ts";
import { exitKinds } from "../exit_kinds.ts";
import {
  ACTIVITIES,
  type Activity,
  type EnterOptions,
  type FrameSource,
  type HvmCpu,
  type HvmOps,
  type HvmVcpu,
  type Stopped,
} from "../ops.ts";
import { gpr64 } from "../../abi/x86/registers.ts";
import { RegisterAccess } from "../registers.ts";
import {
  applyIntercepts,
  baseControls,
  INTERCEPTED,
  interceptIret,
  isAbsent,
  setInterruptWindow,
} from "./controls.ts";
import { F, OWN, SvmCpu, SvmVcpu, SWITCHED } from "./cpu.ts";
import { dumpFields, readField, writeField } from "./dump.ts";
import { decodeExit, eventFrom, eventInformation, NOT_HERE, requeue } from "./exit.ts";
import { nptFormat } from "./paging.ts";
import { enterGuest } from "./run.ts";
import { setShadowRoot, visible } from "./shadow.ts";
import * as state from "./state.ts";

/** The vCPU, current on its processor. */
function at(v: HvmVcpu): SvmVcpu {
  const own = v as SvmVcpu;
  if (own.on.current !== own) own.on.load(own);
  return own;
}

const registers = new RegisterAccess<SvmVcpu>({
  fields: { rip: F.rip, rsp: F.rsp, rflags: F.rflags, cr2: F.cr2, dr6: F.dr6, dr7: F.dr7 },
  inCpu: ["dr0", "dr1", "dr2", "dr3"],
  read: (v, field) => v.read64(field),
  write: (v, field, value) => v.write64(field, BigInt.asUintN(64, value)),
});

const PAGES = { iopm: 3, msrpm: 2 } as const;

function enable(cpu: Cpu, frames: FrameSource): SvmCpu {
  if (cpu.model !== "amd") {
    throw new Error(`SVM: the processor has to be of the model "amd", this one is "${cpu.model}"`);
  }
  return SvmCpu.enable(cpu, frames.allocate());
}

function createVcpu(on: HvmCpu, frames: FrameSource): SvmVcpu {
  const v = new SvmVcpu(on as SvmCpu, frames.allocate(), frames.allocate());
  v.on.load(v);
  v.write(F.iopmBase, frames.allocate(PAGES.iopm));
  v.write(F.msrpmBase, frames.allocate(PAGES.msrpm));
  state.resetGuest(v);
  baseControls(v);
  return v;
}

function destroyVcpu(v: SvmVcpu, frames: FrameSource): void {
  if (v.on.current === v) v.on.current = undefined;
  const free = (first: number, count: number) => {
    for (let n = 0; n < count; n++) frames.free((first >>> 0) + 4096 * n);
  };
  free(v.words[F.iopmBase >> 2], PAGES.iopm);
  free(v.words[F.msrpmBase >> 2], PAGES.msrpm);
  free(v.control, 1);
  free(v.area, 1);
}

// --- entry ---

/** Enters until an exit comes that was asked for. */
function enter(v: SvmVcpu, options: EnterOptions): Exit | Stopped {
  const { budget, emulate = false } = options;
  const { cpu } = v.on, { own } = v, end = cpu.count + budget;
  // A fault of the instruction that is emulated is delivered, and its handler not begun.
  for (let left = budget;; left = emulate ? 0 : end - cpu.count) {
    const watched = own[OWN.step] | own[OWN.timer] | own[OWN.nmiWindow];
    const exit = watched ? enterWatched(v, left, options) : enterPlainly(v, left, options);
    if (exit) return exit;
  }
}

/** How an entry ended; undefined: the guest left for a reason that is nobody's but this file's. */
type Left = Exit | Stopped | undefined;

function enterPlainly(v: SvmVcpu, budget: number, options: EnterOptions): Left {
  if (v.words[F.eventInjection >> 2] < 0) noteInjection(v);
  v.stepping = false;
  const stop = enterGuest(v, budget, options.emulate ?? false);
  if (stop === "exit") return left(v, options);
  return stop;
}

/** The exit, if it is anybody's but this file's. */
function left(v: SvmVcpu, { pageFault }: EnterOptions): Left {
  const code = v.words[F.exitCode >> 2];
  if (pageFault && code === PAGE_FAULT && pageFaultHandled(v, pageFault)) return undefined;
  if (code === CR0_READ || code === CR4_READ) return hiddenRead(v, code === CR0_READ ? 0 : 4);
  return asked(v, decodeExit(v));
}

const PAGE_FAULT = EXIT_CODE.exception + VECTOR.PF;
const CR0_READ = EXIT_CODE.crRead, CR4_READ = EXIT_CODE.crRead + 4;

/** The #PF that made the guest leave is dealt with, and it may go on. */
function pageFaultHandled(
  v: SvmVcpu,
  handler: NonNullable<EnterOptions["pageFault"]>,
): boolean {
  const { words } = v, linear = F.exitInfo2 >> 2;
  if (!handler(words[linear], words[linear + 1], words[F.exitInfo1 >> 2])) return false;
  const info = words[F.exitIntInfo >> 2];
  if (info < 0) requeue(v, info, PAGE_FAULT);
  return true;
}

/** A read of CR0 or CR4 where the hardware's is not the guest's: nobody but this file asks for it. */
function hiddenRead(v: SvmVcpu, n: 0 | 4): Left {
  // SMSW.
  if (!(v.readHigh(F.exitInfo1) & MOV)) return pass(v);
  const name = gpr64[v.words[F.exitInfo1 >> 2] & 15];
  registers.set(v, name, BigInt(visible(v, n) >>> 0));
  advance(v, v.words[F.nextRip >> 2] - v.words[F.rip >> 2] & 15);
  return undefined;
}
const MOV = Number(BigInt.asIntN(32, CR_MOV >> 32n));

const NMI_WINDOW: Exit = { kind: "nmi-window", length: 0 };
const DEBUG: Exit = { kind: "debug", length: 0 };
const TIMER: Exit = { kind: "preemption-timer", length: 0 };

/** The same with what ends a run before its budget does: a step, a timer, a window. */
function enterWatched(v: SvmVcpu, most: number, options: EnterOptions): Left {
  const { cpu } = v.on, { own } = v;
  const injected = v.words[F.eventInjection >> 2] < 0;
  if (own[OWN.nmiWindow] && !injected && nmiOpen(v)) return NMI_WINDOW;
  if (injected) noteInjection(v);
  // What an NMI waits for ends within an instruction, or by IRET.
  v.stepping = own[OWN.step] !== 0 || (own[OWN.nmiWindow] !== 0 && own[OWN.nmiBlocked] === 0);
  let budget = most;
  if (v.stepping) budget = Math.min(budget, injected ? 0 : 1);
  if (own[OWN.timer]) budget = Math.min(budget, timerLeft(v));
  const before = cpu.count;
  const stop = runFor(v, budget, options.emulate ?? false);
  if (stop === "exit") {
    const exit = left(v, options);
    // The instruction that left was completed here: that was the step.
    return exit || !own[OWN.step] || cpu.count === before ? exit : DEBUG;
  }
  if (stop === "budget") {
    const moved = cpu.count !== before || injected || v.delivered;
    if (own[OWN.step] && moved) return DEBUG;
    if (own[OWN.timer] && timerLeft(v) === 0) return TIMER;
    if (own[OWN.nmiWindow] && nmiOpen(v)) return NMI_WINDOW;
    if (cpu.count - before < most && moved) return undefined;
  }
  return stop;
}

/** The timer counts what runs. */
function runFor(v: SvmVcpu, budget: number, emulate: boolean): RunStop {
  const { cpu } = v.on, before = cpu.count;
  const stop = enterGuest(v, budget, emulate);
  if (v.own[OWN.timer]) setTimer(v, Math.max(0, timerLeft(v) - (cpu.count - before)));
  return stop;
}

/** An NMI that goes in blocks the next one, until IRET. */
function noteInjection(v: SvmVcpu): void {
  const type = v.words[F.eventInjection >> 2] >>> SVM_EVENT.typeShift & 7;
  if (type === SVM_EVENT_TYPE.nmi) blockNmis(v, true);
}
function blockNmis(v: SvmVcpu, on: boolean): void {
  v.setOwn(OWN.nmiBlocked, +on);
  interceptIret(v);
}

/** An NMI could be injected now. */
function nmiOpen(v: SvmVcpu): boolean {
  return !v.own[OWN.nmiBlocked] && !(v.words[F.interruptShadow >> 2] & INTERRUPT_SHADOW);
}

const timerLeft = ({ own }: SvmVcpu): number =>
  own[OWN.timerLeft + 1] * 2 ** 32 + (own[OWN.timerLeft] >>> 0);
function setTimer(v: SvmVcpu, instructions: number): void {
  v.setOwn(OWN.timerLeft, instructions | 0);
  v.setOwn(OWN.timerLeft + 1, Math.floor(instructions / 2 ** 32));
}

// --- exits that intercepts wider than the wishes bring ---

/** The exit if it was asked for; others are seen to. */
function asked(v: SvmVcpu, exit: Exit): Left {
  switch (exit.kind) {
    case "iret":
      if (v.own[OWN.nmiBlocked]) {
        // An NMI may come in after this instruction, not before it.
        blockNmis(v, false);
        v.write(F.interruptShadow, v.words[F.interruptShadow >> 2] | INTERRUPT_SHADOW);
        v.setOwn(OWN.movSs, 0);
        if (!v.own[OWN.iret]) return undefined;
      }
      // Also where the intercept was written by hand: the guest would leave here for ever.
      return exit;
    case "rdtsc":
      return exit.aux && isAbsent(v, "rdtscp") ? undefinedInstruction(v) : exit;
    case "invpcid":
      return isAbsent(v, "invpcid") ? undefinedInstruction(v) : exit;
    case "cr":
      return wantsCr(v, exit) ? exit : pass(v);
    case "exception":
      if (wantsException(v, exit)) return exit;
      v.write64(F.cr2, wideToBigInt(exit.qualification));
      inject(v, exit.event);
      return undefined;
    default:
      return exit;
  }
}

/** The instruction that left is none to the guest. */
function undefinedInstruction(v: SvmVcpu): undefined {
  inject(v, { type: "exception", vector: VECTOR.UD });
}

/** Whether a write of CR0 or CR4 changes a bit that somebody wants to see change. */
function wantsCr(v: SvmVcpu, exit: ExitOf<"cr">): boolean {
  if (!exit.write || (exit.cr !== 0 && exit.cr !== 4)) return true;
  const old = visible(v, exit.cr), { low } = exit.value;
  const value = exit.access === "mov"
    ? low
    : exit.access === "clts"
    ? old & ~8
    : old & ~0xe | low & 15;
  return ((old ^ value) & v.own[exit.cr === 0 ? OWN.cr0Bits : OWN.cr4Bits]) !== 0;
}

/** Page faults are wanted by their error codes; one amid a delivery is more than a page fault. */
function wantsException(v: SvmVcpu, { event, vectoring }: ExitOf<"exception">): boolean {
  if (event.vector !== VECTOR.PF || vectoring) return true;
  return ((event.errorCode ?? 0) & v.own[OWN.pageFaultMask]) === v.own[OWN.pageFaultMatch];
}

/** The instruction that left is executed with the intercepts off. */
function pass(v: SvmVcpu): Left {
  const stop = runFor(v, 1, true);
  if (stop === "exit") return asked(v, decodeExit(v));
  // "stopped": it faulted, and the fault was delivered.
  if (stop === "budget" || stop === "stopped") return undefined;
  return stop;
}

/** Past an instruction that the hypervisor completed; it counts as one. */
function advance({ on }: SvmVcpu, length: number): void {
  on.system.advanceGuest(length);
  on.cpu.count++;
}

// --- events ---

function inject(v: SvmVcpu, event: GuestEvent): void {
  const { length, vector } = event;
  if (IN_64_BIT_MODE_UNDEFINED.includes(vector) && isException(event) && state.is64(v)) {
    throw new RangeError(
      `an event: exception ${vector} was given, which 64-bit code cannot raise; ` +
        `this processor does not inject it there`,
    );
  }
  // In real mode exceptions have no error code.
  const code = v.words[F.cr0 >> 2] & CR0.PE ? event.errorCode : undefined;
  const rip = v.read64(F.rip);
  if (event.type === "exception") v.on.cpu.events.noteInjected(event.vector, code, rip);
  // INT1 is over when its trap comes; INT n, INT3 and INTO are named by nRIP, and by what is delivered.
  if (event.type === "privileged-software-exception") {
    v.write64(F.rip, past(v, rip, length));
    v.on.cpu.count++;
  }
  v.write64(F.nextRip, past(v, rip, length));
  v.write(F.eventInjection, eventInformation({ ...event, errorCode: code }));
  v.write(F.eventInjection + 4, code ?? 0);
}

/** INTO's #OF and BOUND's #BR (APM 2 15.20). */
const IN_64_BIT_MODE_UNDEFINED: readonly number[] = [4, 5];
const isException = ({ type }: GuestEvent): boolean =>
  type === "exception" || type === "software-exception";

function past(v: SvmVcpu, rip: bigint, length = 0): bigint {
  return BigInt.asUintN(state.is64(v) ? 64 : 32, rip + BigInt(length));
}

function pendingEvent(v: SvmVcpu): GuestEvent | undefined {
  const info = v.words[F.eventInjection >> 2];
  return info < 0 ? eventFrom(v, info, v.readHigh(F.eventInjection)) : undefined;
}

/** The table over SVM. */
export const svmOps: HvmOps = {
  nestedFormat: nptFormat,
  name: "SVM",
  // VMMCALL.
  hypercallInstruction: [0x0f, 0x01, 0xd9],
  exitKinds: exitKinds.filter((kind) => !NOT_HERE.includes(kind)),
  fields: {
    control: vmcbFields.map(({ name, offset, bits }) => ({ name, at: offset, width: bits / 8 })),
    area: SWITCHED.fields,
  },
  takesAway: INTERCEPTED,
  enable,
  disable(on, frames) {
    const own = on as SvmCpu;
    own.disable();
    frames.free(own.saveArea);
  },
  createVcpu,
  destroyVcpu: (v, frames) => destroyVcpu(v as SvmVcpu, frames),
  attachVcpu: (on, control, area) => new SvmVcpu(on as SvmCpu, control, area),
  load: (v) => void at(v),
  unload: (on) => (on as SvmCpu).unload(),
  refresh: (on, current) => (on as SvmCpu).refresh(current as SvmVcpu | undefined),
  enter: (v, options) => enter(at(v), options),

  ...registers.table(at),
  getSegment: (v, name) => state.getSegment(at(v), name),
  setSegment: (v, name, value) => state.setSegment(at(v), name, value),
  getDescriptorTable(v, name) {
    const own = at(v);
    return { base: own.read64(F[`${name}Base`]), limit: own.read(F[`${name}Limit`]) >>> 0 };
  },
  setDescriptorTable(v, name, { base, limit }) {
    const own = at(v);
    own.write64(F[`${name}Base`], BigInt.asUintN(64, base));
    own.write(F[`${name}Limit`], limit);
  },
  getCr: (v, n) => state.getControlRegister(at(v), n),
  setCr: (v, n, value) => state.setControlRegister(at(v), n, BigInt.asUintN(64, value)),
  getMsr: (v, msr) => state.getMsr(at(v), msr),
  setMsr: (v, msr, value) => state.setMsr(at(v), msr, value),
  getActivity: (v) => ACTIVITIES[at(v).own[OWN.activity]],
  setActivity(v, activity: Activity) {
    at(v).setOwn(OWN.activity, ACTIVITIES.indexOf(activity));
  },
  getCpl: (v) => at(v).read8(F.cpl),
  in64BitMode: (v) => state.is64(at(v)),

  advance: (v, length) => advance(at(v), length),
  trap: (v, causes) => void (at(v).on.cpu.i32[CPU.pendingDebug >> 2] |= causes),
  inject: (v, event) => inject(at(v), event),
  pendingEvent: (v) => pendingEvent(at(v)),
  cancelEvent: (v) => at(v).write(F.eventInjection, 0),
  interruptShadow(v) {
    const { words, own } = at(v), shadow = (words[F.interruptShadow >> 2] & INTERRUPT_SHADOW) !== 0;
    const movSs = own[OWN.movSs] !== 0;
    return { sti: shadow && !movSs, movSs: shadow && movSs, nmi: own[OWN.nmiBlocked] !== 0 };
  },
  setInterruptShadow(v, { sti, movSs, nmi }) {
    const own = at(v);
    own.write(F.interruptShadow, sti || movSs ? INTERRUPT_SHADOW : 0);
    own.setOwn(OWN.movSs, +movSs);
    blockNmis(own, nmi);
  },
  canInterrupt(v) {
    const { words } = at(v);
    return (words[F.rflags >> 2] & RFLAGS.IF) !== 0 &&
      (words[F.interruptShadow >> 2] & INTERRUPT_SHADOW) === 0 &&
      words[F.eventInjection >> 2] >= 0;
  },
  setInterruptWindow: (v, on) => setInterruptWindow(at(v), on),
  setNmiWindow: (v, on) => at(v).setOwn(OWN.nmiWindow, +on),
  setSingleStep: (v, on) => at(v).setOwn(OWN.step, +on),
  setPreemptionTimer(v, instructions) {
    const own = at(v);
    own.setOwn(OWN.timer, instructions === undefined ? 0 : 1);
    setTimer(own, Math.ceil(instructions ?? 0));
  },

  setIntercepts: (v, wanted) => applyIntercepts(at(v), wanted),
  setTscOffset: (v, offset) => at(v).write64(F.tscOffset, BigInt.asUintN(64, offset)),
  setNestedRoot(v, root) {
    const own = at(v);
    own.write(F.nestedControl, root === undefined || own.shadowed ? 0 : NP_ENABLE);
    own.write64(F.nestedCr3, BigInt(root ?? 0));
    own.flush();
  },
  setShadowRoot: (v, root) => setShadowRoot(at(v), root),
  flushTranslations: (v) => at(v).flush(),

  dump: (v) => dumpFields(at(v)),
  readRaw: (v, name) => readField(at(v), name),
  writeRaw: (v, name, value) => writeField(at(v), name, value),
};
