/** The model-specific registers of SVM (APM 2 15.30), which other processors have not got. */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { MSR } from "../../abi/x86/msr.ts";
import { VM_CR } from "../../abi/x86/vmcb.ts";
import { EFER } from "../../abi/x86/cr.ts";
import { check } from "../checks.ts";
import { CPU, V, type WideCell } from "../state.ts";
import { cell64, noteFault, SERVICE, setCell64 } from "../linkage.ts";
import { type Expr, i32 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { hostTimeStamp } from "../system/control_state.ts";
import { tooWide } from "../values.ts";

const CHECK = {
  reserved: check("svm.msr.reserved", "MSR {a}: {b} sets reserved bits", "APM 2 15.30"),
  hsave: check(
    "svm.msr.hsave",
    "VM_HSAVE_PA: {b} is not 4-KByte aligned or wider than a physical address",
    "APM 2 15.30.4",
  ),
  disabled: check("svm.disabled", "EFER.SVME is set, but VM_CR.SVMDIS forbids it", "APM 2 15.4"),
  enabled: check("svm.enabled", "VM_CR.SVMDIS is set while EFER.SVME is", "APM 2 15.30.1"),
  readOnly: check("svm.msr.readOnly", "MSR {a} cannot be written (value {b})", "APM 2 15.30"),
};

/** Where each lies, and whether software may write it. */
const HOMES: readonly (readonly [number, WideCell, boolean])[] = [
  [MSR.VM_CR, "vmCr", true],
  [MSR.VM_HSAVE_PA, "vmHsave", true],
  [MSR.TSC_RATIO, "tscRatio", true],
  [MSR.BRANCH_FROM, "branchFrom", false],
  [MSR.BRANCH_TO, "branchTo", false],
  [MSR.LAST_EXCEPTION_FROM, "lastExceptionFrom", false],
  [MSR.LAST_EXCEPTION_TO, "lastExceptionTo", false],
];

function refuse(f: Func, condition: Expr, id: number, number: Local, value: Local): void {
  f.if(condition, () => {
    noteFault(f, VECTOR.GP, 0, id, number, value);
    f.return(i32(1));
  });
}

function writeVmCr(f: Func, number: Local, value: Local): void {
  refuse(f, value.and(~0x1fn).nez(), CHECK.reserved, number, value);
  const old = f.let(cell64(CPU.vmCr));
  // Locked: LOCK and SVMDIS stay until RESET.
  f.if(old.and(VM_CR.LOCK).nez(), () => {
    const kept = BigInt(VM_CR.LOCK | VM_CR.SVMDIS);
    f.set(value, value.and(~kept).or(old.and(kept)));
  });
  const svme = cell64(CPU.efer).and(EFER.SVME).nez();
  refuse(f, svme.and(value.and(VM_CR.SVMDIS).nez()), CHECK.enabled, number, value);
  setCell64(f, CPU.vmCr, value);
}

/**
 * `ownMsrRead(number) -> 0 | 1` and `ownMsrWrite(number, value) -> 0 | 1`: 1 if the register is one of
 * these (V.abort may be set then); the value read is in V.value.
 */
export function buildOwnMsrs(m: Module): void {
  m.func("ownMsrRead", ["i32"], ["i32"], (f, number) => {
    for (const [msr, home] of HOMES) {
      f.if(number.eq(msr | 0), () => {
        setCell64(f, V.value, cell64(CPU[home]));
        f.return(i32(1));
      });
    }
    f.result(0);
  });
  m.func("ownMsrWrite", ["i32", "i64"], ["i32"], (f, number, value) => {
    f.if(number.eq(MSR.EFER | 0), () => {
      const wrong = value.and(EFER.SVME).nez().and(cell64(CPU.vmCr).and(VM_CR.SVMDIS).nez());
      refuse(f, wrong, CHECK.disabled, number, value);
    });
    f.if(number.eq(MSR.TSC), () => {
      // A guest that may write the counter writes the processor's: offset and ratio do not count.
      const old = cell64(CPU.tscAdjust);
      setCell64(f, CPU.tscAdjust, old.add(value.sub(hostTimeStamp())));
      f.call("service", SERVICE.tsc, 0);
      f.return(i32(1));
    });
    for (const [msr, home, writable] of HOMES) {
      f.if(number.eq(msr | 0), () => {
        if (!writable) refuse(f, i32(1), CHECK.readOnly, number, value);
        else if (msr === MSR.VM_CR) writeVmCr(f, number, value);
        else {
          if (msr === MSR.VM_HSAVE_PA) {
            const bad = value.and(0xfff).nez().or(tooWide(value));
            refuse(f, bad, CHECK.hsave, number, value);
          } else refuse(f, value.shrU(40).nez(), CHECK.reserved, number, value);
          setCell64(f, CPU[home], value);
        }
        f.return(i32(1));
      });
    }
    f.result(0);
  });
}
