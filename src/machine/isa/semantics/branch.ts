/** Near branches (SDM 2). Far ones are in far.ts. */
import { RCX } from "../../../abi/x86/registers.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Meaning, Semantics } from "./meaning.ts";

/** An instruction pointer cut to the operand size. */
function cut(m: Meaning, ip: Expr): Expr {
  if (m.form.operandSize === 64) return ip;
  return ip.and(m.form.operandSize === 16 ? 0xffff : 0xffff_ffffn);
}

const narrow = (m: Meaning, value: Expr) => m.form.operandSize === 64 ? value : value.wrap();

function loop(wanted?: 0 | 1): Semantics {
  return (m) => {
    const mask = m.addressMask();
    const left = m.f.let(m.gpr(RCX, 64).sub(1).and(mask));
    const again = m.f.let(left.nez());
    if (wanted !== undefined) {
      m.f.set(again, again.and(m.condition(wanted ? 4 : 5)));
    }
    m.f.if(again, () => {
      // The target is checked before the count is written.
      m.checkTarget();
      m.setPointer(RCX, mask, left);
      m.branchDirect();
    });
    m.setPointer(RCX, mask, left);
  };
}

export const branchSemantics: Record<string, Semantics> = {
  jcc: (m) => m.f.if(m.condition(m.form.cc), () => m.branchDirect()),
  jmp: (m) => {
    if (m.form.operands[0] === "j") return m.branchDirect();
    const target = m.f.let(cut(m, m.readU(0).zext()));
    m.checkIp(target);
    m.branch(target);
  },
  jcxz: (m) => m.f.if(m.pointer(RCX, m.addressMask()).eqz(), () => m.branchDirect()),
  loop: loop(),
  loope: loop(1),
  loopne: loop(0),
  call: (m) => {
    const bits = m.form.operandSize;
    const push = () => m.push(bits, narrow(m, m.nextIp));
    // If the target is bad the stack's own faults come first all the same.
    const before = () =>
      m.f.if(asAmd("branch.call-check"), () => m.probePush(bits), () => {
        push();
        m.dropStack(bits / 8);
      });
    m.mayFaultLate = true;
    if (m.form.operands[0] === "j") {
      m.checkTarget(before);
      push();
      return m.branchDirect();
    }
    const target = m.f.let(cut(m, m.readU(0).zext()));
    m.checkIp(target, before);
    push();
    m.branch(target);
  },
  ret: (m) => {
    const bits = m.form.operandSize;
    const target = m.f.let(m.stackRead(bits).zext());
    m.checkIp(target);
    const extra = m.form.operands[0] === "i" ? m.immediate(0).and(0xffff) : i32(0);
    m.dropStack(m.f.let(extra.add(bits / 8)));
    m.branch(target);
  },
};
