/**
 * The function table over AMD's SVM. The hypervisor is host software written in TypeScript: it
 * reaches the processor by VMRUN, VMLOAD and VMSAVE, and the guest's state by the VMCB in memory;
 * general registers lie in a save area, as an assembly stub would keep them.
 *
 * What the hardware lacks beside its neighbour is made here of what it has: the NMI window of the
 * IRET intercept, single steps and timers of exact budgets (TF would show), narrow intercepts of
 * wide ones that are looked at and passed over.
 */
import { INTERRUPT_SHADOW, NP_ENABLE, SVM_EVENT, SVM_EVENT_TYPE } from "../abi/x86/vmcb.ts";
import type { Cpu, RunStop } from "../machine/cpu.ts";
import {
  type CrExit,
  type ExceptionExit,
  type Exit,
  exitKinds,
  type GuestEvent,
  wideToBigInt,
} from "./exit.ts";
import {
  ACTIVITIES,
  type Activity,
  type EnterOptions,
  type FrameSource,
  type HvmCpu,
  type HvmOps,
  type HvmVcpu,
} from "./ops.ts";
import { RegisterAccess } from "./registers.ts";
import {
  applyIntercepts,
  baseControls,
  interceptIret,
  setInterruptWindow,
} from "./svm_controls.ts";
import { F, OWN, SvmCpu, SvmVcpu } from "./svm_cpu.ts";
import { dumpFields, readField, writeField } from "./svm_dump.ts";
import { decodeExit, eventFrom, eventInformation } from "./svm_exit.ts";
import { nptFormat } from "./svm_paging.ts";
import { enterGuest } from "./svm_run.ts";
import * as state from "./svm_state.ts";

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
function enter(v: SvmVcpu, options: EnterOptions): Exit {
  const { cpu } = v.on, end = cpu.count + options.budget;
  for (;;) {
    const exit = enterOnce(v, { budget: end - cpu.count, emulate: options.emulate });
    if (exit) return exit;
  }
}

const NMI_WINDOW: Exit = { kind: "nmi-window", length: 0 };
const DEBUG: Exit = { kind: "debug", length: 0 };
const TIMER: Exit = { kind: "preemption-timer", length: 0 };

/** Undefined: the guest left for a reason that is nobody's but this file's. */
function enterOnce(v: SvmVcpu, options: EnterOptions): Exit | undefined {
  const { cpu } = v.on, { own } = v;
  const injected = v.words[F.eventInjection >> 2] < 0;
  if (own[OWN.nmiWindow] && !injected && nmiOpen(v)) return NMI_WINDOW;
  if (injected) noteInjection(v);
  // What an NMI waits for ends within an instruction, or by IRET.
  v.stepping = own[OWN.step] !== 0 || (own[OWN.nmiWindow] !== 0 && own[OWN.nmiBlocked] === 0);
  let { budget } = options;
  if (v.stepping) budget = Math.min(budget, injected ? 0 : 1);
  if (own[OWN.timer]) budget = Math.min(budget, timerLeft(v));
  const before = cpu.count;
  const stop = runFor(v, budget, options.emulate);
  if (stop === "exit") return asked(v, decodeExit(v), options);
  if (stop === "budget") {
    const moved = cpu.count !== before || injected || v.delivered;
    if (own[OWN.step] && moved) return DEBUG;
    if (own[OWN.timer] && timerLeft(v) === 0) return TIMER;
    if (own[OWN.nmiWindow] && nmiOpen(v)) return NMI_WINDOW;
    if (cpu.count - before < options.budget && moved) return undefined;
  }
  return { kind: "stopped", why: stop, length: 0 };
}

/** The timer counts what runs. */
function runFor(v: SvmVcpu, budget: number, emulate?: boolean): RunStop {
  const { cpu } = v.on, before = cpu.count;
  const stop = enterGuest(v, { budget, emulate });
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
function asked(v: SvmVcpu, exit: Exit, options: EnterOptions): Exit | undefined {
  switch (exit.kind) {
    case "iret":
      if (v.own[OWN.nmiBlocked]) {
        // An NMI may come in after this instruction, not before it.
        blockNmis(v, false);
        v.write(F.interruptShadow, v.words[F.interruptShadow >> 2] | INTERRUPT_SHADOW);
      }
      return v.own[OWN.iret] ? exit : undefined;
    case "cr":
      return wantsCr(v, exit) ? exit : pass(v, options);
    case "exception":
      if (wantsException(v, exit)) return exit;
      v.write64(F.cr2, wideToBigInt(exit.qualification));
      inject(v, exit.event);
      return undefined;
    default:
      return exit;
  }
}

/** Whether a write of CR0 or CR4 changes a bit that somebody wants to see change. */
function wantsCr(v: SvmVcpu, exit: CrExit): boolean {
  if (!exit.write || (exit.cr !== 0 && exit.cr !== 4)) return true;
  const old = v.read(F[`cr${exit.cr}`]), { low } = exit.value;
  const value = exit.access === "mov"
    ? low
    : exit.access === "clts"
    ? old & ~8
    : old & ~0xe | low & 15;
  return ((old ^ value) & v.own[exit.cr === 0 ? OWN.cr0Bits : OWN.cr4Bits]) !== 0;
}

/** Page faults are wanted by their error codes; one amid a delivery is more than a page fault. */
function wantsException(v: SvmVcpu, { event, vectoring }: ExceptionExit): boolean {
  if (event.vector !== 14 || vectoring) return true;
  return ((event.errorCode ?? 0) & v.own[OWN.pageFaultMask]) === v.own[OWN.pageFaultMatch];
}

/** The instruction that left is executed with the intercepts off. */
function pass(v: SvmVcpu, options: EnterOptions): Exit | undefined {
  const stop = runFor(v, 1, true);
  if (stop === "exit") return asked(v, decodeExit(v), options);
  // "stopped": it faulted, and the fault was delivered.
  if (stop === "budget" || stop === "stopped") return undefined;
  return { kind: "stopped", why: stop, length: 0 };
}

// --- events ---

function inject(v: SvmVcpu, event: GuestEvent): void {
  const { length } = event;
  // In real mode exceptions have no error code.
  const code = v.words[F.cr0 >> 2] & 1 ? event.errorCode : undefined;
  const rip = v.read64(F.rip);
  // INT1 is over when its trap comes; INT n, INT3 and INTO are named by nRIP.
  if (event.type === "privileged-software-exception") v.write64(F.rip, past(v, rip, length));
  v.write64(F.nextRip, past(v, rip, length));
  v.write(F.eventInjection, eventInformation({ ...event, errorCode: code }));
  v.write(F.eventInjection + 4, code ?? 0);
}

function past(v: SvmVcpu, rip: bigint, length = 0): bigint {
  return BigInt.asUintN(state.is64(v) ? 64 : 32, rip + BigInt(length));
}

function pendingEvent(v: SvmVcpu): GuestEvent | undefined {
  const info = v.words[F.eventInjection >> 2];
  return info < 0 ? eventFrom(v, info, v.readHigh(F.eventInjection)) : undefined;
}

/** Kinds of exit that only the neighbour has. */
const NOT_HERE = ["rdrand", "rdseed", "tpr"];

/** The table over SVM. */
export const svmOps: HvmOps = {
  nestedFormat: nptFormat,
  name: "SVM",
  exitKinds: exitKinds.filter((kind) => !NOT_HERE.includes(kind)),
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

  advance(v, length) {
    const { on } = at(v);
    on.system.advanceGuest(length);
    // An instruction that the hypervisor completed counts as one.
    on.cpu.count++;
  },
  inject: (v, event) => inject(at(v), event),
  pendingEvent: (v) => pendingEvent(at(v)),
  cancelEvent: (v) => at(v).write(F.eventInjection, 0),
  interruptShadow(v) {
    // One bit stands for both shadows.
    const own = at(v), sti = (own.words[F.interruptShadow >> 2] & INTERRUPT_SHADOW) !== 0;
    return { sti, movSs: false, nmi: own.own[OWN.nmiBlocked] !== 0 };
  },
  setInterruptShadow(v, { sti, movSs, nmi }) {
    const own = at(v);
    own.write(F.interruptShadow, sti || movSs ? INTERRUPT_SHADOW : 0);
    blockNmis(own, nmi);
  },
  canInterrupt(v) {
    const { words } = at(v);
    return (words[F.rflags >> 2] & 0x200) !== 0 &&
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
    own.write(F.nestedControl, root === undefined ? 0 : NP_ENABLE);
    own.write64(F.nestedCr3, BigInt(root ?? 0));
    own.flush();
  },
  setShadowRoot() {
    throw new Error('SVM: shadow paging is not available yet; paging "hap" is');
  },
  flushTranslations: (v) => at(v).flush(),

  dump: (v) => dumpFields(at(v)),
  readRaw: (v, name) => readField(at(v), name),
  writeRaw: (v, name, value) => writeField(at(v), name, value),
};
