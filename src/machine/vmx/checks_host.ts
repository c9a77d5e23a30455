/** VM-entry checks on the host-state area (SDM 3 26.2.2 to 26.2.4). */
import { CR4, EFER } from "../../abi/x86/cr.ts";
import { EXIT_CONTROL } from "../../abi/x86/vmx.ts";
import { CPU } from "../state.ts";
import { cell64 } from "../linkage.ts";
import type { Local, Module } from "../wasm/module.ts";
import { CR0_FIXED0, CR4_FIXED0, CR4_FIXED1, EFER_BITS } from "./capabilities.ts";
import { Checks } from "./checks_controls.ts";
import { VmcsRegion } from "./layout.ts";
import { patInvalid, tooWide } from "../values.ts";
import { atBit, isCanonical } from "../mode.ts";

const LMA_LME = EFER.LMA | EFER.LME;

function registers(c: Checks, vmcs: VmcsRegion, exit: Local): void {
  const cr0 = vmcs.get("hostCr0"), cr4 = vmcs.get("hostCr4"), cr3 = vmcs.get("hostCr3");
  c.fail(
    "cr0",
    "host CR0 {a} lacks bits that VMX operation fixes at 1",
    cr0.and(CR0_FIXED0).ne(CR0_FIXED0).or(cr0.shrU(32).nez()),
    cr0,
  );
  c.fail(
    "cr4",
    "host CR4 {a} has bits that VMX operation does not allow, or lacks VMXE",
    cr4.and(CR4_FIXED0).eqz().or(cr4.and(~BigInt(CR4_FIXED1)).nez()),
    cr4,
  );
  c.fail("cr3", "host CR3 {a} is wider than a physical address", tooWide(cr3), cr3);
  for (const name of ["hostSysenterEsp", "hostSysenterEip"]) {
    canonical(c, vmcs, name);
  }
  const pat = vmcs.get("hostPat");
  c.f.if(exit.and(EXIT_CONTROL.loadPat), () => {
    c.fail("pat", "host PAT {a} holds a byte that is no memory type", patInvalid(c.f, pat), pat);
  });
  const efer = vmcs.get("hostEfer");
  c.f.if(exit.and(EXIT_CONTROL.loadEfer), () => {
    const long = exit.shrU(9).and(1).neg().and(LMA_LME);
    c.fail(
      "efer",
      "host EFER {a}: a reserved bit is set, or LMA and LME are not those of the host address-space size",
      efer.and(~BigInt(EFER_BITS)).nez().or(efer.wrap().and(LMA_LME).ne(long)),
      efer,
    );
  });
}

function canonical(c: Checks, vmcs: VmcsRegion, name: string): void {
  const value = vmcs.get(name);
  c.fail(name, `${name} {a} is not canonical`, isCanonical(value).eqz(), value);
}

function segments(c: Checks, vmcs: VmcsRegion, exit: Local): void {
  for (const s of ["Cs", "Ss", "Ds", "Es", "Fs", "Gs", "Tr"]) {
    const selector = vmcs.low(`host${s}Selector`);
    c.fail(
      `${s.toLowerCase()}.selector`,
      `host ${s.toUpperCase()} selector {a} has RPL or TI set`,
      selector.and(7).nez(),
      selector,
    );
  }
  c.fail("cs.null", "host CS selector is 0", vmcs.low("hostCsSelector").eqz());
  c.fail("tr.null", "host TR selector is 0", vmcs.low("hostTrSelector").eqz());
  const narrow = exit.and(EXIT_CONTROL.hostAddressSpace).eqz();
  c.fail(
    "ss.null",
    "host SS selector is 0 and the host address-space size is not 64 bits",
    vmcs.low("hostSsSelector").eqz().and(narrow),
  );
  for (const part of ["FsBase", "GsBase", "GdtrBase", "IdtrBase", "TrBase"]) {
    canonical(c, vmcs, `host${part}`);
  }
}

function addressSpace(c: Checks, vmcs: VmcsRegion, exit: Local): void {
  const f = c.f;
  const size = f.let(exit.shrU(9).and(1));
  const guest = f.let(vmcs.low("entryControls").shrU(9).and(1));
  const long = f.let(atBit(cell64(CPU.efer), EFER.LMA).and(1).wrap());
  const rip = vmcs.get("hostRip"), cr4 = vmcs.get("hostCr4");
  c.fail(
    "addressSpace",
    "host address-space size is {a}, but the processor is in IA-32e mode: {b}",
    size.ne(long),
    size,
    long,
  );
  c.fail(
    "ia32eGuest",
    "IA-32e mode guest with a host outside IA-32e mode",
    guest.and(size.eqz()),
  );
  f.if(size, () => {
    c.fail("pae", "host CR4 {a} lacks PAE for a 64-bit host", cr4.and(CR4.PAE).eqz(), cr4);
    c.fail("rip", "host RIP {a} is not canonical", isCanonical(rip).eqz(), rip);
  }, () => {
    c.fail(
      "ripWide",
      "host RIP {a} is wider than 32 bits outside a 64-bit host",
      rip.shrU(32).nez(),
      rip,
    );
  });
}

/** `vmxCheckHost() -> 0 | 1`; on failure V.check names the check. */
export function buildHostChecks(m: Module): void {
  m.func("vmxCheckHost", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.host", "SDM 3 26.2.2");
    const exit = f.let(vmcs.low("exitControls"));
    registers(c, vmcs, exit);
    segments(c, vmcs, exit);
    addressSpace(c, vmcs, exit);
    f.result(0);
  });
}
