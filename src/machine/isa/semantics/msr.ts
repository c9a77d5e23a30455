/** RDMSR and WRMSR, the counters, CPUID, XCR0 (SDM 2). */
import { RAX, RCX, RDX } from "../../../abi/x86/registers.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU } from "../../state.ts";
import { cell, cell64, SERVICE, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import { ARITHMETIC, CR4, RFLAGS } from "../../../abi/x86/cr.ts";
import { timeStamp } from "../../system/control_state.ts";
import { hasCounter, readCounter } from "../../system/msr_state.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { undefinedIf } from "./system_helpers.ts";
import { isCanonical } from "../../mode.ts";

const CHECK = {
  counter: check("rdpmc.counter", "there is no performance counter {a}", "SDM 2 and APM 3 RDPMC"),
  base: check("base.canonical", "segment base {a} is not canonical", "SDM 2 WRFSBASE"),
};

function setPair(m: Meaning, value: Expr): void {
  const v = m.f.let(value);
  m.setGpr(RAX, 32, v.wrap());
  m.setGpr(RDX, 32, v.shrU(32).wrap());
}
const pair = (m: Meaning): Expr => m.gprU(RDX, 32).zext().shl(32).or(m.gprU(RAX, 32).zext());

function readTimeStamp(m: Meaning, withAux: 0 | 1): void {
  if (withAux) m.mayBeAbsent("rdtscp");
  m.requireGuard();
  m.intercept("rdtsc", i64(withAux));
  if (withAux) m.setGpr(RCX, 32, cell64(CPU.tscAux).wrap());
  setPair(m, timeStamp());
}

/** RDFSBASE and its kin: the base of FS or GS, 64-bit mode only. */
function base(register: "fs" | "gs", write: boolean): Semantics {
  return (m) => {
    undefinedIf(m, cell(CPU.cr4).and(CR4.FSGSBASE).eqz());
    const place = CPU[`${register}.base`];
    if (!write) return m.write(0, m.type() === "i64" ? cell64(place) : cell64(place).wrap());
    const value = m.f.let(m.readU(0).zext());
    m.faultIf(isCanonical(value).eqz(), VECTOR.GP, 0, CHECK.base, value);
    m.commit();
    setCell64(m.f, place, value);
  };
}

/** RDRAND and RDSEED: the numbers come from outside the machine, and there is always one. */
function random(kind: "rdrand" | "rdseed"): Semantics {
  return (m) => {
    m.intercept(kind);
    const low = m.f.let(m.f.call("service", SERVICE.random, 0));
    if (m.type() === "i32") m.write(0, low);
    else m.write(0, m.f.call("service", SERVICE.random, 0).zext().shl(32).or(low.zext()));
    m.setArithmeticFlags(ARITHMETIC, i32(RFLAGS.CF));
  };
}

export const msrSemantics: Record<string, Semantics> = {
  rdrand: random("rdrand"),
  rdseed: random("rdseed"),
  rdmsr: (m) => {
    m.requirePrivilege();
    m.intercept("msr", i64(0));
    setPair(m, m.callChecked("readMsr", m.gprU(RCX, 32)));
  },
  wrmsr: (m) => {
    m.requirePrivilege();
    m.intercept("msr", i64(1));
    m.callChecked("writeMsr", m.gprU(RCX, 32), pair(m));
    m.finish();
  },
  rdfsbase: base("fs", false),
  rdgsbase: base("gs", false),
  wrfsbase: base("fs", true),
  wrgsbase: base("gs", true),
  rdtsc: (m) => readTimeStamp(m, 0),
  rdtscp: (m) => readTimeStamp(m, 1),
  rdpmc: (m) => {
    m.requireGuard();
    m.intercept("rdpmc");
    const number = m.f.let(m.gprU(RCX, 32));
    m.faultIf(hasCounter(number).eqz(), VECTOR.GP, 0, CHECK.counter, number);
    setPair(m, readCounter(m.f, number));
  },
};
