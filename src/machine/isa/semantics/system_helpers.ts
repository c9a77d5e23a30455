/** What the semantics of system instructions share. */
import { EVENT_TYPE, VECTOR } from "../../../abi/x86/vectors.ts";
import { ABORT, CPU, V } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { check } from "../../checks.ts";
import type { Expr } from "../../wasm/expr.ts";
import type { Meaning } from "./meaning.ts";
import { LINK } from "../../system/segmentation/descriptor.ts";

const CHECK = {
  feature: check("instruction.undefined", "the instruction is undefined", "SDM 2"),
};

/** #UD if `condition` holds. */
export function undefinedIf(m: Meaning, condition: Expr): void {
  m.faultIf(condition, VECTOR.UD, undefined, CHECK.feature);
}
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
  m.uses({ exit: "task-switch", written: "i" });
  const f = m.f;
  m.resumeAt(m.ip);
  setCell(f, V.vector, vector);
  setCell(f, V.eventType, type);
  setCell(f, V.hasError, 0);
  setCell(f, V.errorCode, 0);
  setCell(f, V.length, m.length);
  setCell(f, V.check, 0);
  f.call("deliver");
  f.if(cell(V.abort), () => m.abort());
  f.if(
    cell(V.eventType).ltU(EVENT_TYPE.softwareInterrupt),
    () => setCell(f, V.abort, ABORT.delivered),
  );
  m.serialize();
}

/** IF may have become 1: the loop must look if something waits for it. */
export const eventsWait = (): Expr =>
  cell(V.interruptPending).or(cell(V.nonRoot)).or(cell(CPU.pendingNmi)).or(cell(V.stepping));
