/** VMLOAD, VMSAVE, STGI, CLGI and INVLPGA as functions (APM 2 15.5.2, 15.16, 15.17; APM 3). */
import { check } from "../checks.ts";
import { CPU, V } from "../state.ts";
import { cell64, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { canonicalized, loadSegment, storeSegment, SVMC, Vmcb } from "./layout.ts";
import { markDirty } from "../values.ts";

const ADDRESS = check(
  "svm.address",
  "VMCB address {a} is not 4-KByte aligned or has no memory",
  "APM 3 VMRUN, VMLOAD, VMSAVE",
);

const wide = (low: Expr, high: Expr): Expr => low.zext().or(high.zext().shl(32));

/** Registers that VMLOAD and VMSAVE move besides FS, GS, LDTR and TR; addresses are sign-extended. */
const REGISTERS = [
  ["kernelGsBase", true],
  ["star", false],
  ["lstar", true],
  ["cstar", true],
  ["sfmask", false],
  ["sysenterCs", false],
  ["sysenterEsp", true],
  ["sysenterEip", true],
] as const;
const SEGMENTS = ["fs", "gs", "ldtr", "tr"] as const;

function buildAddress(m: Module): void {
  // svmAddress(pa) -> 0, or 1 if no VMCB can be there.
  m.func("svmAddress", ["i64"], ["i32"], (f, pa) => {
    const bad = f.let(pa.and(0xfff).nez().or(pa.gtU(cell64(V.ramSize).sub(4096))));
    f.if(bad, () => {
      setCell(f, V.check, ADDRESS);
      setCell64(f, V.checkA, pa);
    });
    f.result(bad);
  });
}

function moves(m: Module): void {
  const checked = (name: string, body: (f: Func, vmcb: Vmcb) => void) =>
    m.func(name, ["i32", "i32"], ["i32"], (f, low, high) => {
      const pa: Local = f.let(wide(low, high));
      f.if(f.call("svmAddress", pa), () => f.return(i32(1)));
      body(f, new Vmcb(f, f.let(pa.wrap())));
      f.result(0);
    });
  checked("vmload", (f, vmcb) => {
    for (const name of SEGMENTS) loadSegment(f, vmcb, name);
    for (const [name, address] of REGISTERS) {
      const value = vmcb.get(name);
      setCell64(f, CPU[name], address ? canonicalized(value) : value);
    }
  });
  checked("vmsave", (f, vmcb) => {
    for (const name of SEGMENTS) storeSegment(f, vmcb, name);
    for (const [name] of REGISTERS) vmcb.set(name, cell64(CPU[name]));
    markDirty(f, vmcb.base);
  });
}

export function buildOperations(m: Module): void {
  buildAddress(m);
  moves(m);
  // setGif(0 | 1): CLGI, STGI.
  m.func("setGif", ["i32"], [], (f, value) => setCell(f, CPU.gif, value));
  // invlpga(linear low, high, asid): nobody can see what else goes with it.
  m.func("invlpga", ["i32", "i32", "i32"], [], (f) => {
    f.call("flushTlb");
    setCell(f, SVMC.contextValid, 0);
  });
}
