/**
 * String instructions (SDM 2, MOVS and its kin). A repeated one does as many iterations as the
 * budget allows, each counted as one instruction; before every iteration all state is as if it had
 * been interrupted there, so faults and stops in the middle are exact.
 */
import { RCX, RDI, RSI } from "../../../abi/x86/registers.ts";
import { segment, V } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { RFLAGS } from "../../../abi/x86/cr.ts";

const ES = segment(0);

export interface Iteration {
  /** Bytes of one element. */
  readonly bytes: number;
  /** Mask of rCX, rSI and rDI. */
  readonly mask: Local;
  /** Plus or minus `bytes`. */
  readonly step: Local;
}

/** Moves rSI or rDI on. */
export const advanceString = (m: Meaning, x: Iteration, n: number): void =>
  m.setPointer(n, x.mask, m.pointer(n, x.mask).add(x.step));

/** The iteration of elements of `bits`: address size and direction. */
export function iteration(m: Meaning, bits: number): Iteration {
  const mask = m.addressMask(), bytes = bits / 8;
  return { bytes, mask, step: m.f.let(i64(-bytes).when(m.systemFlags(RFLAGS.DF), i64(bytes))) };
}

/**
 * Runs `body` once, or under a repeat prefix until rCX is zero, ZF ends it or the budget is used.
 * `compared` holds the two values a comparison leaves: flags are set when the instruction ends, or
 * by every iteration, too.
 */
function repeat(
  m: Meaning,
  body: (x: Iteration, repeated: boolean) => void,
  compared?: readonly [Local, Local],
): void {
  const f = m.f;
  m.mayFaultLate = true;
  const repne = compared && f.let(m.hasRepne.nez());
  const x = iteration(m, m.size);
  f.block((nothing) => {
    f.block((done) => {
      f.if(m.hasRep.eqz(), () => {
        f.scope(() => body(x, false));
        f.br(done);
      });
      // With 32-bit addresses the upper half of RCX may go even if no iteration completes.
      f.if(asAmd("string.count").eqz(), () => m.setPointer(RCX, x.mask, m.gpr(RCX, 64)));
      f.brIf(nothing, m.pointer(RCX, x.mask).eqz());
      f.loop((again) => {
        f.scope(() => body(x, true));
        m.setPointer(RCX, x.mask, m.pointer(RCX, x.mask).sub(1));
        f.brIf(done, m.pointer(RCX, x.mask).eqz());
        if (compared) {
          f.if(asAmd("string.flags"), () => m.flagsSub(...compared));
          const equal = compared[0].eq(compared[1]);
          f.brIf(done, equal.eq(repne!));
        }
        // The last iteration is counted by the loop outside; the others here.
        f.if(cell(V.left).eqz(), () => betweenIterations(m));
        setCell(f, V.left, cell(V.left).sub(1));
        f.br(again);
      });
    });
    if (compared) m.flagsSub(...compared);
  });
}

/** Ends the run before the next iteration of a repeated instruction. */
export function betweenIterations(m: Meaning): void {
  m.resumeAt(m.ip);
  setCell(m.f, V.repeating, 1);
  m.serialize();
}

/** Linear address of [segment:rSI] or [ES:rDI]. */
export function stringAddress(m: Meaning, x: Iteration, n: number, write: boolean): Local {
  const place = n === RDI ? i32(ES) : m.segment;
  return m.callChecked(
    "segmentLinear",
    place,
    m.pointer(n, x.mask),
    i32(x.bytes),
    i32(write ? 1 : 0),
  );
}

function loadString(m: Meaning, x: Iteration, n: number): Local {
  const value = m.loadLinear(x.bytes * 8, stringAddress(m, x, n, false));
  return x.bytes >= 4 ? value : m.f.let(value.signed(x.bytes * 8));
}

function storeString(m: Meaning, x: Iteration, value: Expr): void {
  m.storeLinear(x.bytes * 8, stringAddress(m, x, RDI, true), value);
}

export const stringSemantics: Record<string, Semantics> = {
  movs: (m) => {
    repeat(m, (x, repeated) => {
      const one = () => {
        storeString(m, x, loadString(m, x, RSI));
        advanceString(m, x, RSI);
        advanceString(m, x, RDI);
      };
      if (!repeated) return one();
      m.f.if(m.f.call("moveRun", m.segment, i32(x.bytes), x.mask, x.step).eqz(), one);
    });
  },
  stos: (m) => {
    repeat(m, (x, repeated) => {
      const one = () => {
        storeString(m, x, m.read(1));
        advanceString(m, x, RDI);
      };
      if (!repeated) return one();
      m.f.if(m.f.call("fillRun", m.read(1).sext(), i32(x.bytes), x.mask, x.step).eqz(), one);
    });
  },
  lods: (m) => {
    repeat(m, (x) => {
      m.write(0, loadString(m, x, RSI));
      advanceString(m, x, RSI);
    });
  },
  cmps: (m) => {
    const f = m.f, a = f.local(m.type()), b = f.local(m.type());
    repeat(m, (x) => {
      const source = () => f.set(a, loadString(m, x, RSI));
      const destination = () => f.set(b, loadString(m, x, RDI));
      f.if(asAmd("string.order"), () => {
        source();
        destination();
      }, () => {
        destination();
        source();
      });
      advanceString(m, x, RSI);
      advanceString(m, x, RDI);
    }, [a, b]);
  },
  scas: (m) => {
    const f = m.f, a = f.local(m.type()), b = f.local(m.type());
    repeat(m, (x) => {
      f.set(b, loadString(m, x, RDI));
      f.set(a, m.read(0));
      advanceString(m, x, RDI);
    }, [a, b]);
  },
};
