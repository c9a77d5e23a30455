/**
 * Delivery of interrupts and exceptions (SDM 3 chapter 6; the INT pseudocode of SDM 2).
 *
 * `deliver()` takes the event from V.vector, V.eventType (2 NMI, 0 external interrupt, 3 hardware
 * exception, 4 INT n, 5 INT1, 6 INT3 and INTO), V.hasError and V.errorCode. CPU.rip is the address to
 * return to; for types 4, 5 and 6 it is the instruction itself and V.length its length, so that a
 * fault on the way finds the instruction. The cause of a #DB stands in CPU.pendingDebug (bits as in
 * DR6), the address of a #PF in V.faultAddress.
 *
 * When it returns, V.abort is 0 and the handler is next to run (or the processor is shut down after
 * a triple fault: CPU.activity = 2), or V.abort says why delivery was given up: ABORT.exit from the
 * hook, from a page walk or a task switch; ABORT.unanswered, and it can be called again.
 *
 * The hook: `vectoringExit(what)`, called in VMX non-root operation only (V.nonRoot), with 0 before an
 * event is delivered and 1 for a triple fault; to intercept it sets V.abort. V.vectoring then is the
 * event during whose delivery this one arose, in the format of the IDT-vectoring information field
 * (SDM 3 25.9.3), 0 if none; V.vectoringError and V.vectoringLength belong to it. #DB has not
 * touched DR6 and DR7 then, nor #PF CR2.
 */
import { EVENT_TYPE, VECTOR } from "../../../abi/x86/vectors.ts";
import { ABORT, ACTIVITY, CPU, INTERRUPTIBILITY, SHADOW, V } from "../../state.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import { leave, LINK, setFlags } from "../segmentation/descriptor.ts";
import { atBit, longMode, protectedMode, wrapIp } from "../../mode.ts";
import { DEBUGCTL, DR6, DR7, RFLAGS } from "../../../abi/x86/cr.ts";

const CHECK = {
  double: check(
    "fault.double",
    "exception {b} arose while exception {a} was being delivered",
    "SDM 3 6.15, table 6-5",
  ),
  triple: check(
    "fault.triple",
    "exception {b} arose while a double fault was being delivered: shutdown",
    "SDM 3 6.15",
  ),
  endless: check(
    "fault.endless",
    "exception {b} arises each time exception {a} is being delivered, without end: shutdown",
    "none: processors hang here (CVE-2015-5307)",
  ),
};

/**
 * Events tried for one. Exceptions that become a double or triple fault need 4 at most; an #AC by
 * the push of its own frame comes again for ever.
 */
const MAX_ROUNDS = 16;

const VALID = 0x8000_0000 | 0;

const { CP, DE, GP, NP, SS, TS } = VECTOR;
const CONTRIBUTORY = [DE, TS, NP, SS, GP, CP].reduce<number>((set, vector) => set | 1 << vector, 0);
/** 1 for the contributory exceptions. */
const contributory = (vector: Expr): Expr =>
  i32(1).shl(vector).and(CONTRIBUTORY).nez().and(vector.ltU(32));
/** 1 for #PF (and #VE). */
const pageFault = (vector: Expr): Expr => vector.eq(VECTOR.PF).or(vector.eq(VECTOR.VE));

/** Is this hardware exception a fault (not a trap or an abort): RF is set in the pushed flags. */
const isFault = (vector: Expr): Expr => vector.ne(VECTOR.NMI).and(vector.ne(VECTOR.MC));

/** What an event does to the registers before its handler is looked up. */
function beforeDelivery(f: Func, vector: Local, type: Local): void {
  f.if(type.eq(EVENT_TYPE.nmi), () => {
    setCell(f, CPU.interruptibility, cell(CPU.interruptibility).or(INTERRUPTIBILITY.nmi));
  });
  f.if(
    type.eq(EVENT_TYPE.hardwareException).and(vector.eq(VECTOR.PF)),
    () => setCell64(f, CPU.cr2, cell64(V.faultAddress)),
  );
  // INT1 takes along the traps that MOV SS had held back.
  const held = type.eq(EVENT_TYPE.privilegedSoftwareException).and(cell64(CPU.pendingDebug).nez());
  f.if(type.eq(EVENT_TYPE.hardwareException).or(held).and(vector.eq(VECTOR.DB)), () => {
    // B0 to B3 are those of this exception, the others stay until software clears them.
    const pending = cell64(CPU.pendingDebug).and(DR6.causes);
    setCell64(f, CPU.dr6, cell64(CPU.dr6).and(~BigInt(DR6.breakpoints)).or(pending));
    setCell64(f, CPU.dr7, cell64(CPU.dr7).and(~BigInt(DR7.GD)));
    // BTF ends with the trap (SDM 3 17.4.3).
    setCell64(f, CPU.debugctl, cell64(CPU.debugctl).and(~BigInt(DEBUGCTL.BTF)));
    setCell64(f, CPU.pendingDebug, 0);
  });
}

/** One attempt, without what follows from a fault in it. */
function buildDeliverOnce(m: Module): void {
  m.func("deliverOnce", [], [], (f) => {
    f.call("materialize");
    setCell(f, LINK.taskSwitched, 0);
    const vector = f.let(cell(V.vector)), type = f.let(cell(V.eventType));
    const flags = f.let(cell(CPU.rflags));
    // RF is 1 in the image of a fault, so that an instruction breakpoint does not hit again. A #DB
    // is one only by general detect (SDM 3 17.3.1.1).
    const general = atBit(cell64(CPU.pendingDebug), DR6.BD).wrap().and(1);
    const fault = type.eq(EVENT_TYPE.hardwareException).and(isFault(vector)).and(
      vector.ne(VECTOR.DB).or(general),
    );
    f.set(flags, flags.or(fault.shl(16)));
    beforeDelivery(f, vector, type);
    const ip = f.let(cell64(CPU.rip));
    f.if(type.geU(EVENT_TYPE.softwareInterrupt), () => f.set(ip, ip.add(cell(V.length).zext())));
    f.set(ip, wrapIp(ip));
    f.if(longMode(), () => f.call("deliverLong", vector, type, flags, ip), () => {
      f.if(protectedMode(), () => f.call("deliverProtected", vector, type, flags, ip), () => {
        f.call("deliverReal", vector, flags, ip.and(0xffff));
      });
    });
  });
}

/** Real mode, and interrupts that virtual-8086 mode redirects to its own table (SDM 3 20.1.4). */
function buildDeliverReal(m: Module): void {
  const limit = check(
    "idt.limit",
    "vector {a}: its entry is outside the IDT with limit {b}",
    "SDM 3 6.10",
  );
  m.func("deliverReal", ["i32", "i32", "i64"], [], (f, vector, flags, ip) => {
    const last = vector.shl(2).add(3), end = cell(CPU["idtr.limit"]);
    f.if(last.gtU(end), () => {
      fault13(f, vector.shl(3).or(2), limit, vector, end);
      leave(f);
    });
    const at = cell64(CPU["idtr.base"]).add(vector.shl(2).zext()).and(0xffff_ffffn);
    const entry = f.call("ld32", at, cell(V.accessSystem));
    f.if(cell(V.abort), () => leave(f));
    f.call("enterReal", entry, flags, ip);
  });
  // enterReal(CS:IP, flags image, return IP): pushes and jumps.
  m.func("enterReal", ["i32", "i32", "i64"], [], (f, entry, flags, ip) => {
    const stack = f.let(cell64(CPU.rsp));
    for (const value of [flags.and(0xffff), cell(CPU["cs.selector"]), ip.wrap().and(0xffff)]) {
      f.call("push16", value);
      f.if(cell(V.abort), () => {
        f.store(64, i32(0), stack, CPU.rsp);
        leave(f);
      });
    }
    const selector = f.let(entry.shrU(16));
    f.store(32, i32(0), selector, CPU["cs.selector"]);
    f.store(64, i32(0), selector.zext().shl(4), CPU["cs.base"]);
    setCell64(f, CPU.rip, entry.and(0xffff).zext());
    setFlags(f, RFLAGS.TF | RFLAGS.IF | RFLAGS.AC | RFLAGS.RF, i32(0));
  });
}

const fault13 = (f: Func, code: Expr, id: number, a: Expr, b: Expr) =>
  noteFault(f, VECTOR.GP, code, id, a, b);

/** Works out what a second exception makes of the first (SDM 3 table 6-5). */
function buildCombine(m: Module): void {
  // combineFaults() -> 1 for a triple fault. V.vectoring names the first, V.vector the second.
  m.func("combineFaults", [], ["i32"], (f) => {
    const first = f.let(cell(V.vectoring).and(0xff));
    const second = f.let(cell(V.vector));
    f.if(cell(V.vectoring).shrU(8).and(7).ne(3), () => f.return(i32(0)));
    const severe = f.let(contributory(second).or(pageFault(second)));
    f.if(first.eq(8).and(severe), () => {
      noteFault(f, VECTOR.DF, 0, CHECK.triple, first, second);
      f.return(i32(1));
    });
    const double = contributory(first).and(contributory(second)).or(pageFault(first).and(severe));
    f.if(double, () => noteFault(f, VECTOR.DF, 0, CHECK.double, first, second));
    f.result(i32(0));
  });
}

export function buildDeliver(m: Module): void {
  buildDeliverReal(m);
  buildCombine(m);
  buildDeliverOnce(m);
  m.func("deliver", [], [], (f) => {
    const hook = (what: number) => {
      if (!m.has("vectoringExit")) return;
      f.if(cell(V.nonRoot), () => {
        f.call("vectoringExit", i32(what));
        f.if(cell(V.abort), () => f.return());
      });
    };
    const shutdown = () => {
      setCell(f, V.abort, ABORT.none);
      hook(1);
      setCell(f, V.vectoring, 0);
      setCell(f, CPU.activity, ACTIVITY.shutdown);
      f.return();
    };
    const rounds = f.let(i32(0));
    setCell(f, V.vectoring, 0);
    f.loop((again) => {
      setCell(f, V.abort, ABORT.none);
      hook(0);
      // Real mode knows no error codes (SDM 3 28.2.4).
      const hasError = f.let(cell(V.hasError).and(cell(CPU.cr0))), code = f.let(cell(V.errorCode));
      const info = cell(V.vector).or(cell(V.eventType).shl(8)).or(hasError.shl(11)).or(VALID);
      setCell(f, V.vectoring, info);
      setCell(f, V.vectoringError, code);
      setCell(f, V.vectoringLength, cell(V.length));
      // An event ends HLT and every interrupt shadow.
      setCell(f, CPU.activity, ACTIVITY.active);
      setCell(f, CPU.interruptibility, cell(CPU.interruptibility).and(~SHADOW));
      f.call("deliverOnce");
      f.call("refresh");
      f.if(cell(V.abort).ne(ABORT.fault), () => {
        f.if(cell(V.abort).eqz(), () => {
          setCell(f, V.vectoring, 0);
          // An instruction that ends in a handler (INT n) leaves no single-step trap.
          setCell(f, V.stepping, 0);
        });
        f.return();
      });
      // The second exception may be intercepted as what it is, before it becomes a double fault.
      setCell(f, V.abort, ABORT.none);
      hook(0);
      f.if(f.call("combineFaults"), shutdown);
      f.set(rounds, rounds.add(1));
      f.if(rounds.geU(MAX_ROUNDS), () => {
        noteFault(f, VECTOR.DF, 0, CHECK.endless, cell(V.vectoring).and(0xff), cell(V.vector));
        shutdown();
      });
      f.br(again);
    });
  });
}
