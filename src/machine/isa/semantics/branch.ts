/** Near branches (SDM 2). Far ones are in far.ts. */
import { PREFIX } from "../../state.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Meaning, Semantics } from "./meaning.ts";

const RCX = 1;

/** An instruction pointer cut to the operand size. */
function cut(m: Meaning, ip: Expr): Expr {
  if (m.form.operandSize === 64) return ip;
  return ip.and(m.form.operandSize === 16 ? 0xffff : 0xffff_ffffn);
}

const narrow = (m: Meaning, value: Expr) => m.form.operandSize === 64 ? value : value.wrap();

/** Decrements rCX in the address size; gives the new value. */
function countDown(m: Meaning, by: number): Expr {
  const f = m.f;
  const left = f.local("i64");
  const prefixes = f.let(m.prefixes);
  f.set(left, m.gpr(RCX, 64).sub(by));
  f.if(prefixes.and(PREFIX.address64).eqz(), () => {
    f.set(left, left.and(i64(0xffff).when(prefixes.and(PREFIX.address16), i64(0xffff_ffffn))));
  });
  return left;
}

function storeCount(m: Meaning, left: Expr): void {
  m.f.if(m.prefixes.and(PREFIX.address16), () => m.setGpr(RCX, 16, left), () => {
    m.setGpr(RCX, 64, left);
  });
}

function loop(wanted?: 0 | 1): Semantics {
  return (m) => {
    const left = countDown(m, 1);
    const again = m.f.let(left.nez());
    if (wanted !== undefined) {
      m.f.set(again, again.and(m.condition(wanted ? 4 : 5)));
    }
    m.f.if(again, () => {
      // The target is checked before the count is written.
      m.checkTarget();
      storeCount(m, left);
      m.branchDirect();
    });
    storeCount(m, left);
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
  jcxz: (m) => m.f.if(countDown(m, 0).eqz(), () => m.branchDirect()),
  loop: loop(),
  loope: loop(1),
  loopne: loop(0),
  call: (m) => {
    const bits = m.form.operandSize;
    const push = () => m.push(bits, narrow(m, m.nextIp));
    // If the target is bad the stack's own faults come first all the same.
    const before = () =>
      m.f.if(asAmd("branch.call-check"), () => {
        m.f.call(`probePush${bits}`);
        m.abortIfSet();
      }, () => {
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
