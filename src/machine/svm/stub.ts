/**
 * What the assembly of a hypervisor does around VMRUN, for a root written in TypeScript: CLGI, STI,
 * general registers to and from a save area, RAX to and from the VMCB, VMRUN, and the reads that
 * every exit needs. They stand here because calls from TypeScript cost more than the instructions do.
 *
 * What hvm/svm calls (SystemFunctions of a processor of model "amd"):
 *
 * | function | does |
 * |---|---|
 * | `enterGuest(area, vmcb)` | registers from the save area (RAX too), CLGI, STI, VMRUN. 0: the guest runs; 1: #GP, V.check says why; 3: it left at once, as by `leaveGuest` |
 * | `leaveGuest(area)` | the #VMEXIT that is due, then registers to the save area (RAX too) and the stub |
 * | `readExit()` | the words of STUB (layout.ts) at SVMC.stub, of the VMCB that ran last |
 * | `advanceGuest(length)` | RIP past the instruction; interrupt shadow and RF end; a TF trap becomes due (CPU.pendingDebug) |
 * | `svmBoundary()` | a pending V_IRQ: 0 it waits, 1 the guest leaves by VINTR, 2 it was delivered |
 * | `interruptMode()` | a host interrupt is pending: 0 the guest does not leave for it, 1 it does, 2 it waits (GIF, or the host's IF, is clear) |
 * | `interruptExit(-1)` | makes the INTR exit due; nothing is acknowledged |
 * | `nmiExit()` | 1: the NMI intercept makes the guest leave; the NMI stays pending |
 * | `vmload(low, high)`, `vmsave(low, high)` | 0, or 1 for #GP |
 * | `invlpga(low, high, asid)`, `flushTlb()` | translations |
 *
 * The caller turns SVM on: EFER.SVME, VM_HSAVE_PA (CPU.vmHsave) and V.hostedRoot = 1. Under a
 * hosted root two parts of a guest's state that the VMCB has no field for stay in the processor at
 * VMRUN and #VMEXIT: CPU.pendingDebug and CPU.activity; CPU.interruptibility is the VMCB's shadow in
 * the guest and 0 outside.
 */
import { atBit } from "../mode.ts";
import { DEBUGCTL, DR6, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import { CPU } from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { i32, i64, load } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";
import { buildGprs, markDirty } from "../values.ts";
import { STATUS } from "./entry.ts";
import { STUB, SVMC, Vmcb } from "./layout.ts";

const { IF, TF, RF } = RFLAGS;

export function buildStub(m: Module): void {
  buildGprs(m);
  // readExit(): the fields of STUB; RAX goes to the save area by `svmLeft`.
  m.func("readExit", [], [], (f) => {
    const vmcb = Vmcb.current(f);
    setCell(f, SVMC.stub + STUB.code, vmcb.low("exitCode"));
    const next = f.let(vmcb.get("nextRip"));
    const length = next.sub(vmcb.get("rip")).wrap();
    setCell(f, SVMC.stub + STUB.length, length.when(next.nez(), i32(0)));
    setCell64(f, SVMC.stub + STUB.vectoring, vmcb.get("exitIntInfo"));
    setCell64(f, SVMC.stub + STUB.info1, vmcb.get("exitInfo1"));
    setCell64(f, SVMC.stub + STUB.info2, vmcb.get("exitInfo2"));
  });
  // svmLeft(area): behind VMRUN.
  m.func("svmLeft", ["i32"], [], (f, area) => {
    f.call("storeGprs", area);
    f.store(64, area, Vmcb.current(f).get("rax"), 0, MEMORY.ram);
    f.call("readExit");
  });
  // enterGuest(area, vmcb) -> STATUS of vmrun.
  m.func("enterGuest", ["i32", "i32"], ["i32"], (f, area, control) => {
    f.call("loadGprs", area);
    new Vmcb(f, control).set("rax", load("i64", 64, "u", area, 0, MEMORY.ram));
    // VMRUN's operand (APM 3, VMRUN): what is saved of the host is nothing of a guest's.
    setCell64(f, CPU.rax, control.zext());
    setCell(f, CPU.gif, 0);
    setCell64(f, CPU.rflags, IF | RFLAGS.fixed);
    setCell(f, CPU.flagOp, 0);
    const status = f.call("vmrun", control, i32(0));
    f.if(status.eq(STATUS.left), () => f.call("svmLeft", area));
    f.result(status);
  });
  // leaveGuest(area): the #VMEXIT that is due, then the registers and the exit fields.
  m.func("leaveGuest", ["i32"], [], (f, area) => {
    f.call("svmExit");
    f.call("svmLeft", area);
  });
  buildAdvance(m);
}

/** `advanceGuest(length)`: past the instruction that left. */
function buildAdvance(m: Module): void {
  m.func("advanceGuest", ["i32"], [], (f, length) => {
    const vmcb = Vmcb.current(f);
    const now = f.let(vmcb.get("rip").add(length.zext()));
    const long = atBit(vmcb.low("efer"), EFER.LMA).and(vmcb.get("csAttributes").shrU(9)).and(1);
    // Outside 64-bit mode the instruction pointer has 32 bits.
    f.if(long.eqz(), () => f.set(now, now.and(0xffff_ffffn)));
    vmcb.set("rip", now);
    // Shadows and RF end with the instruction; a traced one leaves its trap.
    vmcb.set("interruptShadow", i64(0));
    const flags = f.let(vmcb.low("rflags"));
    vmcb.setLow("rflags", flags.and(~RF));
    const toBranch = atBit(cell(CPU.debugctl), DEBUGCTL.BTF).and(1);
    f.if(flags.and(TF).nez().and(toBranch.eqz()), () => {
      setCell64(f, CPU.pendingDebug, cell64(CPU.pendingDebug).or(DR6.BS));
    });
    markDirty(f, vmcb.base);
  });
}
