/** `readMsr(number) -> i64` and `writeMsr(number, value)`, from the table of msrs.ts. */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { V } from "../state.ts";
import { MSR } from "../../abi/x86/msr.ts";
import { cell, cell64, SERVICE, setCell64 } from "../linkage.ts";
import { CPU } from "../state.ts";
import { check } from "../checks.ts";
import { COUNTER_FAMILIES, COUNTERS, msrFeatures, type MsrRow, msrTable } from "./msrs.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { asAmd } from "../vendors.ts";
import { callChecked, failIf } from "./segmentation/descriptor.ts";
import { timeStamp } from "./control_state.ts";
import { isCanonical } from "../mode.ts";

const CHECK = {
  unknown: check("msr.unknown", "MSR {a} does not exist on this processor", "SDM 4"),
  readOnly: check("msr.readOnly", "MSR {a} cannot be written (value {b})", "SDM 4"),
  reserved: check("msr.reserved", "MSR {a}: {b} sets reserved bits", "SDM 2 WRMSR"),
  canonical: check("msr.canonical", "MSR {a}: address {b} is not canonical", "SDM 2 WRMSR"),
  memoryType: check(
    "msr.memoryType",
    "MSR {a}: {b} names a memory type that does not exist",
    "SDM 3 12.11, 12.12",
  ),
  locked: check("msr.locked", "IA32_FEATURE_CONTROL is locked (value {b})", "SDM 3 23.7"),
};

/** One bit per byte of `value` that is set if that byte is not below 8 or is 2, 3 (or 7). */
function badTypes(f: Func, value: Expr, seven: boolean): Expr {
  const bad = f.let(i32(0));
  for (let n = 0; n < 8; n++) {
    const byte = f.let(value.shrU(8 * n).wrap().and(0xff));
    const wrong = byte.gtU(seven ? 7 : 6).or(byte.and(0xfe).eq(2));
    f.set(bad, bad.or(wrong));
  }
  return bad;
}

function checkRule(f: Func, r: MsrRow, number: Local, value: Local): void {
  const fail = (condition: Expr, id: number) =>
    failIf(f, condition, VECTOR.GP, 0, id, number, value);
  const all = (1n << 64n) - 1n;
  if (r.valid !== all) fail(value.and(i64(r.valid).not()).nez(), CHECK.reserved);
  if (r.rule === "canonical") fail(isCanonical(value).eqz(), CHECK.canonical);
  if (r.rule === "pat") fail(badTypes(f, value, true), CHECK.memoryType);
  if (r.rule === "mtrrFixed") fail(badTypes(f, value, false), CHECK.memoryType);
  if (r.rule === "mtrrType") fail(badTypes(f, value.and(0xff), false), CHECK.memoryType);
  if (r.rule === "locked") fail(cell64(r.home!).and(1).nez(), CHECK.locked);
}

/** CPUID shows what a row asks for. */
const isShown = (feature: string): Expr =>
  cell(V.hiddenMsrs).and(1 << msrFeatures.indexOf(feature)).eqz();

/** Not zero: RDPMC has a counter of that number. */
export const hasCounter = (number: Expr): Expr =>
  number.ltU(COUNTERS).and(asAmd("msr.vendor")).and(isShown(COUNTER_FAMILIES));

/** The value of a performance counter. */
export function readCounter(f: Func, number: Expr): Expr {
  f.call("service", SERVICE.counter, number);
  return cell64(V.value);
}

/** Runs `body` with the address of the home if `number` is in the row. */
function inRow(f: Func, r: MsrRow, number: Local, body: (place: Expr) => void): void {
  const index = number.sub(r.number | 0);
  const inside = r.count === 1 ? number.eq(r.number | 0) : index.ltU(r.count);
  const amd = asAmd("msr.vendor");
  const there = r.vendor ? inside.and(r.vendor === "amd" ? amd : amd.eqz()) : inside;
  f.if(r.feature === undefined ? there : there.and(isShown(r.feature)), () => {
    body(r.home === undefined ? i32(0) : index.shl(3).add(r.home));
  });
}

function writeTo(f: Func, r: MsrRow, number: Local, value: Local): void {
  inRow(f, r, number, (place) => {
    switch (r.write) {
      case "fault":
        failIf(f, i32(1), VECTOR.GP, 0, CHECK.readOnly, number, value);
        break;
      case "ignore":
        break;
      case "efer":
        f.call("writeEfer", value);
        break;
      case "tsc":
        // Both ways of setting the counter show in IA32_TSC_ADJUST (SDM 3 18.17.3).
        setCell64(f, CPU.tscAdjust, cell64(CPU.tscAdjust).add(value.sub(timeStamp())));
        f.call("service", SERVICE.tsc, 0);
        break;
      case "counter":
        setCell64(f, V.value, value.and(i64(r.valid)));
        f.call("service", SERVICE.setCounter, number.sub(MSR.PERF_EVTSEL0 | 0));
        break;
      case "store":
        checkRule(f, r, number, value);
        f.store(64, place, value);
        if (r.number === MSR.TSC_ADJUST) f.call("service", SERVICE.tsc, 0);
    }
    f.return();
  });
}

export function buildMsrs(m: Module): void {
  m.func("readMsr", ["i32"], ["i64"], (f, number) => {
    if (m.has("ownMsrRead")) {
      f.if(f.call("ownMsrRead", number), () => f.return(cell64(V.value)));
    }
    for (const r of msrTable) {
      inRow(f, r, number, (place) => {
        if (r.write === "tsc") f.return(timeStamp());
        else if (r.number === MSR.PERF_CTR0) f.return(readCounter(f, number.and(3)));
        else if (r.home === undefined) f.return(i64(r.fixed));
        else f.return(load("i64", 64, "u", place));
      });
    }
    const unknown = callChecked(f, "msr", number, i32(0));
    failIf(f, unknown, VECTOR.GP, 0, CHECK.unknown, number);
    f.result(cell64(V.value));
  });
  m.func("writeMsr", ["i32", "i64"], [], (f, number, value) => {
    // Registers of the vendor's virtualization extensions.
    if (m.has("ownMsrWrite")) f.if(f.call("ownMsrWrite", number, value), () => f.return());
    for (const r of msrTable) writeTo(f, r, number, value);
    setCell64(f, V.value, value);
    const unknown = callChecked(f, "msr", number, i32(1));
    failIf(f, unknown, VECTOR.GP, 0, CHECK.unknown, number, value);
  });
}
