/** What VMRUN refuses (APM 2 15.5.1, 15.20, 15.25.4): `svmCheck() -> 0 | 1`; V.check names the check. */
import { atBit } from "../mode.ts";
import { EVENT_TYPE, exceptionVectors, VECTOR } from "../../abi/x86/vectors.ts";
import { INTERCEPT2, IOPM_SIZE, MSRPM_SIZE, NP_ENABLE } from "../../abi/x86/vmcb.ts";
import { CR0, EFER } from "../../abi/x86/cr.ts";
import { check } from "../checks.ts";
import { CPU, V } from "../state.ts";
import { cell64, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";
import { FORBIDDEN } from "../system/control_rules.ts";
import { cr4Allowed, eferAllowed, holds } from "../system/control_state.ts";
import { patInvalid, tooWide } from "../values.ts";
import { Vmcb } from "./layout.ts";

/** Writes a list of checks: each notes itself and leaves the function with 1. */
class Checks {
  constructor(readonly f: Func, readonly source: string) {}

  fail(name: string, text: string, bad: Expr, a: Expr = i64(0), b: Expr = i64(0)): void {
    const id = check(`svm.${name}`, text, this.source);
    this.f.if(bad, () => {
      this.f.call("svmNote", i32(id), a.zext(), b.zext());
      this.f.return(i32(1));
    });
  }
}

function controlRegisters(c: Checks, vmcb: Vmcb): void {
  const f = c.f;
  const efer = f.let(vmcb.get("efer")), cr0 = f.let(vmcb.get("cr0"));
  const cr4 = f.let(vmcb.get("cr4")), cr3 = f.let(vmcb.get("cr3")), now = cr0.wrap();
  c.fail("efer.svme", "guest EFER {a} has SVME clear", efer.and(EFER.SVME).eqz(), efer);
  c.fail(
    "cr0.nw",
    "guest CR0 {a} has NW set with CD clear",
    holds(FORBIDDEN.writeThroughWithoutDisable, { now }),
    cr0,
  );
  c.fail("cr0.high", "guest CR0 {a} has bits above 31 set", cr0.shrU(32).nez(), cr0);
  c.fail("cr3", "guest CR3 {a} is wider than a physical address", tooWide(cr3), cr3);
  const cr4Valid = f.let(cr4Allowed()), eferValid = f.let(eferAllowed());
  c.fail(
    "cr4",
    "guest CR4 {a} has reserved bits set, of {b}",
    cr4.and(cr4Valid.not()).nez(),
    cr4,
    cr4Valid,
  );
  c.fail(
    "efer",
    "guest EFER {a} has reserved bits set, of {b}",
    efer.and(eferValid.not()).nez(),
    efer,
    eferValid,
  );
  // Long mode is on its way in: LME under paging.
  const words = { now, efer: efer.wrap(), cr4: cr4.wrap() };
  const long = f.let(atBit(efer, EFER.LME).and(atBit(cr0, CR0.PG)).wrap().and(1));
  c.fail(
    "long.pae",
    "guest EFER.LME and CR0.PG are set, CR4 {a} has PAE clear",
    holds(FORBIDDEN.longWithoutPae, words),
    cr4,
  );
  c.fail(
    "long.pe",
    "guest EFER.LME and CR0.PG are set, CR0 {a} has PE clear",
    long.and(holds(FORBIDDEN.pagingWithoutProtection, words)),
    cr0,
  );
  const cs = vmcb.get("csAttributes");
  c.fail(
    "long.cs",
    "guest CS attributes {a} have L and D set in long mode",
    long.and(cs.and(0x600).eq(0x600)),
    cs,
  );
  for (const name of ["dr6", "dr7"]) {
    const value = vmcb.get(name);
    const text = `guest ${name.toUpperCase()} {a} has bits above 31 set`;
    c.fail(name, text, value.shrU(32).nez(), value);
  }
}

function controls(c: Checks, vmcb: Vmcb): void {
  const f = c.f;
  const intercepts = vmcb.get("intercepts2");
  c.fail(
    "intercept.vmrun",
    "the VMRUN intercept is clear (vector 4 is {a})",
    intercepts.and(INTERCEPT2.vmrun).eqz(),
    intercepts,
  );
  c.fail("asid", "the ASID is 0", vmcb.get("asid").eqz());
  for (const [name, size] of [["iopm", IOPM_SIZE], ["msrpm", MSRPM_SIZE]] as const) {
    // The low 12 bits are ignored.
    const base = f.let(vmcb.get(`${name}Base`).and(-4096n));
    c.fail(
      name,
      `the ${name === "iopm" ? "I/O" : "MSR"} permission map at {a} reaches beyond physical memory`,
      tooWide(base).or(tooWide(base.add(size - 1))),
      base,
    );
  }
}

/** Vectors that EVENTINJ takes as exceptions: those there are on AMD's processors, #HV, #VC, #SX. */
const EXCEPTIONS = exceptionVectors.map((x) => x.vector)
  .filter((vector) => vector !== VECTOR.NMI && vector !== VECTOR.VE)
  .concat(28, 29, 30).reduce((bits, n) => bits | 1 << n, 0);

/** EFER.LME under paging, and CS.L. */
const code64 = (vmcb: Vmcb): Expr =>
  atBit(vmcb.low("efer"), EFER.LME).and(atBit(vmcb.low("cr0"), CR0.PG)).and(
    vmcb.get("csAttributes").shrU(9),
  ).and(
    1,
  );

function injection(c: Checks, vmcb: Vmcb): void {
  const info = c.f.let(vmcb.low("eventInjection"));
  c.f.if(info.shrU(31), () => {
    const type = c.f.let(info.shrU(8).and(7)), vector = c.f.let(info.and(0xff));
    c.fail(
      "inject.type",
      "EVENTINJ {a} has a reserved type",
      type.eq(1).or(type.gtU(EVENT_TYPE.softwareInterrupt)),
      info,
    );
    const known = vector.ltU(32).and(i32(EXCEPTIONS).shrU(vector));
    c.fail(
      "inject.mode",
      "EVENTINJ {a}: #OF or #BR, which 64-bit code cannot raise",
      type.eq(EVENT_TYPE.hardwareException).and(vector.sub(VECTOR.OF).leU(1)).and(code64(vmcb)),
      info,
    );
    c.fail(
      "inject.vector",
      "EVENTINJ {a}: an exception with a vector that is none",
      type.eq(EVENT_TYPE.hardwareException).and(known.eqz()),
      info,
    );
  });
}

function nestedPaging(c: Checks, vmcb: Vmcb): void {
  const f = c.f;
  f.if(vmcb.low("nestedControl").and(NP_ENABLE), () => {
    const host = cell64(CPU.cr0), root = f.let(vmcb.get("nestedCr3")), pat = f.let(vmcb.get("pat"));
    c.fail(
      "nested.paging",
      "nested paging while the host has paging off (CR0 {a})",
      host.shrU(31).wrap().and(1).eqz(),
      host,
    );
    c.fail("nested.cr3", "nCR3 {a} is wider than a physical address", tooWide(root), root);
    c.fail("nested.pat", "G_PAT {a} holds a byte that is no memory type", patInvalid(f, pat), pat);
  });
}

export function buildChecks(m: Module): void {
  m.func("svmNote", ["i32", "i64", "i64"], [], (f, id, a, b) => {
    setCell(f, V.check, id);
    setCell64(f, V.checkA, a);
    setCell64(f, V.checkB, b);
  });
  // svmCheck(vmcb) -> 0 | 1
  m.func("svmCheck", ["i32"], ["i32"], (f, base) => {
    const vmcb = new Vmcb(f, base);
    controlRegisters(new Checks(f, "APM 2 15.5.1"), vmcb);
    controls(new Checks(f, "APM 2 15.5.1"), vmcb);
    injection(new Checks(f, "APM 2 15.20"), vmcb);
    nestedPaging(new Checks(f, "APM 2 15.25.4"), vmcb);
    f.result(0);
  });
}
