/**
 * A guest's run from entry to exit in one call, for what is by far the commonest: nothing is due at
 * the entry, the guest runs in the mode it left in, and it leaves by an exit. All else goes on in
 * `Cpu.run`, which says what each step means. It stands on `enterGuest` and `leaveGuest` alone, which
 * either vendor's extensions have.
 */
import { ABORT, CPU, SHADOW, V } from "../state.ts";
import { cell, MEMORY } from "../linkage.ts";
import { span } from "../wasm/cells.ts";
import { i32, load128 } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";

/** x87, MMX and SSE state: one block of memory 0, of a multiple of 16 bytes. */
export const FLOAT = span(CPU, "fpr0", "xmm15");

/** `loadFloat(address)` and `storeFloat(address)`: the block from and to machine memory. */
export function buildFloatSwitch(m: Module): void {
  m.func("loadFloat", ["i32"], [], (f, address) => {
    for (let at = 0; at < FLOAT.size; at += 16) {
      f.store128(i32(0), load128(address, at, MEMORY.ram), FLOAT.start + at, MEMORY.cpu);
    }
  });
  m.func("storeFloat", ["i32"], [], (f, address) => {
    for (let at = 0; at < FLOAT.size; at += 16) {
      f.store128(address, load128(i32(0), FLOAT.start + at, MEMORY.cpu), at, MEMORY.ram);
    }
  });
}

/** What `runGuest` gives, besides what `enterGuest` does when the guest did not run (1 to 3). */
export const GUEST = {
  /** Entered; no instruction has run. */
  entered: 0,
  /** It ran and has left: `leaveGuest` is done. */
  left: 4,
  /** It ran; the interpreter's reason is added. */
  ran: 8,
} as const;

const TF_RF = 0x1_0100, DR_ENABLED = 0xff, LBR = 1;

/** `runGuest(area, launch, budget, mode, interpreter) -> GUEST`. */
export function buildRunGuest(m: Module): void {
  m.func(
    "runGuest",
    ["i32", "i32", "i32", "i32", "i32"],
    ["i32"],
    (f, area, launch, budget, mode, interpreter) => {
      const status = f.call("enterGuest", area, launch);
      f.if(status, () => f.return(status));
      f.call("refresh");
      const due = cell(V.abort).or(cell(V.injected)).or(cell(CPU.activity)).or(
        cell(CPU.pendingDebug),
      )
        .or(cell(CPU.pendingNmi)).or(cell(CPU.interruptibility).and(SHADOW))
        .or(cell(CPU.rflags).and(TF_RF)).or(cell(CPU.dr7).and(DR_ENABLED))
        .or(cell(CPU.debugctl).and(LBR))
        .or(cell(V.codeMode).xor(mode));
      f.if(due, () => f.return(i32(GUEST.entered)));
      const code = f.callIndirect(interpreter, ["i32"], ["i32"], budget);
      f.if(code.eq(1).and(cell(V.abort).eq(ABORT.exit)), () => {
        f.call("leaveGuest", area);
        f.return(i32(GUEST.left));
      });
      f.result(code.add(GUEST.ran));
    },
  );
}
