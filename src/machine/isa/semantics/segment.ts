/** Loads and stores of segment registers; what selectors allow (SDM 2 MOV, POP, LDS, LAR, VERR). */
import { flagBits, RSP } from "../../../abi/x86/registers.ts";
import { RFLAGS } from "../../../abi/x86/cr.ts";
import { CPU, INTERRUPTIBILITY, SEGMENT, SEGMENT_SIZE, V } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, load } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import { ES, SS } from "../../system/segmentation/descriptor.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { undefinedIf } from "./system_helpers.ts";

const indexOf = (place: Expr): Expr => place.sub(ES).divU(SEGMENT_SIZE);

/** Loads the segment register at `place`; gives whether its cached descriptor changed. */
function loadRegister(m: Meaning, place: Expr, selector: Expr): Expr {
  return m.callChecked("reloadSegment", indexOf(place), selector);
}
/** After a load of SS the next instruction is not interrupted, and no single-step trap is left. */
function shadow(m: Meaning): void {
  setCell(m.f, V.stepping, 0);
  setCell(m.f, CPU.interruptibility, cell(CPU.interruptibility).or(INTERRUPTIBILITY.movSs));
}
function finishLoad(m: Meaning, place: Expr, changed: Expr): void {
  m.commit();
  m.f.if(place.eq(SS), () => shadow(m));
  m.finishIf(changed.or(place.eq(SS)));
}

const selectorOf = (place: Expr): Expr => load("i32", 16, "u", place, SEGMENT.selector);

/** The far pointer in memory operand `i`: its offset, as wide as the operand size, and selector. */
export function farPointer(m: Meaning, i: number): { offset: Local; selector: Local } {
  const bits = m.form.operandSize, f = m.f;
  const offset = f.local(bits === 64 ? "i64" : "i32"), selector = f.local("i32");
  const read = (width: number) => {
    const linear = m.addressOf(i, width / 8 + 2, false);
    const value = m.loadLinear(width, linear);
    f.set(offset, bits === 64 && width < 64 ? value.zext() : value);
    f.set(selector, m.loadLinear(16, linear.add(width / 8)));
  };
  if (bits < 64) read(bits);
  else f.if(asAmd("far.pointer-rexw"), () => read(32), () => read(64));
  return { offset, selector };
}

const loadFar = (index: number): Semantics => (m) => {
  const { offset, selector } = farPointer(m, 1);
  const changed = m.f.let(loadRegister(m, i32(ES + index * SEGMENT_SIZE), selector));
  m.write(0, offset);
  if (index === 2) shadow(m);
  m.finishIf(index === 2 ? i32(1) : changed);
};

function setZero(m: Meaning, zero: Expr): void {
  m.setArithmeticFlags(RFLAGS.ZF, m.f.let(zero.nez()).shl(flagBits.z));
}

const look = (name: string): Semantics => (m) => {
  m.requireProtected();
  const selector = m.f.let(m.readU(1).wrap().and(0xffff));
  const found = m.callChecked(name, selector);
  setZero(m, found);
  m.f.if(found, () => {
    const value = cell(V.value);
    m.write(0, m.type() === "i64" ? value.zext() : value);
  });
};

const verify = (write: number): Semantics => (m) => {
  m.requireProtected();
  const selector = m.f.let(m.readU(0).and(0xffff));
  setZero(m, m.callChecked("verifySegment", selector, i32(write)));
};

export const segmentSemantics: Record<string, Semantics> = {
  "mov.sreg": (m) => {
    if (m.form.operands[0] === "n") {
      const place = m.f.let(m.segmentOperand(0));
      undefinedIf(m, place.eq(CPU["cs.base"]).or(place.gtU(CPU["gs.base"])));
      const selector = m.f.let(m.readU(1).and(0xffff));
      const changed = m.f.let(loadRegister(m, place, selector));
      return finishLoad(m, place, changed);
    }
    // ModRM.reg 6 and 7 name no segment register.
    undefinedIf(m, m.segmentOperand(1).gtU(CPU["gs.base"]));
    const selector = selectorOf(m.segmentOperand(1));
    m.write(0, m.type() === "i64" ? selector.zext() : selector);
  },
  "push.sreg": (m) => {
    const bits = m.form.operandSize, place = m.f.let(m.segmentOperand(0));
    const selector = m.f.let(selectorOf(place));
    // Where a 32-bit push writes the low word only, the rest is what the stack held.
    if (bits === 32) {
      m.f.if(
        asAmd("segment.push"),
        () => m.f.call("push32", selector),
        () => m.f.call("pushSelector", selector),
      );
      m.abortIfSet();
      m.commit();
      return;
    }
    m.push(bits, bits === 64 ? selector.zext() : selector);
  },
  "pop.sreg": (m) => {
    const bits = m.form.operandSize, place = m.f.let(m.segmentOperand(0));
    const selector = m.callChecked(`stackSelector${bits}`, 0);
    // The width of the stack pointer is the old stack segment's.
    m.mayFaultLate = true;
    const stack = m.f.let(m.gpr(RSP, 64));
    m.dropStack(bits / 8);
    const changed = m.f.call("reloadSegment", indexOf(place), selector);
    m.f.if(cell(V.abort), () => {
      m.restoreGpr(RSP, stack);
      m.abort();
    });
    finishLoad(m, place, changed);
  },
  les: loadFar(0),
  lds: loadFar(3),
  lss: loadFar(2),
  lfs: loadFar(4),
  lgs: loadFar(5),
  lar: look("descriptorRights"),
  lsl: look("descriptorLimit"),
  verr: verify(0),
  verw: verify(1),
  arpl: (m) => {
    m.requireProtected();
    const to = m.read(0), from = m.read(1);
    const low = m.f.let(to.and(3).ltU(from.and(3)));
    // Memory is written, and must be writable, only if RPL changes.
    m.f.if(low, () => {
      const value = to.and(~3).or(from.and(3));
      if (m.isMemory(0)) m.storeLinear(16, m.addressOf(0, 2, true), value);
      else m.write(0, value);
    });
    setZero(m, low);
  },
};
