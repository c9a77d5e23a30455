/**
 * What makes a guest leave (APM 2 15.7 to 15.14): tests of the intercept vectors.
 *
 * `intercept(kind, qualification)` is called by instructions of a guest, after the faults that come
 * first; kinds are INTERCEPT's numbers, qualifications those of vmx/intercept.ts, and besides:
 *
 * | kind | qualification |
 * |---|---|
 * | cr | bit 7: SMSW |
 * | int | the vector |
 * | invpcid | nothing |
 * | svm | INSTRUCTION's number |
 *
 * `vectoringExit(what)` is the hook of event delivery: 0 before an event, 1 for a triple fault.
 */
import { DR6, DR7, RFLAGS } from "../../abi/x86/cr.ts";
import {
  CR_MOV,
  EXIT_CODE,
  INTERCEPT1,
  INTERCEPT2,
  INTERCEPT3,
  IOIO,
  msrpmRanges,
  SVM_EVENT,
  TASK_SWITCH,
  VIRTUAL_INTERRUPT,
} from "../../abi/x86/vmcb.ts";
import { EVENT_TYPE, VECTOR } from "../../abi/x86/vectors.ts";
import { INTERCEPT, type InterceptKind } from "../system/intercepts.ts";
import { timeStamp } from "../system/control_state.ts";
import {
  ABORT,
  CPU,
  gpr,
  INTERRUPTIBILITY,
  PREFIX,
  REC,
  SEGMENT_SIZE,
  SHADOW,
  V,
} from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load, type Operand } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { TASK_SOURCE } from "../system/segmentation/tasks.ts";
import { hostSave, SVMC, Vmcb } from "./layout.ts";
import { buildOwnMsrs } from "./msrs.ts";
import { atBit, is64, wrapIp } from "../mode.ts";

/** Numbers of the SVM instructions in the qualification of an "svm" intercept. */
export const INSTRUCTION = {
  vmrun: 0,
  vmload: 1,
  vmsave: 2,
  stgi: 3,
  clgi: 4,
  invlpga: 5,
} as const;

/**
 * `svmLeave(code, info1, info2)`: a #VMEXIT is to be made when the instruction is given up;
 * `svmLeaveInstruction` notes its length too, for nRIP.
 */
function buildLeave(m: Module): void {
  m.func("svmLeave", ["i32", "i64", "i64"], [], (f, code, info1, info2) => {
    setCell(f, V.abort, ABORT.exit);
    setCell(f, V.exitReason, code);
    setCell64(f, SVMC.info1, info1);
    setCell64(f, SVMC.info2, info2);
    setCell(f, SVMC.length, 0);
    setCell(f, SVMC.bytes, 0);
    setCell(f, V.check, 0);
  });
  m.func("svmLeaveInstruction", ["i32", "i64", "i64"], [], (f, code, info1, info2) => {
    f.call("svmLeave", code, info1, info2);
    setCell(f, SVMC.length, cell(V.length));
  });
}

const leave = (f: Func, code: Operand, info1: Operand = i64(0), info2: Operand = i64(0)) =>
  f.call("svmLeaveInstruction", typeof code === "number" ? i32(code) : code, info1, info2);

// --- kinds of intercept ---

type Handler = (f: Func, vmcb: Vmcb, qualification: Local) => void;
type Vector = "intercepts1" | "intercepts2" | "intercepts3";
const VECTORS = { intercepts1: INTERCEPT1, intercepts2: INTERCEPT2, intercepts3: INTERCEPT3 };

/** Leaves with the code of that name if the bit of that name is set. */
function on<K extends Vector>(vector: K, name: keyof typeof VECTORS[K] & keyof typeof EXIT_CODE) {
  const bit = (VECTORS[vector] as Readonly<Record<string, number>>)[name as string];
  return (f: Func, vmcb: Vmcb, info1: Operand = i64(0), info2: Operand = i64(0)) =>
    f.if(vmcb.get(vector).and(bit), () => leave(f, EXIT_CODE[name], info1, info2));
}
const plain = (handler: ReturnType<typeof on>): Handler => (f, vmcb) => handler(f, vmcb);
const never = () => {};

/** The value a MOV to a control register brings. */
function sourceOf(f: Func, qualification: Local): Local {
  const place = qualification.shrU(8).wrap().and(15).shl(3);
  const value = load("i64", 64, "u", place, gpr(0));
  return f.let(value.when(is64(), value.and(0xffff_ffffn)));
}

/** MOV to CR8 without V_INTR_MASKING writes the virtual TPR besides (15.21.2). */
function writeTpr(f: Func, vmcb: Vmcb, value: Local): void {
  const virtual = f.let(vmcb.get("virtualInterrupt"));
  const shared = virtual.and(VIRTUAL_INTERRUPT.masking).eqz();
  f.if(shared.and(value.leU(15)), () => {
    vmcb.set("virtualInterrupt", virtual.and(~0xff).or(value.wrap()));
  });
}

function controlRegister(f: Func, vmcb: Vmcb, qualification: Local): void {
  const access = f.let(qualification.shrU(4).wrap().and(3));
  const n = f.let(qualification.wrap().and(15));
  const selective = vmcb.get("intercepts1").and(INTERCEPT1.cr0Selective).nez();
  const gprNumber = qualification.shrU(8).and(15);
  const other = access.gtU(1).or(qualification.and(0x80).nez());
  const mov = f.let(i64(0).when(other, gprNumber.or(CR_MOV)));
  f.if(access.eq(1), () => {
    f.if(vmcb.get("crReads").shrU(n).and(1), () => {
      leave(f, n.add(EXIT_CODE.crRead), mov);
    });
    f.return();
  });
  // CLTS and LMSW write CR0; their qualification has no number.
  f.if(vmcb.get("crWrites").shrU(n).and(1), () => {
    leave(f, n.add(EXIT_CODE.crWrite), mov);
    f.return();
  });
  f.if(access.eqz(), () => {
    const value = sourceOf(f, qualification);
    f.if(n.eqz(), () => {
      // Bits that a lazy hypervisor does not care for: TS and MP.
      const changed = value.xor(cell64(CPU.cr0)).and(~0xan).nez();
      f.if(selective.and(changed), () => leave(f, EXIT_CODE.cr0Selective, mov));
    });
    f.if(n.eq(8), () => writeTpr(f, vmcb, value));
  });
  // LMSW counts as a change of more, whatever it writes; CLTS changes TS alone.
  f.if(access.eq(3).and(selective), () => leave(f, EXIT_CODE.cr0Selective));
}

function debugRegister(f: Func, vmcb: Vmcb, qualification: Local): void {
  const n = f.let(qualification.wrap().and(15)), read = f.let(qualification.and(0x10).nez());
  const vector = vmcb.get("drReads").when(read, vmcb.get("drWrites"));
  f.if(vector.shrU(n).and(1), () => {
    const code = i32(EXIT_CODE.drRead).when(read, i32(EXIT_CODE.drWrite));
    leave(f, code.add(n), qualification.shrU(8).and(15));
  });
}

/** A bit of a permission map in machine memory: 1 where there is no memory. */
function mapBit(f: Func, base: Expr, bit: Expr): Local {
  const at = f.let(base.and(-4096n).add(bit.shrU(3).zext())), set = f.let(i32(1));
  f.if(at.ltU(cell64(V.ramSize)), () => {
    f.set(set, load("i32", 8, "u", at.wrap(), 0, MEMORY.ram).shrU(bit.and(7)).and(1));
  });
  return set;
}

const prefixes = () => load("i32", 16, "u", cell(V.record), REC.prefixes);

/** EXITINFO1 of IN, OUT, INS and OUTS (15.10.2). */
function ioInformation(f: Func, qualification: Local, port: Local, size: Local): Local {
  const q = f.let(qualification.wrap());
  const info = f.let(port.shl(IOIO.portShift).or(size.mul(IOIO.size8)));
  const add = (condition: Expr, bit: number) =>
    f.set(info, info.or(i32(bit).when(condition, i32(0))));
  add(q.and(8), IOIO.in);
  add(q.and(0x20), IOIO.rep);
  const wide = i32(IOIO.address64).when(prefixes().and(PREFIX.address64), i32(IOIO.address32));
  f.set(info, info.or(i32(IOIO.address16).when(prefixes().and(PREFIX.address16), wide)));
  f.if(q.and(0x10), () => {
    const segment = load("i32", 16, "u", cell(V.record), REC.segment);
    const number = i32(0).when(q.and(8), segment.sub(CPU["es.base"]).divU(SEGMENT_SIZE).and(7));
    f.set(info, info.or(IOIO.string).or(number.shl(IOIO.segmentShift)));
  });
  return info;
}

function inputOutput(f: Func, vmcb: Vmcb, qualification: Local): void {
  f.if(vmcb.get("intercepts1").and(INTERCEPT1.io).eqz(), () => f.return());
  const port = f.let(qualification.shrU(16).wrap().and(0xffff));
  const size = f.let(qualification.wrap().and(7).add(1));
  const exit = f.let(i32(0)), i = f.let(i32(0));
  // The map goes on behind port 0xffff.
  f.while(() => i.ltU(size).and(exit.eqz()), () => {
    f.set(exit, mapBit(f, vmcb.get("iopmBase"), port.add(i)));
    f.set(i, i.add(1));
  });
  f.if(exit.eqz(), () => f.return());
  const info = ioInformation(f, qualification, port, size);
  leave(f, EXIT_CODE.io, info.zext(), nextRip(f));
}

/** Address of the next instruction; CPU.rip may still lag behind. */
function nextRip(f: Func): Local {
  const offset = load("i64", 16, "u", cell(V.record), REC.offset);
  return f.let(wrapIp(cell64(V.ipBase).add(offset).add(cell(V.length).zext())));
}

function msr(f: Func, vmcb: Vmcb, write: Local): void {
  f.if(vmcb.get("intercepts1").and(INTERCEPT1.msr).eqz(), () => f.return());
  const index = f.let(cell(CPU.rcx)), exit = f.let(i32(1));
  msrpmRanges.forEach((first, n) => {
    const offset = index.sub(first | 0);
    f.if(offset.leU(0x1fff), () => {
      const bit = offset.add(0x2000 * n).shl(1).or(write.wrap().and(1));
      f.set(exit, mapBit(f, vmcb.get("msrpmBase"), bit));
    });
  });
  f.if(exit, () => leave(f, EXIT_CODE.msr, write.and(1)));
}

/** SGDT, SIDT, LGDT, LIDT, SLDT, STR, LLDT, LTR in the order of the qualification. */
const TABLES = [
  "gdtrRead",
  "idtrRead",
  "gdtrWrite",
  "idtrWrite",
  "ldtrRead",
  "trRead",
  "ldtrWrite",
  "trWrite",
] as const;

function descriptorTable(f: Func, vmcb: Vmcb, instruction: Local): void {
  const cases = TABLES.map((name) => () => on("intercepts1", name)(f, vmcb));
  f.switch(instruction.wrap(), cases, () => {});
}

function timeStampRead(f: Func, vmcb: Vmcb, rdtscp: Local): void {
  f.if(rdtscp.nez(), () => on("intercepts2", "rdtscp")(f, vmcb), () => {
    on("intercepts1", "rdtsc")(f, vmcb);
  });
}

function pause(f: Func, vmcb: Vmcb): void {
  f.if(vmcb.get("intercepts1").and(INTERCEPT1.pause).eqz(), () => f.return());
  const count = f.let(vmcb.get("pauseFilterCount"));
  const threshold = f.let(vmcb.get("pauseFilterThreshold"));
  f.if(count, () => {
    // PAUSEs that come far apart are no spinning: the count starts anew (15.14.4).
    const now = f.let(timeStamp());
    const far = f.let(
      threshold.nez().and(now.sub(cell64(SVMC.pauseLast)).gtU(threshold.zext())),
    );
    setCell64(f, SVMC.pauseLast, now);
    f.if(far, () => setCell(f, SVMC.pauseCount, count));
    const left = f.let(cell(SVMC.pauseCount));
    f.if(left.nez(), () => {
      setCell(f, SVMC.pauseCount, left.sub(1));
      f.return();
    });
  });
  leave(f, EXIT_CODE.pause);
}

function monitorWait(f: Func, vmcb: Vmcb, armed: Local): void {
  on("intercepts2", "mwait")(f, vmcb);
  f.if(cell(V.abort).eqz().and(armed.nez()), () => on("intercepts2", "mwaitArmed")(f, vmcb));
}

function taskSwitch(f: Func, vmcb: Vmcb, qualification: Local): void {
  f.if(vmcb.get("intercepts1").and(INTERCEPT1.taskSwitch).eqz(), () => f.return());
  const source = f.let(qualification.shrU(30).wrap().and(3));
  const info = f.let(atBit(cell64(CPU.rflags), RFLAGS.RF).and(1).mul(TASK_SWITCH.resumeFlag));
  f.if(source.eq(TASK_SOURCE.iret), () => f.set(info, info.or(TASK_SWITCH.iret)));
  f.if(source.eq(TASK_SOURCE.jump), () => f.set(info, info.or(TASK_SWITCH.jump)));
  f.if(source.eq(TASK_SOURCE.gate).and(cell(V.vectoring).and(SVM_EVENT.errorCode).nez()), () => {
    f.set(info, info.or(TASK_SWITCH.errorCode).or(cell(V.vectoringError).zext()));
  });
  f.call("svmLeave", i32(EXIT_CODE.taskSwitch), qualification.and(0xffff), info);
}

function svmInstruction(f: Func, vmcb: Vmcb, instruction: Local): void {
  const cases = (Object.keys(INSTRUCTION) as (keyof typeof INSTRUCTION)[]).map((name) => () =>
    name === "invlpga" ? on("intercepts1", "invlpga")(f, vmcb) : on("intercepts2", name)(f, vmcb)
  );
  f.switch(instruction.wrap(), cases, () => {});
}

const handlers: Record<InterceptKind, Handler> = {
  cr: controlRegister,
  dr: debugRegister,
  io: inputOutput,
  msr,
  cpuid: plain(on("intercepts1", "cpuid")),
  hlt: plain(on("intercepts1", "hlt")),
  invlpg: (f, vmcb, linear) => on("intercepts1", "invlpg")(f, vmcb, linear),
  rdtsc: timeStampRead,
  rdpmc: plain(on("intercepts1", "rdpmc")),
  pause,
  mwait: monitorWait,
  monitor: plain(on("intercepts2", "monitor")),
  "descriptor-table": descriptorTable,
  wbinvd: plain(on("intercepts2", "wbinvd")),
  invd: plain(on("intercepts1", "invd")),
  xsetbv: plain(on("intercepts2", "xsetbv")),
  hypercall: plain(on("intercepts2", "vmmcall")),
  "task-switch": taskSwitch,
  rsm: plain(on("intercepts1", "rsm")),
  iret: plain(on("intercepts1", "iret")),
  pushf: plain(on("intercepts1", "pushf")),
  popf: plain(on("intercepts1", "popf")),
  int: (f, vmcb, vector) => on("intercepts1", "intN")(f, vmcb, vector),
  icebp: plain(on("intercepts2", "icebp")),
  invpcid: plain(on("intercepts3", "invpcid")),
  svm: svmInstruction,
  // VMX's own, and what SVM has no intercept for.
  vmx: never,
  rdrand: never,
  rdseed: never,
  xsaves: never,
  "coprocessor-error": plain(on("intercepts1", "ferrFreeze")),
  absent: never,
};

function buildIntercept(m: Module): void {
  const kinds = Object.entries(INTERCEPT).sort((a, b) => a[1] - b[1]);
  m.func("intercept", ["i32", "i64"], [], (f, kind, qualification) => {
    // The hypervisor has the processor execute this one instruction for the guest.
    f.if(cell(V.emulating), () => f.return());
    const vmcb = Vmcb.current(f);
    const cases = kinds.map(([name]) => () =>
      handlers[name as InterceptKind](f, vmcb, qualification)
    );
    f.switch(kind, cases, () => {});
  });
  // Control registers are the guest's own: nothing is shown or kept in their place.
  m.func("crShadow", ["i32", "i64"], ["i64"], (f, _n, value) => f.result(value));
  // With V_INTR_MASKING CR8 is the virtual TPR: the local APIC hears nothing of it.
  m.func("priorityIsVirtual", [], ["i32"], (f) => {
    f.if(cell(V.nonRoot).eqz(), () => f.return(i32(0)));
    f.result(Vmcb.current(f).get("virtualInterrupt").and(VIRTUAL_INTERRUPT.masking));
  });
  m.func("crMasked", ["i32", "i64", "i64"], ["i64"], (f, _n, _old, value) => f.result(value));
}

// --- events ---

/** Debug exceptions have written DR6 and DR7 when they are intercepted (15.12.2). */
function noteDebug(f: Func): void {
  const pending = cell64(CPU.pendingDebug).and(DR6.causes);
  setCell64(f, CPU.dr6, cell64(CPU.dr6).and(~BigInt(DR6.breakpoints)).or(pending));
  setCell64(f, CPU.dr7, cell64(CPU.dr7).and(~BigInt(DR7.GD)));
  setCell64(f, CPU.pendingDebug, 0);
}

function leaveByException(f: Func, vector: Local, type: Local): void {
  const info1 = f.let(i64(0)), info2 = f.let(i64(0));
  f.if(cell(V.hasError).and(cell(CPU.cr0)).and(1), () => {
    f.set(info1, cell(V.errorCode).zext());
  });
  const page = f.let(type.eq(EVENT_TYPE.hardwareException).and(vector.eq(VECTOR.PF)));
  // A page fault's code and address come in real mode with paging too.
  f.if(page, () => {
    f.set(info1, cell(V.errorCode).zext());
    f.set(info2, cell64(V.faultAddress));
  });
  // INT1 takes along the traps that MOV SS had held back, and leaves DR6 alone without any.
  const held = type.eq(EVENT_TYPE.privilegedSoftwareException).and(cell64(CPU.pendingDebug).nez());
  f.if(
    type.eq(EVENT_TYPE.hardwareException).or(held).and(vector.eq(VECTOR.DB)),
    () => noteDebug(f),
  );
  const instruction = type.geU(EVENT_TYPE.privilegedSoftwareException).or(
    type.eq(EVENT_TYPE.hardwareException).and(vector.eq(VECTOR.BR)),
  );
  const id = f.let(cell(V.check)), length = f.let(cell(V.length).when(instruction, i32(0)));
  f.call("svmLeave", vector.add(EXIT_CODE.exception), info1, info2);
  setCell(f, V.check, id);
  setCell(f, SVMC.length, length);
  setCell(f, SVMC.bytes, page.and(info1.wrap().and(0x10).eqz()));
  // The event that leads to a double fault is not in the course of delivery any more.
  f.if(
    type.eq(EVENT_TYPE.hardwareException).and(vector.eq(VECTOR.DF)),
    () => setCell(f, V.vectoring, 0),
  );
}

function buildEvents(m: Module): void {
  m.func("vectoringExit", ["i32"], [], (f, what) => {
    const vmcb = Vmcb.current(f);
    f.if(what, () => {
      f.if(vmcb.get("intercepts1").and(INTERCEPT1.shutdown), () => {
        f.call("svmLeave", i32(EXIT_CODE.shutdown), i64(0), i64(0));
        setCell(f, V.vectoring, 0);
      });
      f.return();
    });
    // The event that VMRUN injects is not intercepted.
    f.if(cell(SVMC.injecting), () => {
      setCell(f, SVMC.injecting, 0);
      f.return();
    });
    const vector = f.let(cell(V.vector)), type = f.let(cell(V.eventType));
    f.if(type.eq(EVENT_TYPE.nmi), () => {
      f.if(vmcb.get("intercepts1").and(INTERCEPT1.nmi), () => {
        f.call("svmLeave", i32(EXIT_CODE.nmi), i64(0), i64(0));
      });
      f.return();
    });
    // INT n has its own intercept, by the instruction.
    f.if(
      type.ltU(EVENT_TYPE.hardwareException).or(type.eq(EVENT_TYPE.softwareInterrupt)).or(
        vector.gtU(31),
      ),
      () => f.return(),
    );
    f.if(vmcb.get("exceptions").shrU(vector).and(1), () => leaveByException(f, vector, type));
  });
  // What a pending host interrupt does to a guest: 0 it is delivered as soon as the guest's IF allows,
  // 1 the guest leaves; 2 it waits (a hosted root, whose IF is set, never sees that).
  m.func("interruptMode", [], ["i32"], (f) => {
    const vmcb = Vmcb.current(f);
    const intercepted = f.let(vmcb.get("intercepts1").and(INTERCEPT1.intr));
    f.if(cell(CPU.gif).eqz(), () => f.return(i32(2)));
    const host = load("i32", 32, "u", cell(CPU.vmHsave), hostSave("rflags"), MEMORY.ram);
    f.if(vmcb.get("virtualInterrupt").and(VIRTUAL_INTERRUPT.masking), () => {
      f.return(intercepted.when(host.and(RFLAGS.IF), i32(2)));
    });
    const open = cell(CPU.interruptibility).and(SHADOW).eqz();
    f.result(intercepted.and(open).and(atBit(cell(CPU.rflags), RFLAGS.IF)).and(1));
  });
  // interruptExit(vector): INTR; nobody acknowledges the interrupt, so the vector is not looked at.
  m.func("interruptExit", ["i32"], [], (f) => {
    f.call("svmLeave", i32(EXIT_CODE.intr), i64(0), i64(0));
  });
  // initExit() -> 1 if an INIT leaves the guest; it stays pending (APM 2 15.13.3).
  m.func("initExit", [], ["i32"], (f) => {
    const vmcb = Vmcb.current(f);
    const open = vmcb.get("intercepts1").and(INTERCEPT1.init).nez().and(cell(CPU.gif));
    f.if(open.eqz(), () => f.return(i32(0)));
    f.call("svmLeave", i32(EXIT_CODE.init), i64(0), i64(0));
    f.result(1);
  });
  // nmiExit() -> 1 if an NMI leaves the guest; V.abort is set then.
  m.func("nmiExit", [], ["i32"], (f) => {
    const vmcb = Vmcb.current(f);
    const masked = cell(CPU.interruptibility).and(INTERRUPTIBILITY.movSs | INTERRUPTIBILITY.nmi).or(
      cell(CPU.gif).eqz(),
    );
    f.if(vmcb.get("intercepts1").and(INTERCEPT1.nmi).eqz().or(masked), () => f.return(i32(0)));
    f.call("svmLeave", i32(EXIT_CODE.nmi), i64(0), i64(0));
    f.result(1);
  });
}

/** To be built before event delivery and task switches, which call these if they are there. */
export function buildSvmHooks(m: Module): void {
  buildOwnMsrs(m);
  buildLeave(m);
  buildIntercept(m);
  buildEvents(m);
}
