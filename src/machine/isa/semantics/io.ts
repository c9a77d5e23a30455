/** IN, OUT, INS, OUTS: privilege, permission bitmap, devices (SDM 1 18.5; SDM 2). */
import { RCX, RDI, RSI } from "../../../abi/x86/registers.ts";
import { CR4 } from "../../../abi/x86/cr.ts";
import { ABORT, CPU, V } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { DEBUG_ACCESS, DR7_ENABLED } from "../../system/exceptions/debug.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Label, Local } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { advanceString, betweenIterations, iteration, stringAddress } from "./string.ts";

/** Bits of the exit qualification (SDM 3 table 28-5). */
const QUALIFICATION = { in: 8, string: 0x10, rep: 0x20, immediate: 0x40 };

function checkPort(m: Meaning, port: Local, bytes: number, kind: Expr): void {
  m.uses({ iopl: true });
  m.callChecked("ioPermission", port, i32(bytes));
  interceptPort(m, port, bytes, kind);
}
function interceptPort(m: Meaning, port: Local, bytes: number, kind: Expr): void {
  m.intercept("io", port.shl(16).or(bytes - 1).or(kind).zext());
}

/** With CR4.DE a breakpoint can be on a port: its trap comes behind the instruction. */
function breakpoints(m: Meaning, port: Local, bytes: number): void {
  const armed = cell(CPU.dr7).and(DR7_ENABLED).and(
    cell(CPU.cr4).shl(31 - Math.log2(CR4.DE)).shrS(31),
  );
  m.f.if(armed, () => {
    m.f.call("debugMatch", port.zext(), i32(bytes), i32(DEBUG_ACCESS.io));
  });
}

/** What operand `i`, the port, says of itself to an exit. */
const portKind = (m: Meaning, i: number): number =>
  m.form.operands[i] === "i" ? QUALIFICATION.immediate : 0;

function input(m: Meaning): void {
  const bits = m.form.sizes[0], port = m.readU(1);
  checkPort(m, port, bits / 8, i32(portKind(m, 1) | QUALIFICATION.in));
  m.write(0, m.callChecked("ioRead", port, i32(bits / 8)));
  breakpoints(m, port, bits / 8);
  m.finish();
}

function output(m: Meaning): void {
  const bits = m.form.sizes[1], port = m.readU(0);
  checkPort(m, port, bits / 8, i32(portKind(m, 0)));
  m.callChecked("ioWrite", port, i32(bits / 8), m.readU(1));
  breakpoints(m, port, bits / 8);
  m.finish();
}

/**
 * An INS or OUTS that is emulated goes on with its next iteration at once, where nothing is due before
 * it, the port is still allowed, and a fetch would still find the same instruction.
 */
function goOnEmulating(m: Meaning, port: Local, bytes: number, again: Label): void {
  const { f } = m;
  f.if(cell(V.emulating), () => {
    m.ifFetchedAgain(() => {
      f.call("ioPermission", port, i32(bytes));
      f.if(
        cell(V.abort),
        () => setCell(f, V.abort, ABORT.none),
        () => f.brIf(again, f.call("ioRepeats")),
      );
    });
  });
}

/** INS and OUTS. Under REP the instruction is run again for each iteration, but see above. */
function string(isInput: boolean): Semantics {
  return (m) => {
    const f = m.f, [memory, dx] = isInput ? [0, 1] : [1, 0];
    const bits = m.form.sizes[memory], bytes = bits / 8;
    m.mayFaultLate = true;
    const x = iteration(m, bits);
    const repeated = f.let(m.hasRep.nez());
    const port = m.readU(dx);
    // The port has to be allowed even if nothing is moved.
    m.uses({ iopl: true });
    m.callChecked("ioPermission", port, i32(bytes));
    f.block((none) => {
      f.brIf(none, repeated.and(m.pointer(RCX, x.mask).eqz()));
      f.loop((again) => {
        const kind = i32(QUALIFICATION.string | (isInput ? QUALIFICATION.in : 0)).or(
          repeated.shl(5),
        );
        interceptPort(m, port, bytes, kind);
        const pointer = isInput ? RDI : RSI;
        const linear = stringAddress(m, x, pointer, isInput);
        if (isInput) {
          // The device is asked only once the store is sure to succeed.
          m.callChecked("probeAccess", linear, cell(V.access).or(2), i32(bytes));
          const value = m.callChecked("ioRead", port, i32(bytes));
          m.storeLinear(bits, linear, value);
        } else {
          const value = m.loadLinear(bits, linear);
          m.callChecked("ioWrite", port, i32(bytes), value);
        }
        breakpoints(m, port, bytes);
        advanceString(m, x, pointer);
        f.if(repeated, () => {
          m.setPointer(RCX, x.mask, m.pointer(RCX, x.mask).sub(1));
          f.if(m.pointer(RCX, x.mask).nez(), () => {
            goOnEmulating(m, port, bytes, again);
            betweenIterations(m);
          });
        });
        m.finish();
      });
    });
  };
}

export const ioSemantics: Record<string, Semantics> = {
  in: input,
  out: output,
  ins: string(true),
  outs: string(false),
};
