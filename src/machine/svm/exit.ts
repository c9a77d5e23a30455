/**
 * #VMEXIT (APM 2 15.6): `svmExit()` makes the exit that V.abort = ABORT.exit announces; CPU.rip is
 * that of the instruction or event boundary. Afterwards the host runs on with GIF clear; who asks
 * learns the rest from the VMCB.
 */
import { CR0, CR4, DR7, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import { LBR_ENABLE, NP_ENABLE, VIRTUAL_INTERRUPT } from "../../abi/x86/vmcb.ts";
import { ABORT, ACCESS, ACTIVITY, CPU, INTERRUPTIBILITY, pdpte, SHADOW, V } from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";
import { copyBlock, markDirty } from "../values.ts";
import { HOST_SAVE, hostSave, MODE, storeSegment, SVMC, Vmcb } from "./layout.ts";
import { is64, wrapIp } from "../mode.ts";

/** ES, CS, SS and DS; GDTR and IDTR: as blocks of the processor's state and of the host save area. */
const BLOCKS = [
  [CPU["es.base"], HOST_SAVE.segments, HOST_SAVE.segmentsSize],
  [CPU["gdtr.base"], HOST_SAVE.tables, HOST_SAVE.tablesSize],
] as const;

/** Saves (or loads) the host's segments and tables in the area at `base`. */
export function moveHostBlocks(f: Func, base: Expr, save: boolean): void {
  for (const [own, offset, size] of BLOCKS) {
    const cpu = { base: i32(0), offset: own, memory: MEMORY.cpu };
    const area = { base, offset, memory: MEMORY.ram };
    copyBlock(f, save ? area : cpu, save ? cpu : area, size);
  }
}

/** Registers that lie in the VMCB as they do in the processor. */
const REGISTERS = ["efer", "cr0", "cr2", "cr3", "cr4", "dr6", "dr7", "rip", "rsp", "rax"] as const;
export const BRANCH_RECORDS = [
  "debugctl",
  "branchFrom",
  "branchTo",
  "lastExceptionFrom",
  "lastExceptionTo",
] as const;

/** The guest's state (15.6). */
function saveGuest(f: Func, vmcb: Vmcb): void {
  f.if(cell(CPU.flagOp), () => f.call("materialize"));
  vmcb.set("rflags", cell64(CPU.rflags));
  for (const name of REGISTERS) vmcb.set(name, cell64(CPU[name]));
  for (const name of ["es", "cs", "ss", "ds"] as const) storeSegment(f, vmcb, name);
  for (const name of ["gdtr", "idtr"] as const) {
    vmcb.set(`${name}Base`, cell64(CPU[`${name}.base`]));
    vmcb.set(`${name}Limit`, cell(CPU[`${name}.limit`]));
  }
  vmcb.set("cpl", cell(CPU["ss.attributes"]).shrU(5).and(3));
  vmcb.set("interruptShadow", cell(CPU.interruptibility).and(SHADOW).nez().zext());
  f.if(vmcb.low("nestedControl").and(NP_ENABLE), () => vmcb.set("pat", cell64(CPU.pat)));
  f.if(vmcb.low("lbrControl").and(LBR_ENABLE), () => {
    for (const name of BRANCH_RECORDS) vmcb.set(name, cell64(CPU[name]));
  });
  const virtual = f.let(vmcb.get("virtualInterrupt"));
  f.if(virtual.and(VIRTUAL_INTERRUPT.masking), () => {
    const tpr = cell(CPU.cr8).and(VIRTUAL_INTERRUPT.tpr);
    vmcb.set("virtualInterrupt", virtual.and(~0xff).or(tpr));
  });
}

/** Types of V.vectoring (SDM) that EXITINTINFO knows as exceptions: 5 and 6 too. */
const eventInformation = (info: Expr): Expr =>
  info.and(0x8000_08ff | 0).or(i32(3).when(info.shrU(8).and(7).gtU(4), info.shrU(8).and(7)).shl(8));

/** EXITCODE, EXITINFO1 and 2, EXITINTINFO, nRIP (15.6, 15.7). */
function saveInformation(f: Func, vmcb: Vmcb): void {
  vmcb.set("exitCode", cell(V.exitReason).sext());
  vmcb.set("exitInfo1", cell64(SVMC.info1));
  vmcb.set("exitInfo2", cell64(SVMC.info2));
  const vectoring = f.let(cell(V.vectoring)), length = f.let(cell(SVMC.length));
  const info = f.let(i64(0));
  f.if(vectoring, () => {
    const code = cell(V.vectoringError).when(vectoring.and(0x800), i32(0));
    f.set(info, eventInformation(vectoring).zext().or(code.zext().shl(32)));
    // A software interrupt on its way: where it will return to.
    f.if(vectoring.shrU(8).and(7).geU(4), () => f.set(length, cell(V.vectoringLength)));
    setCell(f, V.vectoring, 0);
  });
  vmcb.set("exitIntInfo", info);
  const next = wrapIp(cell64(CPU.rip).add(length.zext()));
  vmcb.set("nextRip", next.when(length, i64(0)));
  vmcb.set("eventInjection", i64(0));
}

/** `svmBytes()`: decode assist of data page faults: the bytes of the instruction (15.8.4). */
function buildBytes(m: Module): void {
  m.func("svmBytes", [], [], (f) => {
    const vmcb = Vmcb.current(f);
    const linear = f.let(cell64(CPU.rip));
    f.if(is64().eqz(), () => {
      f.set(linear, linear.add(cell64(CPU["cs.base"])).and(0xffff_ffffn));
    });
    const aborted = f.let(cell(V.abort)), noted = f.let(cell(V.check));
    const count = f.let(i32(0)), pa = f.let(i64(0));
    f.while(() => count.ltU(15), (out) => {
      const at = f.let(linear.add(count.zext()));
      f.if(count.eqz().or(at.and(0xfff).eqz()), () => {
        // A look: no accessed bits, and what it does not find ends the bytes.
        setCell(f, V.abort, ABORT.none);
        setCell(f, V.walkCount, 0);
        f.set(pa, f.call("walk", at, i32(ACCESS.probe | ACCESS.fetch)));
        f.brIf(out, cell(V.abort).or(pa.geU(cell64(V.ramSize))));
      });
      const byte = load("i32", 8, "u", pa.wrap(), 0, MEMORY.ram);
      f.store(8, vmcb.base.add(count), byte, INSTRUCTION_BYTES, MEMORY.ram);
      f.set(pa, pa.add(1));
      f.set(count, count.add(1));
    });
    vmcb.set("instructionLength", count);
    setCell(f, V.abort, aborted);
    setCell(f, V.check, noted);
  });
}
const INSTRUCTION_BYTES = 0xd1;

/** `svmLoadHost()`: the host state; ends the guest. */
function buildLoadHost(m: Module): void {
  m.func("svmLoadHost", [], [], (f) => {
    const vmcb = Vmcb.current(f);
    const base = f.let(cell64(CPU.vmHsave).wrap());
    const saved = (name: Parameters<typeof hostSave>[0]): Expr =>
      load("i64", 64, "u", base, hostSave(name), MEMORY.ram);
    for (const name of ["rip", "rsp", "rax", "cr3", "cr4", "efer"] as const) {
      setCell64(f, CPU[name], saved(name));
    }
    setCell64(f, CPU.cr0, saved("cr0").or(CR0.PE));
    setCell64(f, CPU.rflags, saved("rflags").and(~BigInt(RFLAGS.VM)));
    setCell(f, CPU.flagOp, 0);
    f.if(vmcb.low("nestedControl").and(NP_ENABLE), () => setCell64(f, CPU.pat, saved("pat")));
    f.if(vmcb.low("lbrControl").and(LBR_ENABLE), () => {
      for (const name of BRANCH_RECORDS) setCell64(f, CPU[name], saved(name));
    });
    f.if(vmcb.get("virtualInterrupt").and(VIRTUAL_INTERRUPT.masking), () => {
      setCell64(f, CPU.cr8, saved("cr8"));
    });
    moveHostBlocks(f, base, false);
    setCell64(f, CPU.dr7, DR7.fixed);
    setCell64(f, CPU.tscOffset, 0);
    setCell64(f, V.tscRatio, 0);
    setCell(f, V.nonRoot, 0);
    setCell64(f, V.eptp, 0);
    setCell(f, V.pdptesInMemory, 0);
    setCell(f, CPU.svmMode, MODE.host);
    setCell(f, CPU.gif, 0);
    f.if(cell(V.hostedRoot), () => setCell(f, CPU.interruptibility, 0), () => {
      // NMIs stay masked; what else hung over the guest is gone.
      setCell(f, CPU.interruptibility, cell(CPU.interruptibility).and(INTERRUPTIBILITY.nmi));
      setCell(f, CPU.activity, ACTIVITY.active);
      // A host that traced VMRUN (TF) has its trap here.
      setCell64(f, CPU.pendingDebug, cell64(CPU.rflags).and(RFLAGS.TF).shl(6));
      loadHostPdptes(f);
    });
    f.call("svmContextAfterExit");
    setCell(f, V.abort, ABORT.none);
    setCell(f, SVMC.injecting, 0);
    markDirty(f, vmcb.base);
  });
}

/** A host with PAE paging: its page-directory pointers come from memory. */
function loadHostPdptes(f: Func): void {
  const legacy = cell64(CPU.efer).and(EFER.LMA).eqz();
  f.if(cell64(CPU.cr4).wrap().and(CR4.PAE).nez().and(legacy), () => {
    const at = f.let(cell64(CPU.cr3).wrap().and(~31));
    f.if(at.zext().ltU(cell64(V.ramSize)), () => {
      for (let n = 0; n < 4; n++) {
        setCell64(f, pdpte(n), load("i64", 64, "u", at, 8 * n, MEMORY.ram));
      }
    });
  });
}

function clearInformation(f: Func): void {
  for (const at of [SVMC.length, SVMC.bytes]) setCell(f, at, 0);
  setCell64(f, SVMC.info1, 0);
  setCell64(f, SVMC.info2, 0);
}

function buildSvmExit(m: Module): void {
  m.func("svmExit", [], [], (f) => {
    const vmcb = Vmcb.current(f);
    setCell(f, V.abort, ABORT.none);
    f.call("svmContextNote");
    saveGuest(f, vmcb);
    vmcb.set("instructionLength", 0);
    const bytes = f.let(cell(SVMC.bytes).and(cell(V.vectoring).eqz()));
    saveInformation(f, vmcb);
    f.if(bytes, () => f.call("svmBytes"));
    clearInformation(f);
    f.call("svmLoadHost");
  });
  // svmInvalid(): VMEXIT_INVALID, nothing of the guest was loaded.
  m.func("svmInvalid", [], [], (f) => {
    const vmcb = Vmcb.current(f);
    vmcb.set("exitCode", i64(-1));
    for (const name of ["exitInfo1", "exitInfo2", "exitIntInfo", "nextRip"]) vmcb.set(name, i64(0));
    f.call("svmLoadHost");
  });
}

export function buildExit(m: Module): void {
  buildBytes(m);
  buildLoadHost(m);
  buildSvmExit(m);
}
