/**
 * String instructions (SDM 2, MOVS and its kin). A repeated one does as many iterations as the
 * budget allows, each counted as one instruction; before every iteration all state is as if it had
 * been interrupted there, so faults and stops in the middle are exact.
 */
import { FLAG } from "../../segmentation/descriptor.ts";
import { CPU, PREFIX, segment, V } from "../../state.ts";
import { cell, cell64, setCell } from "../../system.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";

const RAX = 0, RCX = 1, RSI = 6, RDI = 7;
const ES = segment(0);

interface Iteration {
  /** Bytes of one element. */
  readonly bytes: number;
  /** Mask of rCX, rSI and rDI. */
  readonly mask: Local;
  /** Plus or minus `bytes`. */
  readonly step: Local;
}

/** Register `n` under the address mask. */
const pointer = (x: Iteration, n: number): Expr => cell64(CPU.rax + 8 * n).and(x.mask);

function setPointer(m: Meaning, x: Iteration, n: number, value: Expr): void {
  const at = CPU.rax + 8 * n;
  m.f.if(x.mask.eq(0xffff), () => m.f.store(16, i32(0), value, at), () => {
    m.f.store(64, i32(0), value.and(x.mask), at);
  });
}

const advance = (m: Meaning, x: Iteration, n: number) =>
  setPointer(m, x, n, pointer(x, n).add(x.step));

/**
 * Runs `body` once, or under a repeat prefix until rCX is zero, ZF ends it or the budget is used.
 * `compared` holds the two values a comparison leaves: flags are set when the instruction ends, or
 * by every iteration, too.
 */
export function repeat(
  m: Meaning,
  bits: number,
  body: (x: Iteration) => void,
  compared?: readonly [Local, Local],
): void {
  const f = m.f;
  m.mayFaultLate = true;
  const prefixes = f.let(m.prefixes);
  const mask = f.let(
    i64(-1).when(
      prefixes.and(PREFIX.address64),
      i64(0xffff).when(prefixes.and(PREFIX.address16), i64(0xffff_ffffn)),
    ),
  );
  const down = m.systemFlags(FLAG.df);
  const step = f.let(i64(-bits / 8).when(down, i64(bits / 8)));
  const x = { bytes: bits / 8, mask, step };
  f.block((nothing) => {
    f.block((done) => {
      f.if(prefixes.and(PREFIX.rep | PREFIX.repne).eqz(), () => {
        f.scope(() => body(x));
        f.br(done);
      });
      // With 32-bit addresses the upper half of RCX may go even if no iteration completes.
      f.if(asAmd("string.count").eqz(), () => setPointer(m, x, RCX, pointer(x, RCX)));
      f.brIf(nothing, pointer(x, RCX).eqz());
      f.loop((again) => {
        f.scope(() => body(x));
        setPointer(m, x, RCX, pointer(x, RCX).sub(1));
        f.brIf(done, pointer(x, RCX).eqz());
        if (compared) {
          f.if(asAmd("string.flags"), () => m.flagsSub(...compared));
          const equal = compared[0].eq(compared[1]);
          f.brIf(done, equal.eq(prefixes.and(PREFIX.repne).nez()));
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
  const place = n === RDI ? i32(ES) : m.field(28);
  return m.callChecked("segmentLinear", place, pointer(x, n), i32(x.bytes), i32(write ? 1 : 0));
}

function loadString(m: Meaning, x: Iteration, n: number): Local {
  const value = m.callChecked(`ld${x.bytes * 8}`, stringAddress(m, x, n, false), cell(V.access));
  return x.bytes >= 4 ? value : m.f.let(value.signed(x.bytes * 8));
}

function storeString(m: Meaning, x: Iteration, value: Expr): void {
  m.callChecked(`st${x.bytes * 8}`, stringAddress(m, x, RDI, true), cell(V.access), value);
}

export { advance as advanceString, loadString, pointer as stringPointer, storeString };
export type { Iteration };

export const stringSemantics: Record<string, Semantics> = {
  movs: (m) => {
    const bits = m.form.sizes[0];
    repeat(m, bits, (x) => {
      const f = m.f;
      const n = f.call("moveRun", m.rec, i32(x.bytes), x.mask, x.step);
      f.if(n.eqz(), () => {
        m.abortIfSet();
        storeString(m, x, loadString(m, x, RSI));
        advance(m, x, RSI);
        advance(m, x, RDI);
      });
    });
  },
  stos: (m) => {
    const bits = m.form.sizes[0];
    repeat(m, bits, (x) => {
      const f = m.f;
      const n = f.call("fillRun", m.rec, i32(x.bytes), x.mask, x.step);
      f.if(n.eqz(), () => {
        m.abortIfSet();
        storeString(m, x, m.gpr(RAX, bits));
        advance(m, x, RDI);
      });
    });
  },
  lods: (m) => {
    const bits = m.form.sizes[0];
    repeat(m, bits, (x) => {
      m.setGpr(RAX, bits, loadString(m, x, RSI));
      advance(m, x, RSI);
    });
  },
  cmps: (m) => {
    const f = m.f, a = f.local(m.type()), b = f.local(m.type());
    repeat(m, m.size, (x) => {
      const source = () => f.set(a, loadString(m, x, RSI));
      const destination = () => f.set(b, loadString(m, x, RDI));
      f.if(asAmd("string.order"), () => {
        source();
        destination();
      }, () => {
        destination();
        source();
      });
      advance(m, x, RSI);
      advance(m, x, RDI);
    }, [a, b]);
  },
  scas: (m) => {
    const f = m.f, a = f.local(m.type()), b = f.local(m.type());
    repeat(m, m.size, (x) => {
      f.set(b, loadString(m, x, RDI));
      f.set(a, m.gpr(RAX, m.size));
      advance(m, x, RDI);
    }, [a, b]);
  },
};
