/** Far JMP, CALL and RET, INT and IRET (SDM 2). The work is done by functions of module S. */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, V } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import { CR4 } from "../../../abi/x86/cr.ts";
import { FAR } from "../../system/segmentation/far.ts";
import { ALL_FLAGS, type Meaning, type Semantics } from "./meaning.ts";
import { farPointer } from "./segment.ts";
import { finishTransfer, raiseEvent } from "./system_helpers.ts";
import { protectedMode } from "../../mode.ts";

const CHECK = {
  iopl: check(
    "v86.iopl",
    "virtual-8086 mode: the instruction needs IOPL 3, it is {a}",
    "SDM 3 20.2.7",
  ),
};

/** The far pointer of the instruction: offset and selector. */
function pointer(m: Meaning): { ip: Expr; selector: Expr } {
  const bits = m.form.operandSize, f = m.f;
  if (m.form.operands[0] === "M") {
    const { offset, selector } = farPointer(m, 0);
    return { ip: f.let(offset.zext()), selector };
  }
  const ip = f.let(m.farOffset.and(bits === 16 ? 0xffff : 0xffff_ffffn));
  return { ip, selector: f.let(m.secondImmediate) };
}

const transfer = (isCall: 0 | 1): Semantics => (m) => {
  const { ip, selector } = pointer(m);
  m.uses({ exit: "task-switch" });
  m.f.call(
    "farTransfer",
    selector,
    ip,
    i32(isCall === 0 ? FAR.jump : m.form.operands[0] === "M" ? FAR.callIndirect : FAR.call),
    i32(m.form.operandSize),
    m.f.let(m.nextIp),
  );
  finishTransfer(m);
};

function interrupt(m: Meaning): void {
  const f = m.f;
  const vector = f.let(m.immediate(0).and(0xff));
  m.intercept("int", vector.zext());
  f.if(protectedMode().and(m.virtual8086()), () => {
    f.if(cell(CPU.cr4).and(CR4.VME), () => {
      const redirected = f.call("virtualInterrupt", vector, f.let(m.nextIp));
      m.abortIfSet();
      f.if(redirected, () => m.serialize());
    });
    m.faultIf(m.iopl().ltU(3), VECTOR.GP, 0, CHECK.iopl, m.iopl());
  });
  raiseEvent(m, vector, 4);
}

const BOUND = check("bound", "index {a} is not between the bounds at {b}", "SDM 2 BOUND");

function checkBounds(m: Meaning): void {
  const bits = m.form.operandSize, f = m.f;
  const index = m.read(0);
  const linear = f.local("i64"), lower = f.local("i32");
  const find = (bytes: number) => f.set(linear, m.addressOf(1, bytes, false).zext());
  const read = () => f.set(lower, m.loadLinear(bits, linear).signed(bits));
  f.if(asAmd("bound.order"), () => {
    find(bits / 8);
    read();
    find(bits / 4);
  }, () => {
    find(bits / 4);
    read();
  });
  const upper = f.let(m.loadLinear(bits, linear.add(bits / 8)).signed(bits));
  // Its #BR tells where the instruction ends, as that of INT3 and INTO (APM 2 15.7.1).
  setCell(f, V.length, m.length);
  m.faultIf(index.ltS(lower).or(index.gtS(upper)), VECTOR.BR, undefined, BOUND, index, linear);
}

export const farSemantics: Record<string, Semantics> = {
  "jmp.far": transfer(0),
  "call.far": transfer(1),
  "ret.far": (m) => {
    const extra = m.form.operands[0] === "i" ? m.f.let(m.immediate(0).and(0xffff)) : i32(0);
    m.callChecked("farReturn", i32(m.form.operandSize), extra);
    m.serialize();
  },
  iret: (m) => {
    m.intercept("iret");
    m.uses({ exit: "task-switch", iopl: true, written: ALL_FLAGS });
    m.f.call("interruptReturn", i32(m.form.operandSize), m.f.let(m.nextIp));
    finishTransfer(m);
  },
  int: interrupt,
  bound: checkBounds,
  int3: (m) => raiseEvent(m, i32(3), 6),
  int1: (m) => {
    m.intercept("icebp");
    raiseEvent(m, i32(1), 5);
  },
  into: (m) => {
    m.f.if(m.condition(0), () => raiseEvent(m, i32(4), 6));
  },
};
