/** The virtual interrupt (APM 2 15.21.4): what is due in a guest at an instruction boundary. */
import { EVENT_TYPE } from "../../abi/x86/vectors.ts";
import { atBit } from "../mode.ts";
import { RFLAGS } from "../../abi/x86/cr.ts";
import { EXIT_CODE, INTERCEPT1, VIRTUAL_INTERRUPT } from "../../abi/x86/vmcb.ts";
import { ABORT, ACTIVITY, CPU, SHADOW, V } from "../state.ts";
import { cell, setCell } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Local, Module } from "../wasm/module.ts";
import { Vmcb } from "./layout.ts";

/** The virtual TPR: CR8's while V_INTR_MASKING makes that its home. */
const virtualTpr = (word: Local): Expr =>
  cell(CPU.cr8).when(word.and(VIRTUAL_INTERRUPT.masking), word).and(VIRTUAL_INTERRUPT.tpr);

/** What `svmBoundary` gives; where the guest leaves, V.abort is set. */
export const VIRTUAL = { waits: 0, leaves: 1, delivered: 2 } as const;

export function buildBoundary(m: Module): void {
  // svmBoundary() -> VIRTUAL.
  m.func("svmBoundary", [], ["i32"], (f) => {
    const vmcb = Vmcb.current(f);
    const word = f.let(vmcb.get("virtualInterrupt"));
    f.if(word.and(VIRTUAL_INTERRUPT.irq).eqz(), () => f.return(i32(0)));
    // A debug trap comes first.
    f.if(cell(CPU.pendingDebug), () => f.return(i32(0)));
    const open = atBit(cell(CPU.rflags), RFLAGS.IF).and(
      cell(CPU.interruptibility).and(SHADOW).eqz(),
    )
      .and(1);
    const awake = cell(CPU.activity).leU(ACTIVITY.hlt).and(cell(CPU.gif).nez());
    const priority = word.and(VIRTUAL_INTERRUPT.priority).shrU(VIRTUAL_INTERRUPT.priorityShift);
    const above = priority.gtU(virtualTpr(word)).or(word.and(VIRTUAL_INTERRUPT.ignoreTpr).nez());
    f.if(open.and(awake).and(above).eqz(), () => f.return(i32(0)));
    f.if(vmcb.get("intercepts1").and(INTERCEPT1.vintr), () => {
      f.call("svmLeave", i32(EXIT_CODE.vintr), i64(0), i64(0));
      f.return(i32(1));
    });
    vmcb.set("virtualInterrupt", word.and(~VIRTUAL_INTERRUPT.irq));
    setCell(f, CPU.activity, ACTIVITY.active);
    setCell(f, V.abort, ABORT.none);
    setCell(f, V.vector, vmcb.get("virtualVector"));
    setCell(f, V.eventType, EVENT_TYPE.externalInterrupt);
    setCell(f, V.hasError, 0);
    f.call("deliver");
    f.result(i32(1).when(cell(V.abort).eq(ABORT.exit), i32(2)));
  });
}
