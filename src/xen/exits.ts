/** What the hypervisor does about each kind of exit: one short dispatch, handlers by name. */
import { VECTOR } from "../abi/x86/vectors.ts";
import { type Exit, type ExitOf, toWide, wideToBigInt } from "../hvm/exit.ts";
import { type ExitKind, type ExitRow, exitRows, type OwnKind } from "../hvm/exit_kinds.ts";
import { CR0, CR4, DEBUGCTL, DR7, RFLAGS } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import { gpr64 } from "../abi/x86/registers.ts";
import { CR0_KNOWN } from "../machine/system/control_rules.ts";
import { ENABLED, portBreakpoints } from "../machine/breakpoints.ts";
import type { Stopped } from "../hvm/ops.ts";
import { BLOCKED, BUDGET, type PartEnd, SEEN, type SliceEnd } from "./engine.ts";
import type { HvmEngine } from "./hvm.ts";
import { hypercall } from "./hypercalls.ts";
import { ignoring, watchQuiet } from "./coprocessor.ts";
import { cr3Faults, writeFaults } from "./control.ts";
import { readMsr, writeMsr } from "./msrs.ts";

/** What handling an exit led to. */
type Handled =
  /** The guest goes on. */
  | undefined
  /** The exit is to be handled once more, when a device has answered. */
  | "again"
  /** The instruction that was emulated left itself: another exit, to be shown and handled. */
  | Exit
  /**
   * At a breakpoint the exit is handled when the domain goes on: its instruction has not begun. Where
   * watched memory was accessed it is done.
   */
  | PartEnd;
type Handler<K extends ExitKind> = (e: HvmEngine, exit: ExitOf<K>) => Handled;

const RAX = 0, RCX = 1, RDX = 2, RBX = 3;
const { CP, DB, DE, DF, GP, NP, PF, SS, TS, UD } = VECTOR;
const TF = BigInt(RFLAGS.TF);
const BTF = BigInt(DEBUGCTL.BTF);
const ENOSYS = 38;

/** Low half of a general register, as it was at the exit. */
function setGpr(e: HvmEngine, n: number, low: number, high = 0): void {
  const { gprs } = e.hvm;
  gprs[2 * n] = low;
  gprs[2 * n + 1] = high;
}

function injectFault(e: HvmEngine, vector: number, errorCode?: number): undefined {
  e.ops.inject(e.hvm, { type: "exception", vector, errorCode });
}

/** The instruction is executed by the processor with its intercepts off. */
function emulate(e: HvmEngine): Handled {
  return enterPlainly(e, 1);
}

/**
 * A guest that believes itself on the other vendor's processor met #UD: the instruction is executed as
 * that one would (SYSCALL in compatibility mode, say); if there, too, it does not exist, #UD follows.
 */
function emulateForeign(e: HvmEngine): Handled {
  const { cpu } = e.on;
  cpu.ways = e.cpuid.vendor ?? cpu.model;
  const exit = e.ops.enter(e.hvm, { budget: 1, emulate: true });
  cpu.ways = cpu.model;
  const undefinedHere = typeof exit === "object" && exit.kind === "exception" &&
    exit.event.vector === UD;
  if (!undefinedHere) return afterPlainEntry(e, exit);
  e.ops.inject(e.hvm, exit.event);
}

/** Enters with intercepts off, for what is to be delivered and `budget` instructions. */
function enterPlainly(e: HvmEngine, budget: number): Handled {
  return afterPlainEntry(e, e.ops.enter(e.hvm, { budget, emulate: true }));
}

/** With an event on its way that is what makes the access, and no instruction of its handler. */
function completeAccess(e: HvmEngine): Handled {
  return enterPlainly(e, e.ops.pendingEvent(e.hvm) ? 0 : 1);
}

function afterPlainEntry(e: HvmEngine, exit: Exit | Stopped): Handled {
  e.changed = true;
  e.shadow?.sync();
  switch (exit) {
    case "unanswered":
      return "again";
    case "budget":
      return undefined;
    case "breakpoint":
    case "watch":
      return SEEN[exit];
    // Paused from outside, or a handler that faults into itself: the scheduler's turn.
    case "stopped":
      return BUDGET;
  }
  if (typeof exit === "string") throw new Error(`the emulated instruction stopped: ${exit}`);
  // A page that another walk step misses; else an exception that is intercepted.
  if (exit.kind === "nested-page-fault") return unmapped(e, exit);
  return exit;
}

function unmapped(_e: HvmEngine, exit: ExitOf<"nested-page-fault">): SliceEnd {
  const what = exit.write ? "write" : exit.fetch ? "fetch" : "read";
  return {
    kind: "end",
    reason: "crash",
    detail: `${what} of guest-physical 0x${exit.gpa.toString(16)}, where there is nothing`,
  };
}

/** The event behind a task gate is delivered again, other switches are instructions. */
function taskSwitch(e: HvmEngine, { vectoring }: ExitOf<"task-switch">): Handled {
  if (!vectoring) return emulate(e);
  // An NMI that is delivered again does not block itself.
  const shadow = e.ops.interruptShadow(e.hvm);
  if (vectoring.type === "nmi") e.ops.setInterruptShadow(e.hvm, { ...shadow, nmi: false });
  e.ops.inject(e.hvm, vectoring);
  return enterPlainly(e, 0);
}

function skip(e: HvmEngine, exit: Exit): undefined {
  e.ops.advance(e.hvm, exit.length);
}

function io(e: HvmEngine, exit: ExitOf<"io">): Handled {
  if (exit.string) return emulate(e);
  e.changed = true;
  if (exit.write) {
    if (!e.ioreq.write("pio", exit.port, exit.size, exit.value)) return "again";
  } else {
    const value = e.ioreq.read("pio", exit.port, exit.size);
    if (value === undefined) return "again";
    const { gprs } = e.hvm;
    if (exit.size === 4) setGpr(e, RAX, value);
    else {
      const mask = exit.size === 1 ? 0xff : 0xffff;
      gprs[0] = (gprs[0] & ~mask) | (value & mask);
    }
  }
  skip(e, exit);
  portTrap(e, exit);
}

/** With CR4.DE a guest's breakpoints can be on ports; their trap comes behind the instruction. */
function portTrap({ ops, hvm }: HvmEngine, { port, size }: ExitOf<"io">): void {
  const dr7 = Number(ops.getRegister(hvm, "dr7"));
  if (!(dr7 & ENABLED) || !(ops.getCr(hvm, 4) & BigInt(CR4.DE))) return;
  const addresses = DEBUG_ADDRESSES.map((name) => Number(ops.getRegister(hvm, name)));
  const causes = portBreakpoints(dr7, addresses, port, size);
  if (causes) ops.trap(hvm, causes);
}
const DEBUG_ADDRESSES = ["dr0", "dr1", "dr2", "dr3"] as const;

function msr(e: HvmEngine, exit: ExitOf<"msr">): Handled {
  if (!e.cpuid.has("msr")) return injectFault(e, UD);
  if (exit.write) {
    if (!writeMsr(e, exit.msr, wideToBigInt(exit.value))) return injectFault(e, GP, 0);
    e.changed = true;
    e.shadow?.sync();
  } else {
    const value = readMsr(e, exit.msr);
    if (value === undefined) return injectFault(e, GP, 0);
    const { low, high } = toWide(value);
    setGpr(e, RAX, low);
    setGpr(e, RDX, high);
  }
  return skip(e, exit);
}

/** Writes to CR0 and CR4 that change bits the hypervisor owns; the rest passes through. */
function cr(e: HvmEngine, exit: ExitOf<"cr">): Handled {
  if (exit.cr === 8) return taskPriority(e, exit);
  if (exit.cr === 3 && e.shadow) return exit.write ? writeCr3(e, exit) : readCr3(e, exit);
  if (!exit.write || (exit.cr !== 0 && exit.cr !== 4)) return emulate(e);
  const old = e.ops.getCr(e.hvm, exit.cr), value = newCr(e, exit, old);
  if (writeFaults(e, exit.cr === 0 ? "cr0" : "cr4", old, value)) return injectFault(e, GP, 0);
  e.ops.setCr(e.hvm, exit.cr, exit.cr === 0 ? value & BigInt(CR0_KNOWN) | BigInt(CR0.ET) : value);
  if (e.shadow) e.shadow.sync();
  else e.ops.flushTranslations(e.hvm);
  return skip(e, exit);
}

/** CR8 is bits 7 to 4 of the local APIC's task priority. */
function taskPriority(e: HvmEngine, exit: ExitOf<"cr">): Handled {
  if (exit.write) {
    const value = wideToBigInt(exit.value);
    if (value > 15n) return injectFault(e, GP, 0);
    e.port.cr8 = Number(value);
    e.changed = true;
  } else e.ops.setRegister(e.hvm, gpr64[exit.gpr], BigInt(e.port.cr8));
  return skip(e, exit);
}

/** Of a shadowed guest. */
function writeCr3(e: HvmEngine, exit: ExitOf<"cr">): Handled {
  const given = wideToBigInt(exit.value);
  const value = e.ops.in64BitMode(e.hvm) ? given : given & 0xffff_ffffn;
  if (cr3Faults(e, value)) return injectFault(e, GP, 0);
  // With PCIDs bit 63 says that nothing need be flushed.
  e.shadow!.loadCr3(value & ~(1n << 63n));
  return skip(e, exit);
}
function readCr3(e: HvmEngine, exit: ExitOf<"cr">): Handled {
  const value = e.ops.getCr(e.hvm, 3), name = gpr64[exit.gpr];
  e.ops.setRegister(e.hvm, name, value);
  return skip(e, exit);
}

function newCr(e: HvmEngine, exit: ExitOf<"cr">, old: bigint): bigint {
  const given = wideToBigInt(exit.value);
  // Outside 64-bit mode a general register has 32 bits.
  if (exit.access === "mov") return e.ops.in64BitMode(e.hvm) ? given : given & 0xffff_ffffn;
  if (exit.access === "clts") return old & ~8n;
  // LMSW sets PE, MP, EM and TS, and cannot clear PE.
  return (old & ~0xen) | (given & 0xfn);
}

/** IRQ 13, for which the processor waits before the instruction; or that goes on all the same. */
function coprocessorError(e: HvmEngine): Handled {
  const { platform, on: { cpu } } = e;
  const ignored = platform.coprocessorError();
  watchQuiet(cpu, platform);
  if (ignored) return ignoring(cpu, () => enterPlainly(e, 1));
  // STI and MOV SS hold nothing back from a processor that waits.
  const { nmi } = e.ops.interruptShadow(e.hvm);
  e.ops.setInterruptShadow(e.hvm, { sti: false, movSs: false, nmi });
  e.changed = true;
  return e.interruptPending ? undefined : BLOCKED;
}

const CONTRIBUTORY: readonly number[] = [DE, TS, NP, SS, GP, CP];

/** What two exceptions come to, the second in the course of the first's delivery (SDM 3 table 6-5). */
function combined(first: number | undefined, second: number): "second" | "double" | "triple" {
  const severe = CONTRIBUTORY.includes(second) || second === PF;
  if (first === undefined || !severe) return "second";
  if (first === DF) return "triple";
  const double = first === PF || (CONTRIBUTORY.includes(first) && second !== PF);
  return double ? "double" : "second";
}

/** An exception that somebody wanted to see goes on to the guest, as it would have without. */
function exception(
  e: HvmEngine,
  { event, qualification, vectoring }: ExitOf<"exception">,
): Handled {
  if (event.vector === UD && e.foreign) return emulateForeign(e);
  if (event.vector === PF) e.ops.setRegister(e.hvm, "cr2", wideToBigInt(qualification));
  if (event.vector === DB && event.type === "exception") {
    const dr6 = e.ops.getRegister(e.hvm, "dr6"), dr7 = e.ops.getRegister(e.hvm, "dr7");
    const causes = BigInt(qualification.low & 0xe00f);
    e.ops.setRegister(e.hvm, "dr6", dr6 & ~0xfn | causes);
    e.ops.setRegister(e.hvm, "dr7", dr7 & ~BigInt(DR7.GD));
    const debugctl = e.ops.getMsr(e.hvm, MSR.DEBUGCTL)!;
    if (debugctl & BTF) e.ops.setMsr(e.hvm, MSR.DEBUGCTL, debugctl & ~BTF);
  }
  const first = vectoring?.type === "exception" ? vectoring.vector : undefined;
  switch (combined(first, event.vector)) {
    case "triple":
      return TRIPLE_FAULT;
    case "double":
      return injectFault(e, DF, 0);
    default:
      e.ops.inject(e.hvm, event);
  }
}

const TRIPLE_FAULT: SliceEnd = { kind: "end", reason: "crash", detail: "triple fault" };

/** What is more than a word in the kind's row says. */
const own: { readonly [K in OwnKind]: Handler<K> } = {
  cpuid: (e, exit) => {
    const r = e.cpuidLeaf(exit.leaf, exit.subleaf);
    setGpr(e, RAX, r.eax);
    setGpr(e, RBX, r.ebx);
    setGpr(e, RCX, r.ecx);
    setGpr(e, RDX, r.edx);
    return skip(e, exit);
  },
  msr,
  io,
  cr,
  "nested-page-fault": (e, exit) => {
    if (exit.misconfigured) {
      return { kind: "end", reason: "crash", detail: "a nested page-table entry is malformed" };
    }
    return completeAccess(e);
  },
  "shadow-write": completeAccess,
  "task-switch": taskSwitch,
  "coprocessor-error": coprocessorError,
  hlt: (e, exit) => {
    skip(e, exit);
    e.changed = true;
    // The trap of a traced HLT ends it at once.
    const goesOn = e.awake || e.ops.pendingEvent(e.hvm) ||
      (e.ops.getRegister(e.hvm, "rflags") & TF && !(e.ops.getMsr(e.hvm, MSR.DEBUGCTL)! & BTF));
    return goesOn ? undefined : BLOCKED;
  },
  hypercall: (e, exit) => {
    const { call } = e;
    if (!call) {
      setGpr(e, RAX, -ENOSYS, -1);
      return skip(e, exit);
    }
    hypercall(e, call);
    const { again, leaves } = call;
    call.again = false;
    call.leaves = undefined;
    if (!again) skip(e, exit);
    return leaves;
  },
  exception,
  "external-interrupt": (e, exit) => {
    if (exit.vector >= 0) e.interrupts.handle(exit.vector);
    else e.interrupts.handlePending();
    return undefined;
  },
  "interrupt-window": (e) => void e.windowOpen(),
  "nmi-window": (e) => void (e.changed = true),
  "triple-fault": (e) => {
    // The exception whose delivery came to that.
    const { cpu } = e.on;
    if (cpu.raised?.count === cpu.count) cpu.lastFault = cpu.raised;
    return TRIPLE_FAULT;
  },
  "entry-failure": (_, exit) => ({
    kind: "end",
    reason: "crash",
    detail: `the guest cannot be entered: ${exit.check}: ${exit.text}`,
  }),
  unknown: (_, exit) => {
    throw new Error(
      `an exit of kind unknown came that this hypervisor does not ask for: ${JSON.stringify(exit)}`,
    );
  },
};

type AnyHandler = (e: HvmEngine, exit: Exit) => Handled;

function handlerOf(kind: ExitKind, { handled, feature }: ExitRow): AnyHandler {
  switch (handled) {
    case "own":
      return own[kind as OwnKind] as AnyHandler;
    case "emulate":
      return feature ? (e) => e.cpuid.has(feature) ? emulate(e) : injectFault(e, UD) : emulate;
    case "skip":
      return skip;
    case "nothing":
      return () => undefined;
    case "#UD":
      return (e) => injectFault(e, UD);
    case "#GP":
      return (e) => injectFault(e, GP, 0);
  }
}

const handlers: Readonly<Record<string, AnyHandler>> = Object.fromEntries(
  Object.entries(exitRows).map(([kind, row]) => [kind, handlerOf(kind as ExitKind, row)]),
);

/** Handles an exit that nobody answers. */
export const handleExit = (e: HvmEngine, exit: Exit): Handled => handlers[exit.kind](e, exit);
