/** Guests of a host that is code of this machine: what a host in TypeScript does for its own. */
import type { ProcessorParts } from "../linkage.ts";
import { ABORT, CPU, INTERRUPT, INTERRUPTIBILITY, V } from "../state.ts";
import { VIRTUAL } from "./boundary.ts";

/** What is due and leaves the guest: a virtual interrupt, an NMI, an interrupt, in that order. */
function noteExit(cpu: ProcessorParts): "delivered" | void {
  const { system, i32 } = cpu, { movSs } = INTERRUPTIBILITY;
  // The trap of the last instruction goes before them.
  if (i32[CPU.pendingDebug >> 2] && !(i32[CPU.interruptibility >> 2] & movSs)) return;
  const virtual = system.svmBoundary();
  if (virtual === VIRTUAL.delivered) return "delivered";
  if (virtual === VIRTUAL.leaves) return;
  if (i32[CPU.pendingInit >> 2] && system.initExit()) return;
  if (i32[CPU.pendingNmi >> 2] && system.nmiExit()) return;
  if (cpu.interruptPending() && system.interruptMode() === INTERRUPT.leaves) {
    system.interruptExit(-1);
  }
}

/** At an instruction boundary: makes what is due and is not the guest's. True: the state has changed. */
export function guestBoundary(cpu: ProcessorParts): boolean {
  if (noteExit(cpu) === "delivered") return true;
  if (cpu.i32[V.abort >> 2] !== ABORT.exit) return false;
  cpu.system.svmExit();
  return true;
}
