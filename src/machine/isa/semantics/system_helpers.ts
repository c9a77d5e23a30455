/** What the semantics of system instructions share. */
import { ABORT, CPU, REC, V } from "../../state.ts";
import { cell, setCell } from "../../system.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, load } from "../../wasm/expr.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { LINK, protectedMode, virtual8086 } from "../../segmentation/descriptor.ts";

const CHECK = {
  cpl: check("privilege.cpl", "the instruction needs CPL 0, CPL is {a}", "SDM 3 5.9"),
  mode: check(
    "mode.protected",
    "the instruction is not recognized in real and virtual-8086 mode",
    "SDM 2",
  ),
  feature: check("instruction.undefined", "the instruction is undefined", "SDM 2"),
};

/** #GP(0) unless CPL is 0. */
export function requirePrivilege(m: Meaning): void {
  m.faultIf(cell(V.cpl).nez(), 13, 0, CHECK.cpl, cell(V.cpl));
}
/** #UD in real and virtual-8086 mode. */
export function requireProtected(m: Meaning): void {
  m.faultIf(protectedMode().eqz().or(virtual8086()), 6, undefined, CHECK.mode);
}
/** #UD if `condition` holds. */
export function undefinedIf(m: Meaning, condition: Expr): void {
  m.faultIf(condition, 6, undefined, CHECK.feature);
}
export const privileged = (body: Semantics): Semantics => (m) => {
  requirePrivilege(m);
  body(m);
};

/** Ends an instruction after which the loop must look at the state again. */
export function finish(m: Meaning): void {
  m.commit();
  m.f.store(64, i32(0), m.nextIp, CPU.rip);
  m.serialize();
}
/** The same only if `condition` holds; else the next instruction follows at once. */
export function finishIf(m: Meaning, condition: Expr): void {
  m.f.if(condition, () => finish(m));
}

/** Bytes of the instruction. */
export const instructionLength = (m: Meaning): Expr => load("i32", 8, "u", m.rec, REC.length);

/**
 * Ends a far transfer. A fault after a task switch belongs to the new task: it is delivered here,
 * because the loop would take it for one of this instruction.
 */
export function finishTransfer(m: Meaning): void {
  m.f.if(cell(V.abort), () => {
    m.f.if(cell(LINK.taskSwitched).eqz(), () => m.abort());
    m.f.call("deliver");
    m.f.if(cell(V.abort), () => m.abort());
  });
  m.serialize();
}

/**
 * Raises an event that the instruction itself asks for: type 4 INT n, 5 INT1, 6 INT3 and INTO. Where a
 * fault comes of that the instruction has not been executed.
 */
export function raiseEvent(m: Meaning, vector: Expr, type: 4 | 5 | 6): void {
  const f = m.f;
  f.store(64, i32(0), m.ip, CPU.rip);
  setCell(f, V.vector, vector);
  setCell(f, V.eventType, type);
  setCell(f, V.hasError, 0);
  setCell(f, V.errorCode, 0);
  setCell(f, V.length, instructionLength(m));
  setCell(f, V.check, 0);
  f.call("deliver");
  f.if(cell(V.abort), () => m.abort());
  f.if(cell(V.eventType).ltU(4), () => setCell(f, V.abort, ABORT.delivered));
  m.serialize();
}

/** IF may have become 1: the loop must look if something waits for it. */
export const eventsWait = (): Expr =>
  cell(V.interruptPending).or(cell(V.nonRoot)).or(cell(CPU.pendingNmi)).or(cell(V.stepping));
