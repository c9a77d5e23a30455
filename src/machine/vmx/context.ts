/**
 * Which translations the TLBs hold. Under a TypeScript root nothing runs between an exit and the
 * next entry, so they stay valid when the same guest comes back with the same roots and mode.
 */
import { atBit } from "../mode.ts";
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { CPU, pdpte, V } from "../state.ts";
import { cell, cell64, setCell, setCell64 } from "../linkage.ts";
import type { Expr } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";
import { VMXC } from "./layout.ts";

/** PG and WP of CR0, LMA and NXE of EFER; PSE, PAE, SMEP and SMAP of CR4 above bit 32. */
const mode = (): Expr =>
  cell64(CPU.cr0).and(BigInt(CR0.PG) | BigInt(CR0.WP)).or(
    cell64(CPU.efer).and(EFER.LMA | EFER.NXE),
  ).or(
    cell64(CPU.cr4).and(0x30_0030).shl(32),
  );

export function buildContext(m: Module): void {
  m.func("vmxContextNote", [], [], (f) => {
    setCell64(f, VMXC.contextEptp, cell64(V.eptp));
    setCell64(f, VMXC.contextCr3, cell64(CPU.cr3));
    setCell64(f, VMXC.contextMode, mode());
    for (let n = 0; n < 4; n++) {
      setCell64(f, VMXC.contextPdptes + 8 * n, cell64(pdpte(n)));
    }
    setCell(f, VMXC.contextValid, 1);
  });
  // vmxContextSwitch(): empties the TLBs unless they are those of the guest being entered.
  m.func("vmxContextSwitch", [], [], (f) => {
    const same = f.let(
      cell(VMXC.contextValid).and(cell64(VMXC.contextEptp).eq(cell64(V.eptp)))
        .and(cell64(VMXC.contextCr3).eq(cell64(CPU.cr3)))
        .and(cell64(VMXC.contextMode).eq(mode())),
    );
    f.if(same.and(atBit(cell64(CPU.cr4), CR4.PAE).wrap()).and(1), () => {
      for (let n = 0; n < 4; n++) {
        const now = cell64(pdpte(n));
        f.set(same, same.and(cell64(VMXC.contextPdptes + 8 * n).eq(now)));
      }
    });
    f.if(same.eqz(), () => f.call("flushTlb"));
  });
  // After the host state was loaded: a root that runs code must not see the guest's translations.
  m.func("vmxContextAfterExit", [], [], (f) => {
    f.if(cell(V.hostedRoot).eqz(), () => {
      setCell(f, VMXC.contextValid, 0);
      f.call("flushTlb");
    });
  });
}
