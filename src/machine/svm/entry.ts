/**
 * VMRUN (APM 2 15.5): `vmrun(low, high) -> status`. CPU.rip is where the host goes on after the exit.
 */
import { VECTOR } from "../../abi/x86/vectors.ts";
import {
  INTERRUPT_SHADOW,
  LBR_ENABLE,
  NP_ENABLE,
  SVM_EVENT_TYPE,
  VIRTUAL_INTERRUPT,
} from "../../abi/x86/vmcb.ts";
import { CR0, CR4, DR6, DR7, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import { check } from "../checks.ts";
import { CR0_KNOWN } from "../system/control_rules.ts";
import { ABORT, ACTIVITY, CPU, INTERRUPTIBILITY, V } from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { LINK } from "../system/segmentation/descriptor.ts";
import { deliverInjected, markDirty } from "../values.ts";
import { BRANCH_RECORDS, moveHostBlocks } from "./exit.ts";
import {
  canonicalized,
  HOST_REGISTERS,
  hostSave,
  loadSegment,
  MODE,
  NESTED_KIND,
  NESTED_ROOT,
  SVMC,
  Vmcb,
} from "./layout.ts";
import { atBit, is64, isCanonical } from "../mode.ts";

/** What `vmrun` gives. */
export const STATUS = {
  entered: 0,
  /** #GP: there can be no VMCB at that address. */
  protection: 1,
  /** The guest was left again at once; the VMCB says why. */
  left: 3,
} as const;

const CHECK = {
  hsave: check(
    "svm.hsave",
    "VM_HSAVE_PA {a}: there is no memory for the host's state",
    "APM 2 15.30.4",
  ),
  pdpte: check("svm.pdpte", "guest CR3 {a}: a PDPTE has reserved bits set ({b})", "APM 2 15.5.1"),
};

function saveHost(f: Func): void {
  const base = f.let(cell64(CPU.vmHsave).wrap());
  f.if(cell(CPU.flagOp), () => f.call("materialize"));
  for (const name of HOST_REGISTERS) {
    // RF ends with VMRUN as with any instruction.
    const value = name === "rflags" ? cell64(CPU.rflags).and(~RF) : cell64(CPU[name]);
    f.store(64, base, value, hostSave(name), MEMORY.ram);
  }
  moveHostBlocks(f, base, true);
  markDirty(f, base);
}

/** RFLAGS bits that exist; VM is kept only where virtual-8086 mode can be. */
const FLAGS = 0x3f_7fd5n, { VM, RF } = RFLAGS;

/** Control registers, flags and what follows from them; `cr0` is the guest's. */
function loadModes(f: Func, vmcb: Vmcb, cr0: Local): void {
  const efer = f.let(vmcb.get("efer").and(~BigInt(EFER.LMA)));
  const long = f.let(atBit(efer, EFER.LME).and(atBit(cr0, CR0.PG)).and(1));
  setCell64(f, CPU.efer, efer.or(long.shl(10)));
  // ET is fixed to 1; undefined bits read as 0.
  setCell64(f, CPU.cr0, cr0.and(CR0_KNOWN).or(CR0.ET));
  for (const name of ["cr2", "cr3", "cr4", "rip", "rsp", "rax"] as const) {
    setCell64(f, CPU[name], vmcb.get(name));
  }
  setCell64(f, CPU.dr6, vmcb.get("dr6").and(DR6.causes).or(DR6.fixed));
  setCell64(f, CPU.dr7, vmcb.get("dr7").and(0xffff_23ff).or(DR7.fixed));
  setCell(f, CPU.flagOp, 0);
  const flags = f.let(vmcb.get("rflags").and(FLAGS).or(RFLAGS.fixed));
  f.if(long.nez().or(cr0.and(CR0.PE).eqz()), () => f.set(flags, flags.and(~VM)));
  setCell64(f, CPU.rflags, flags);
}

/** Segments: the CPL field decides about privilege, real and virtual-8086 mode ignore it. */
function loadSegments(f: Func, vmcb: Vmcb): void {
  for (const name of ["es", "cs", "ss", "ds"] as const) loadSegment(f, vmcb, name);
  for (const name of ["gdtr", "idtr"] as const) {
    setCell64(f, CPU[`${name}.base`], canonicalized(vmcb.get(`${name}Base`)));
    setCell64(f, CPU[`${name}.limit`], vmcb.get(`${name}Limit`).and(0xffff).zext());
  }
  // Whether CS is present is not looked at.
  const cs = CPU["cs.attributes"], ss = CPU["ss.attributes"];
  setCell(f, cs, cell(cs).and(~0x1_0000));
  const virtual = atBit(cell(CPU.rflags), RFLAGS.VM).and(1);
  const cpl = i32(0).when(
    cell(CPU.cr0).and(CR0.PE).eqz(),
    i32(3).when(virtual, vmcb.get("cpl").and(3)),
  );
  setCell(f, ss, cell(ss).and(~0x60).or(cpl.shl(5)));
  f.if(is64().eqz(), () => setCell64(f, CPU.rip, cell64(CPU.rip).and(0xffff_ffffn)));
}

/** Interrupts, time, nested paging, branch records: what the control area switches. */
function loadControls(f: Func, vmcb: Vmcb): void {
  const host = { cr4: f.let(cell64(CPU.cr4)), efer: f.let(cell64(CPU.efer)) };
  const nested = f.let(vmcb.low("nestedControl").and(NP_ENABLE));
  setCell64(f, V.eptp, 0);
  f.if(nested, () => {
    const pse = atBit(host.cr4, CR4.PSE).and(1), pae = host.cr4.and(CR4.PAE).nez();
    const kind = i64(NESTED_KIND.long).when(
      host.efer.and(EFER.LMA).nez(),
      i64(NESTED_KIND.pae).when(pae, pse),
    );
    const nxe = i64(NESTED_ROOT.nxe).when(host.efer.and(EFER.NXE).nez(), i64(0));
    const told = nxe.nez().and(pae).or(host.cr4.and(CR4.SMEP).nez());
    const fetch = i64(NESTED_ROOT.fetch).when(told, i64(0));
    const mode = kind.shl(NESTED_ROOT.kindShift).or(nxe).or(fetch).or(NESTED_ROOT.inUse);
    setCell64(f, V.eptp, vmcb.get("nestedCr3").and(~0x1fn).or(mode));
    setCell64(f, CPU.pat, vmcb.get("pat"));
  });
  setCell(f, V.pdptesInMemory, nested);
  const virtual = f.let(vmcb.get("virtualInterrupt"));
  f.if(virtual.and(VIRTUAL_INTERRUPT.masking), () => {
    setCell64(f, CPU.cr8, virtual.and(VIRTUAL_INTERRUPT.tpr).zext());
  });
  setCell64(f, CPU.tscOffset, vmcb.get("tscOffset"));
  const ratio = cell64(CPU.tscRatio);
  setCell64(f, V.tscRatio, ratio.when(ratio.ne(1n << 32n), i64(0)));
  f.if(vmcb.low("lbrControl").and(LBR_ENABLE), () => {
    setCell64(f, CPU.debugctl, vmcb.get("debugctl").and(3));
    for (const name of BRANCH_RECORDS) {
      if (name !== "debugctl") setCell64(f, CPU[name], vmcb.get(name));
    }
  });
  setCell(f, SVMC.pauseCount, vmcb.get("pauseFilterCount"));
  setCell64(f, SVMC.pauseLast, 0);
  const shadow = vmcb.low("interruptShadow").and(INTERRUPT_SHADOW);
  const masked = i32(0).when(
    cell(V.hostedRoot),
    cell(CPU.interruptibility).and(INTERRUPTIBILITY.nmi),
  );
  setCell(f, CPU.interruptibility, shadow.or(masked));
}

/** PAE paging without nested paging: the PDPTEs come from memory, before anything else is loaded. */
function checkPdptes(f: Func, vmcb: Vmcb, cr0: Local): Local {
  const legacy = vmcb.get("efer").and(EFER.LME).eqz();
  const pae = vmcb.get("cr4").and(CR4.PAE).nez().and(atBit(cr0, CR0.PG).wrap());
  const needed = f.let(
    pae.and(legacy).and(vmcb.low("nestedControl").and(NP_ENABLE).eqz()).and(1),
  );
  f.if(needed, () => {
    f.call("readPdptes", vmcb.get("cr3"));
    f.if(cell(V.abort), () => {
      setCell(f, V.abort, ABORT.none);
      f.call("svmNote", i32(CHECK.pdpte), vmcb.get("cr3"), cell64(V.checkB));
      f.call("svmInvalid");
      f.return(i32(STATUS.left));
    });
  });
  return needed;
}

/** 15.20: the event to be injected goes through the guest's IDT; no intercept sees it. */
function buildInject(m: Module): void {
  m.func("svmInject", [], [], (f) => {
    const vmcb = Vmcb.current(f);
    const info = f.let(vmcb.low("eventInjection"));
    const type = f.let(info.shrU(8).and(7)), vector = f.let(info.and(0xff));
    f.call("refresh");
    const exception = f.let(type.eq(SVM_EVENT_TYPE.exception));
    // INT3 and INTO, like INT n, return to nRIP.
    const software = f.let(
      type.eq(SVM_EVENT_TYPE.softwareInterrupt)
        .or(exception.and(vector.eq(VECTOR.BP).or(vector.eq(VECTOR.OF)))),
    );
    setCell(f, V.vector, vector);
    setCell(f, V.eventType, i32(6).when(exception.and(software), type));
    setCell(f, V.hasError, exception.and(info.shrU(11)).and(1));
    setCell(f, V.errorCode, vmcb.get("eventInjection").shrU(32).wrap());
    const length = vmcb.get("nextRip").sub(cell64(CPU.rip)).wrap();
    setCell(f, V.length, length.when(software, i32(0)));
    setCell(f, V.check, 0);
    // Injection does not touch CR2, DR6 and DR7.
    setCell64(f, V.faultAddress, cell64(CPU.cr2));
    const kept = [CPU.dr6, CPU.dr7, CPU.debugctl, CPU.pendingDebug].map((at) =>
      [at, f.let(cell64(at))] as const
    );
    setCell(f, SVMC.injecting, 1);
    deliverInjected(f);
    setCell(f, SVMC.injecting, 0);
    f.if(exception.and(vector.eq(VECTOR.DB)), () => {
      for (const [at, value] of kept) setCell64(f, at, value);
    });
  });
}

/** A RIP that is not canonical is the first fetch's #GP; nothing behind VMRUN looks at it again. */
function checkRip(f: Func): void {
  f.if(is64().and(isCanonical(cell64(CPU.rip)).eqz()), () => {
    f.call("refresh");
    f.call("checkIp", cell64(CPU.rip));
    f.if(cell(V.abort), () => f.call("deliver"));
  });
}

function buildVmrun(m: Module): void {
  m.func("vmrun", ["i32", "i32"], ["i32"], (f, low, high) => {
    const pa = f.let(low.zext().or(high.zext().shl(32)));
    f.if(f.call("svmAddress", pa), () => f.return(i32(STATUS.protection)));
    const hsave = cell64(CPU.vmHsave);
    f.if(hsave.gtU(cell64(V.ramSize).sub(4096)), () => {
      f.call("svmNote", i32(CHECK.hsave), hsave, i64(0));
      f.return(i32(STATUS.protection));
    });
    const vmcb = new Vmcb(f, f.let(pa.wrap()));
    saveHost(f);
    setCell64(f, CPU.vmcb, pa);
    f.if(f.call("svmCheck", vmcb.base), () => {
      f.call("svmInvalid");
      f.return(i32(STATUS.left));
    });
    const cr0 = f.let(vmcb.get("cr0"));
    const pdptes = checkPdptes(f, vmcb, cr0);
    loadControls(f, vmcb);
    loadModes(f, vmcb, cr0);
    loadSegments(f, vmcb);
    f.if(pdptes, () => f.call("setPdptes"));
    for (const at of [V.abort, V.vectoring, LINK.taskSwitched]) setCell(f, at, 0);
    setCell(f, V.nonRoot, 1);
    setCell(f, CPU.svmMode, MODE.guest);
    setCell(f, CPU.gif, 1);
    f.if(cell(V.hostedRoot).eqz(), () => {
      setCell(f, CPU.activity, ACTIVITY.active);
      setCell64(f, CPU.pendingDebug, 0);
      // A host that traces VMRUN gets its trap behind the exit.
      setCell(f, V.stepping, 0);
    });
    setCell(f, SVMC.entries, cell(SVMC.entries).add(1));
    f.if(vmcb.get("tlbControl"), () => {
      setCell(f, SVMC.contextValid, 0);
    });
    f.call("svmContextSwitch");
    f.if(vmcb.low("eventInjection").shrU(31), () => f.call("svmInject"));
    f.if(cell(V.abort).eqz(), () => checkRip(f));
    f.if(cell(V.abort).eq(ABORT.exit), () => {
      f.call("svmExit");
      f.return(i32(STATUS.left));
    });
    f.result(STATUS.entered);
  });
}

export function buildEntry(m: Module): void {
  buildInject(m);
  buildVmrun(m);
}
