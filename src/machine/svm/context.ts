/**
 * Which translations the TLBs hold. Under a TypeScript root nothing runs between an exit and the
 * next VMRUN, so they stay valid when the same guest comes back with the same roots and mode,
 * whatever its ASID: nobody can see what a TLB holds.
 */
import { atBit } from "../mode.ts";
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { CPU, pdpte, V } from "../state.ts";
import { cell, cell64, setCell, setCell64 } from "../linkage.ts";
import type { Expr } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";
import { SVMC } from "./layout.ts";

/** PG and WP of CR0, LMA and NXE of EFER; PSE, PAE, SMEP and SMAP of CR4 above bit 32. */
const mode = (): Expr =>
  cell64(CPU.cr0).and(BigInt(CR0.PG) | BigInt(CR0.WP)).or(
    cell64(CPU.efer).and(EFER.LMA | EFER.NXE),
  ).or(
    cell64(CPU.cr4).and(0x30_0030).shl(32),
  );

export function buildContext(m: Module): void {
  m.func("svmContextNote", [], [], (f) => {
    setCell64(f, SVMC.contextRoot, cell64(V.eptp));
    setCell64(f, SVMC.contextCr3, cell64(CPU.cr3));
    setCell64(f, SVMC.contextMode, mode());
    for (let n = 0; n < 4; n++) {
      setCell64(f, SVMC.contextPdptes + 8 * n, cell64(pdpte(n)));
    }
    setCell(f, SVMC.contextValid, 1);
  });
  // svmContextSwitch(): empties the TLBs unless they are those of the guest being entered.
  m.func("svmContextSwitch", [], [], (f) => {
    const same = f.let(
      cell(SVMC.contextValid).and(cell64(SVMC.contextRoot).eq(cell64(V.eptp)))
        .and(cell64(SVMC.contextCr3).eq(cell64(CPU.cr3)))
        .and(cell64(SVMC.contextMode).eq(mode())),
    );
    const pae = atBit(cell64(CPU.cr4), CR4.PAE).wrap().and(cell(V.pdptesInMemory).eqz());
    f.if(same.and(pae).and(1), () => {
      for (let n = 0; n < 4; n++) {
        const now = cell64(pdpte(n));
        f.set(same, same.and(cell64(SVMC.contextPdptes + 8 * n).eq(now)));
      }
    });
    f.if(same.eqz(), () => f.call("flushTlb"));
  });
  // After the host state was loaded: a host that runs code must not see the guest's translations.
  m.func("svmContextAfterExit", [], [], (f) => {
    f.if(cell(V.hostedRoot).eqz(), () => {
      setCell(f, SVMC.contextValid, 0);
      f.call("flushTlb");
    });
  });
}
