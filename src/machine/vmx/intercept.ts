/**
 * What makes a guest leave (SDM 3 chapter 25): tests of the VM-execution controls.
 *
 * `intercept(kind, qualification)` is called by instructions in VMX non-root operation, after the
 * faults that come first; kinds are INTERCEPT's numbers. V.record and V.length name the instruction.
 * It sets V.abort to ABORT.exit if the controls ask for an exit. The qualification is what the
 * manual puts into the VMCS (SDM 3 27.2.1) where it has one:
 *
 * | kind | qualification |
 * |---|---|
 * | cr | table 27-3: bits 3:0 register, 5:4 access (0 MOV to, 1 MOV from, 2 CLTS, 3 LMSW), 6 memory operand of LMSW, 11:8 general register, 31:16 LMSW source |
 * | dr | table 27-4: bits 2:0 register, 4 direction (1 = MOV from), 11:8 general register |
 * | io | table 27-5: bits 2:0 size - 1, 3 IN, 4 string, 5 REP, 6 immediate port, 31:16 port |
 * | msr | 0 RDMSR, 1 WRMSR; the number is in ECX |
 * | rdtsc | 0 RDTSC, 1 RDTSCP |
 * | descriptor-table | 0 SGDT, 1 SIDT, 2 LGDT, 3 LIDT, 4 SLDT, 5 STR, 6 LLDT, 7 LTR |
 * | invlpg | the linear address |
 * | mwait | 1 if monitoring is armed |
 * | task-switch | table 27-2: bits 15:0 selector, 31:30 source |
 * | xsaves | 0 XSAVES, 1 XRSTORS |
 * | absent | ABSENT's number: before all else, whether the instruction is there at all |
 *
 * `vectoringExit(what)` is the hook of event delivery: 0 before an event, 1 for a triple fault.
 */
import { DR6, RFLAGS } from "../../abi/x86/cr.ts";
import { EVENT_TYPE, VECTOR } from "../../abi/x86/vectors.ts";
import { EXIT_REASON, PIN, PRIMARY, SECONDARY } from "../../abi/x86/vmx.ts";
import { ABSENT, INTERCEPT, type InterceptKind } from "../system/intercepts.ts";
import { check } from "../checks.ts";
import {
  ABORT,
  CPU,
  gpr,
  INTERRUPTIBILITY,
  IRET_NMI,
  PREFIX,
  REC,
  SEGMENT_SIZE,
  V,
} from "../state.ts";
import { cell, cell64, MEMORY, noteFault, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load, type Operand } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { secondaryOf } from "./checks_controls.ts";
import { VmcsRegion, VMXC } from "./layout.ts";
import { is64 } from "../mode.ts";

const ES = CPU["es.base"];

const CHECK = {
  disabled: check(
    "vmx.disabled",
    "the guest's control that enables this instruction is 0",
    "SDM 3 25.3",
  ),
};

/** `vmxLeave(reason, qualification)`: a VM exit is to be made when the instruction is given up. */
function buildLeave(m: Module): void {
  m.func("vmxLeave", ["i32", "i64"], [], (f, reason, qualification) => {
    setCell(f, V.abort, ABORT.exit);
    setCell(f, V.exitReason, reason);
    setCell64(f, V.exitQualification, qualification);
    setCell(f, V.exitInstructionLength, cell(V.length));
    setCell(f, V.check, 0);
  });
}

const leave = (f: Func, reason: number, qualification: Operand = i64(0)) =>
  f.call("vmxLeave", i32(reason), qualification);

// --- VM-exit instruction information (27.2.5) ---

/** Which parts the information of an instruction has. */
export const INFORMATION = {
  /** Memory operand, operand size in bit 11, instruction in 29:28 (LGDT and kin). */
  table: 1,
  /** Memory or register operand, instruction in 29:28 (LLDT and kin). */
  selector: 2,
  /** Memory operand alone (VMCLEAR, VMPTRLD, VMPTRST, VMXON). */
  memory: 3,
  /** Memory or register operand, and a register in 31:28 (VMREAD, VMWRITE, INVEPT, INVVPID, INVPCID). */
  two: 4,
  /** Address size and segment (INS, OUTS). */
  string: 5,
  /** Destination register and operand size (RDRAND, RDSEED). */
  random: 6,
} as const;

/** Number of the general register at an address in memory 0. */
const registerNumber = (place: Expr): Expr => place.sub(gpr(0)).shrU(3).and(15);

function buildInformation(m: Module): void {
  // vmxInformation(form, instruction): from the predecoded record.
  m.func("vmxInformation", ["i32", "i32"], [], (f, form, instruction) => {
    const rec = f.let(cell(V.record));
    const field = (at: number) => load("i32", 16, "u", rec, at);
    const prefixes = f.let(field(REC.prefixes));
    const info = f.let(i32(0));
    const add = (value: Expr) => f.set(info, info.or(value));
    const address = i32(2).when(
      prefixes.and(PREFIX.address64),
      i32(0).when(prefixes.and(PREFIX.address16), i32(1)),
    );
    const memory = f.let(prefixes.and(PREFIX.memory));
    const first = registerNumber(field(REC.a)), second = registerNumber(field(REC.b));
    f.if(form.eq(INFORMATION.random), () => {
      const size = i32(2).when(
        prefixes.and(PREFIX.operand64),
        i32(0).when(prefixes.and(PREFIX.operand16), i32(1)),
      );
      setCell(f, V.exitInstructionInfo, first.shl(3).or(size.shl(11)));
      f.return();
    });
    const segment = field(REC.segment).sub(ES).divU(SEGMENT_SIZE).and(7);
    add(address.shl(7).or(segment.shl(15)));
    f.if(form.eq(INFORMATION.string), () => {
      setCell(f, V.exitInstructionInfo, info);
      f.return();
    });
    f.if(memory, () => {
      add(load("i32", 8, "u", rec, REC.scale));
      const part = (at: number, shift: number, invalid: number) => {
        const place = f.let(field(at));
        f.if(place.eq(V.zero), () => add(i32(1 << invalid)), () => {
          add(registerNumber(place).shl(shift));
        });
      };
      part(REC.index, 18, 22);
      part(REC.base, 23, 27);
      f.if(form.eq(INFORMATION.two), () => add(first.shl(28)));
    }, () => {
      f.set(info, i32(1 << 10).or(first.shl(3)));
      f.if(form.eq(INFORMATION.two), () => add(second.shl(28)));
    });
    f.if(form.eq(INFORMATION.table), () => {
      add(prefixes.and(PREFIX.operand16).eqz().shl(11).or(instruction.shl(28)));
    });
    f.if(form.eq(INFORMATION.selector), () => add(instruction.shl(28)));
    setCell(f, V.exitInstructionInfo, info);
  });
  // vmxInstruction(reason, form): the unconditional exits of the VMX instructions.
  m.func("vmxInstruction", ["i32", "i32"], [], (f, reason, form) => {
    f.call("vmxLeave", reason, load("i64", 32, "s", cell(V.record), REC.displacement));
    f.if(form, () => f.call("vmxInformation", form, i32(0)));
  });
}

// --- kinds of intercept ---

const primary = (vmcs: VmcsRegion) => vmcs.low("processorBasedControls");

/** Leaves if a bit of the primary controls is set. */
function onPrimary(bit: number, reason: number) {
  return (f: Func, vmcs: VmcsRegion, qualification: Local) =>
    f.if(primary(vmcs).and(bit), () => leave(f, reason, qualification));
}
function onSecondary(bit: number, reason: number, form = 0) {
  return (f: Func, vmcs: VmcsRegion) =>
    f.if(secondaryOf(vmcs).and(bit), () => {
      leave(f, reason);
      if (form) f.call("vmxInformation", i32(form), i32(0));
    });
}
function always(reason: number) {
  return (f: Func, _vmcs: VmcsRegion, qualification: Local) => leave(f, reason, qualification);
}
const never = () => {};

const virtualTpr = (vmcs: VmcsRegion): Expr => vmcs.low("virtualApicAddress").add(0x80);

/** MOV to CR8 under a TPR shadow writes the virtual TPR (29.3); below the threshold the guest leaves. */
function shadowTpr(f: Func, vmcs: VmcsRegion, qualification: Local): void {
  f.if(primary(vmcs).and(PRIMARY.tprShadow).eqz(), () => f.return());
  f.if(vmcs.get("virtualApicAddress").geU(cell64(V.ramSize)), () => f.return());
  const value = sourceOf(f, qualification);
  // The instruction itself refuses what is above 15.
  f.if(value.gtU(15), () => f.return());
  const page = f.let(virtualTpr(vmcs));
  f.call("physicalStore8", page.zext(), value.wrap().shl(4));
  setCell(f, VMXC.tprDue, value.wrap().ltU(vmcs.low("tprThreshold").and(15)));
}

/** The value a MOV to a control register brings. */
function sourceOf(f: Func, qualification: Local): Local {
  const place = qualification.shrU(8).wrap().and(15).shl(3);
  const value = load("i64", 64, "u", place, gpr(0));
  return f.let(value.when(is64(), value.and(0xffff_ffffn)));
}

/** MOV to CR0 or CR4: an exit if a bit the host owns would differ from the shadow (25.1.3). */
function movToMasked(f: Func, vmcs: VmcsRegion, n: 0 | 4, qualification: Local): void {
  const value = sourceOf(f, qualification);
  const differs = value.xor(vmcs.get(`cr${n}ReadShadow`)).and(vmcs.get(`cr${n}Mask`));
  f.if(differs.nez(), () => leave(f, EXIT_REASON.cr, qualification));
}

function cr3Load(f: Func, vmcs: VmcsRegion, qualification: Local): void {
  f.if(primary(vmcs).and(PRIMARY.cr3Load).eqz(), () => f.return());
  const value = sourceOf(f, qualification), count = f.let(vmcs.low("cr3TargetCount"));
  for (let n = 0; n < 4; n++) {
    f.if(count.gtU(n).and(value.eq(vmcs.get(`cr3Target${n}`))), () => f.return());
  }
  leave(f, EXIT_REASON.cr, qualification);
}

function controlRegister(f: Func, vmcs: VmcsRegion, qualification: Local): void {
  const access = f.let(qualification.shrU(4).wrap().and(3));
  const n = f.let(qualification.wrap().and(15));
  const mask = f.let(vmcs.low("cr0Mask")), shadow = f.let(vmcs.low("cr0ReadShadow"));
  const exit = (bit: number) =>
    f.if(primary(vmcs).and(bit), () => leave(f, EXIT_REASON.cr, qualification));
  f.switch(access, [
    () => {
      f.if(n.eqz(), () => movToMasked(f, vmcs, 0, qualification));
      f.if(n.eq(4), () => movToMasked(f, vmcs, 4, qualification));
      f.if(n.eq(8), () => {
        f.if(primary(vmcs).and(PRIMARY.cr8Load), () => {
          leave(f, EXIT_REASON.cr, qualification);
          f.return();
        });
        shadowTpr(f, vmcs, qualification);
      });
      f.if(n.eq(3), () => cr3Load(f, vmcs, qualification));
    },
    () => {
      f.if(n.eq(3), () => exit(PRIMARY.cr3Store));
      f.if(n.eq(8), () => exit(PRIMARY.cr8Store));
    },
    // CLTS: the host owns TS and shows it as 1.
    () => f.if(mask.and(shadow).and(8), () => leave(f, EXIT_REASON.cr, qualification)),
    () => {
      // LMSW cannot clear PE: that bit counts only where it would be set.
      const source = f.let(qualification.shrU(16).wrap().and(0xffff));
      const pe = source.and(shadow.not()).and(1);
      const rest = source.xor(shadow).and(0xe);
      f.if(mask.and(pe.or(rest)), () => {
        leave(f, EXIT_REASON.cr, qualification);
        f.if(qualification.and(0x40).nez(), () => {
          setCell64(f, V.exitGuestLinear, f.call("vmxOperandLinear"));
        });
      });
    },
  ], () => {});
}

/** A bit of a bitmap in machine memory: 1 where there is no memory. */
function bitmapBit(f: Func, page: Expr, bit: Expr): Local {
  const at = f.let(page), set = f.let(i32(1));
  f.if(at.ltU(cell64(V.ramSize)), () => {
    const byte = load("i32", 8, "u", at.wrap().add(bit.shrU(3)), 0, MEMORY.ram);
    f.set(set, byte.shrU(bit.and(7)).and(1));
  });
  return set;
}

function inputOutput(f: Func, vmcs: VmcsRegion, qualification: Local): void {
  const controls = f.let(primary(vmcs));
  const port = f.let(qualification.shrU(16).wrap().and(0xffff));
  const last = f.let(port.add(qualification.wrap().and(7)));
  const exit = f.local("i32");
  f.if(controls.and(PRIMARY.ioBitmaps), () => {
    // An access around the end of the port space leaves always (25.1.3).
    f.set(exit, last.gtU(0xffff));
    const i = f.let(port);
    f.while(() => i.leU(last).and(exit.eqz()), () => {
      const high = i.shrU(15).and(1);
      const page = vmcs.get("ioBitmapB").when(high, vmcs.get("ioBitmapA"));
      f.set(exit, bitmapBit(f, page, i.and(0x7fff)));
      f.set(i, i.add(1));
    });
  }, () => f.set(exit, controls.and(PRIMARY.unconditionalIo)));
  f.if(exit.eqz(), () => f.return());
  leave(f, EXIT_REASON.io, qualification);
  f.if(qualification.and(0x10).nez(), () => {
    f.call("vmxInformation", i32(INFORMATION.string), i32(0));
    setCell64(f, V.exitGuestLinear, f.call("vmxStringLinear", qualification.wrap().and(8)));
  });
}

function buildLinears(m: Module): void {
  // vmxStringLinear(is INS): where a string I/O instruction reads or writes memory.
  m.func("vmxStringLinear", ["i32"], ["i64"], (f, input) => {
    const rec = f.let(cell(V.record));
    const prefixes = f.let(load("i32", 16, "u", rec, REC.prefixes));
    const mask = i64(-1).when(
      prefixes.and(PREFIX.address64),
      i64(0xffff).when(prefixes.and(PREFIX.address16), i64(0xffff_ffffn)),
    );
    const offset = f.let(cell64(CPU.rdi).when(input, cell64(CPU.rsi)).and(mask));
    const place = f.let(i32(ES).when(input, load("i32", 16, "u", rec, REC.segment)));
    const linear = f.let(load("i64", 64, "u", place).add(offset));
    f.if(is64(), () => {
      f.if(place.ltU(CPU["fs.base"]), () => f.return(offset));
      f.return(linear);
    });
    f.result(linear.and(0xffff_ffffn));
  });
  // Linear address of the running instruction's memory operand, unchecked.
  m.func("vmxOperandLinear", [], ["i64"], (f) => {
    const rec = f.let(cell(V.record));
    const field = (at: number) => load("i32", 16, "u", rec, at);
    const sum = load("i64", 64, "u", field(REC.base))
      .add(load("i64", 64, "u", field(REC.index)).shl(load("i64", 8, "u", rec, REC.scale)))
      .add(load("i64", 32, "s", rec, REC.displacement));
    const offset = f.let(sum), prefixes = f.let(field(REC.prefixes));
    f.if(prefixes.and(PREFIX.address16), () => f.set(offset, offset.and(0xffff)));
    const place = f.let(field(REC.segment));
    const linear = f.let(load("i64", 64, "u", place).add(offset));
    f.if(is64(), () => f.return(linear));
    f.result(linear.and(0xffff_ffffn));
  });
}

function msr(f: Func, vmcs: VmcsRegion, write: Local): void {
  const exit = f.let(i32(1));
  f.if(primary(vmcs).and(PRIMARY.msrBitmaps), () => {
    const index = f.let(cell(CPU.rcx));
    const low = index.leU(0x1fff), high = index.sub(0xc000_0000 | 0).leU(0x1fff);
    f.if(low.or(high), () => {
      const quarter = high.shl(13).or(write.wrap().and(1).shl(14));
      f.set(exit, bitmapBit(f, vmcs.get("msrBitmap"), quarter.add(index.and(0x1fff))));
    });
  });
  f.if(exit, () => {
    f.call("vmxLeave", i32(EXIT_REASON.rdmsr).add(write.wrap().and(1)), i64(0));
  });
}

function descriptorTable(f: Func, vmcs: VmcsRegion, instruction: Local): void {
  f.if(secondaryOf(vmcs).and(SECONDARY.descriptorTable), () => {
    const displacement = load("i64", 32, "s", cell(V.record), REC.displacement);
    const selector = instruction.shrU(2).wrap().and(1);
    f.call("vmxLeave", i32(EXIT_REASON.gdtrIdtr).add(selector), displacement);
    const form = i32(INFORMATION.selector).when(selector, i32(INFORMATION.table));
    f.call("vmxInformation", form, instruction.wrap().and(3));
  });
}

/** Without its "enable" control an instruction does not exist in a guest: #UD (25.3). */
const ENABLES = {
  rdtscp: SECONDARY.rdtscp,
  invpcid: SECONDARY.invpcid,
  xsaves: SECONDARY.xsaves,
} as const;

function absent(f: Func, vmcs: VmcsRegion, instruction: Local): void {
  const control = Object.entries(ENABLES).reduce<Expr>(
    (rest, [name, bit]) =>
      i32(bit).when(instruction.eq(BigInt(ABSENT[name as keyof typeof ENABLES])), rest),
    i32(0),
  );
  f.if(secondaryOf(vmcs).and(control).eqz(), () => {
    noteFault(f, VECTOR.UD, undefined, CHECK.disabled);
  });
}

function timeStamp(f: Func, vmcs: VmcsRegion, rdtscp: Local): void {
  f.if(primary(vmcs).and(PRIMARY.rdtsc), () => {
    const reason = i32(EXIT_REASON.rdtscp).when(rdtscp.nez(), i32(EXIT_REASON.rdtsc));
    f.call("vmxLeave", reason, i64(0));
  });
}

function invalidatePcid(f: Func, vmcs: VmcsRegion): void {
  // It exits with INVLPG.
  f.if(primary(vmcs).and(PRIMARY.invlpg), () => {
    f.call(
      "vmxLeave",
      i32(EXIT_REASON.invpcid),
      load("i64", 32, "s", cell(V.record), REC.displacement),
    );
    f.call("vmxInformation", i32(INFORMATION.two), i32(0));
  });
}

/** XSAVES (0) and XRSTORS (1) leave for a component in EDX:EAX, IA32_XSS and the exiting bitmap. */
function supervisorSave(f: Func, vmcs: VmcsRegion, restores: Local): void {
  const asked = cell(CPU.rdx).zext().shl(32).or(cell(CPU.rax).zext());
  const exits = asked.and(cell64(CPU.xss)).and(vmcs.get("xssExitingBitmap")).nez();
  f.if(exits, () => {
    f.call("vmxLeave", i32(EXIT_REASON.xsaves).add(restores.wrap()), i64(0));
  });
}

/** IRET: the blocking of NMIs is the guest's own without "NMI exiting" or with "virtual NMIs" (25.3). */
function beginReturn(f: Func, vmcs: VmcsRegion): void {
  const pin = f.let(vmcs.low("pinBasedControls"));
  const own = pin.and(PIN.nmi).eqz().or(pin.and(PIN.virtualNmis).nez());
  setCell(f, V.iret, i32(IRET_NMI.unblocks).when(own, i32(IRET_NMI.keeps)));
}

type Handler = (f: Func, vmcs: VmcsRegion, qualification: Local) => void;

const handlers: Record<InterceptKind, Handler> = {
  cr: controlRegister,
  dr: onPrimary(PRIMARY.movDr, EXIT_REASON.dr),
  io: inputOutput,
  msr,
  cpuid: always(EXIT_REASON.cpuid),
  hlt: onPrimary(PRIMARY.hlt, EXIT_REASON.hlt),
  invlpg: onPrimary(PRIMARY.invlpg, EXIT_REASON.invlpg),
  rdtsc: timeStamp,
  rdpmc: onPrimary(PRIMARY.rdpmc, EXIT_REASON.rdpmc),
  pause: onPrimary(PRIMARY.pause, EXIT_REASON.pause),
  mwait: onPrimary(PRIMARY.mwait, EXIT_REASON.mwait),
  monitor: onPrimary(PRIMARY.monitor, EXIT_REASON.monitor),
  "descriptor-table": descriptorTable,
  wbinvd: onSecondary(SECONDARY.wbinvd, EXIT_REASON.wbinvd),
  invd: always(EXIT_REASON.invd),
  xsetbv: always(EXIT_REASON.xsetbv),
  hypercall: always(EXIT_REASON.vmcall),
  "task-switch": always(EXIT_REASON.taskSwitch),
  rdrand: onSecondary(SECONDARY.rdrand, EXIT_REASON.rdrand, INFORMATION.random),
  rdseed: onSecondary(SECONDARY.rdseed, EXIT_REASON.rdseed, INFORMATION.random),
  invpcid: invalidatePcid,
  // The VMX instructions call vmxInstruction themselves; the rest has no control in VMX.
  vmx: never,
  svm: never,
  rsm: never,
  iret: beginReturn,
  pushf: never,
  popf: never,
  int: never,
  icebp: never,
  xsaves: supervisorSave,
  // CR0.NE is fixed to 1: #MF.
  "coprocessor-error": never,
  absent,
};

function buildIntercept(m: Module): void {
  const kinds = Object.entries(INTERCEPT).sort((a, b) => a[1] - b[1]);
  m.func("intercept", ["i32", "i64"], [], (f, kind, qualification) => {
    // The hypervisor has the processor execute this one instruction for the guest, if there is one.
    f.if(cell(V.emulating).and(kind.ne(INTERCEPT.absent)), () => f.return());
    const vmcs = VmcsRegion.current(f);
    const cases = kinds.map(([name]) => () =>
      handlers[name as InterceptKind](f, vmcs, qualification)
    );
    f.switch(kind, cases, () => {});
  });
}

/** Values of CR0 and CR4 as a guest sees and sets them (25.3). */
function buildMasks(m: Module): void {
  const masked = (f: Func, n: Local, use: (mask: Expr, shadow: Expr) => void) => {
    const vmcs = VmcsRegion.current(f);
    f.if(n.eqz(), () => use(vmcs.get("cr0Mask"), vmcs.get("cr0ReadShadow")));
    f.if(n.eq(4), () => use(vmcs.get("cr4Mask"), vmcs.get("cr4ReadShadow")));
  };
  // crShadow(n, value): what MOV from CRn and SMSW read.
  m.func("crShadow", ["i32", "i64"], ["i64"], (f, n, value) => {
    f.if(cell(V.nonRoot), () => {
      masked(f, n, (mask, shadow) => {
        f.set(value, value.and(mask.not()).or(shadow.and(mask)));
      });
      const vmcs = VmcsRegion.current(f);
      f.if(n.eq(8).and(primary(vmcs).and(PRIMARY.tprShadow).nez()), () => {
        f.if(vmcs.get("virtualApicAddress").ltU(cell64(V.ramSize)), () => {
          f.set(value, load("i64", 8, "u", virtualTpr(vmcs), 0, MEMORY.ram).shrU(4));
        });
      });
    });
    f.result(value);
  });
  // crMasked(n, old, value): what MOV to CRn, CLTS and LMSW write; the host's bits stay.
  m.func("crMasked", ["i32", "i64", "i64"], ["i64"], (f, n, old, value) => {
    f.if(cell(V.nonRoot), () => {
      masked(f, n, (mask) => f.set(value, value.and(mask.not()).or(old.and(mask))));
    });
    f.result(value);
  });
}

// --- events ---

/** Vectors whose hardware exception is a fault: the saved RFLAGS have RF set. */
const FAULTS = 0xb_7ce1;

function exceptionExits(f: Func, vmcs: VmcsRegion, vector: Local, exit: Local): void {
  f.set(exit, vmcs.low("exceptionBitmap").shrU(vector).and(1));
  f.if(vector.eq(VECTOR.PF), () => {
    const code = cell(V.errorCode).and(vmcs.low("pageFaultErrorCodeMask"));
    f.set(exit, exit.xor(code.ne(vmcs.low("pageFaultErrorCodeMatch"))));
  });
}

function buildEvents(m: Module): void {
  // vmxUnblocked() -> 1 if an IRET that was given up has ended the blocking of NMIs.
  m.func("vmxUnblocked", [], ["i32"], (f) => {
    const unblocks = f.let(cell(V.iret).and(IRET_NMI.unblocks));
    setCell(f, V.iret, 0);
    f.if(
      unblocks.eqz().or(cell(CPU.interruptibility).and(INTERRUPTIBILITY.nmi).eqz()),
      () => f.return(i32(0)),
    );
    setCell(f, CPU.interruptibility, cell(CPU.interruptibility).and(~INTERRUPTIBILITY.nmi));
    f.result(i32(1));
  });
  m.func("vectoringExit", ["i32"], [], (f, what) => {
    f.if(what, () => {
      leave(f, EXIT_REASON.tripleFault);
      setCell(f, V.vectoring, 0);
      f.return();
    });
    // The event a VM entry injects is not intercepted.
    f.if(cell(VMXC.injecting), () => {
      setCell(f, VMXC.injecting, 0);
      f.return();
    });
    const vmcs = VmcsRegion.current(f);
    const vector = f.let(cell(V.vector)), type = f.let(cell(V.eventType));
    const exit = f.let(i32(0));
    f.if(type.eq(EVENT_TYPE.nmi), () => f.set(exit, vmcs.low("pinBasedControls").and(PIN.nmi)));
    f.if(
      type.eq(EVENT_TYPE.hardwareException).or(type.eq(EVENT_TYPE.privilegedSoftwareException)).or(
        type.eq(EVENT_TYPE.softwareException),
      ),
      () => exceptionExits(f, vmcs, vector, exit),
    );
    f.if(exit.eqz(), () => {
      f.call("vmxUnblocked");
      // A delivery is something the monitor trap flag stops after.
      setCell(f, VMXC.trapDue, primary(vmcs).and(PRIMARY.monitorTrapFlag));
      f.return();
    });
    const qualification = f.let(i64(0));
    const hardware = type.eq(EVENT_TYPE.hardwareException);
    f.if(hardware.and(vector.eq(VECTOR.PF)), () => f.set(qualification, cell64(V.faultAddress)));
    f.if(
      hardware.or(type.eq(EVENT_TYPE.privilegedSoftwareException)).and(vector.eq(VECTOR.DB)),
      () => {
        f.set(qualification, cell64(CPU.pendingDebug).and(DR6.causes));
        setCell64(f, CPU.pendingDebug, 0);
      },
    );
    f.if(hardware.and(i32(FAULTS).shrU(vector).and(1)), () => {
      setCell(f, CPU.rflags, cell(CPU.rflags).or(RFLAGS.RF));
    });
    const id = cell(V.check),
      info = vector.or(type.shl(8)).or(cell(V.hasError).and(cell(CPU.cr0)).shl(11));
    const noted = f.let(id);
    leave(f, EXIT_REASON.exception, qualification);
    setCell(f, V.check, noted);
    setCell(f, VMXC.event, info.or(0x8000_0000 | 0));
    setCell(f, VMXC.eventCode, cell(V.errorCode));
    // The event that leads to a double fault is not in the course of delivery any more.
    f.if(hardware.and(vector.eq(VECTOR.DF)), () => setCell(f, V.vectoring, 0));
  });
  // What a pending host interrupt does to a guest: 0 is delivered, 1 leaves, 2 is acknowledged first.
  m.func("interruptMode", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    f.if(vmcs.low("pinBasedControls").and(PIN.externalInterrupt).eqz(), () => f.return(i32(0)));
    f.result(vmcs.low("exitControls").shrU(15).and(1).add(1));
  });
  // interruptExit(vector): the VM exit of an external interrupt; -1 if it was not acknowledged.
  m.func("interruptExit", ["i32"], [], (f, vector) => {
    setCell(f, V.length, 0);
    leave(f, EXIT_REASON.externalInterrupt);
    f.if(vector.geS(0), () => setCell(f, VMXC.event, vector.or(0x8000_0000 | 0)));
  });
  // nmiExit() -> 1 if an NMI leaves the guest; V.abort is set then.
  m.func("nmiExit", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    f.if(vmcs.low("pinBasedControls").and(PIN.nmi).eqz(), () => f.return(i32(0)));
    setCell(f, V.length, 0);
    leave(f, EXIT_REASON.exception);
    setCell(f, VMXC.event, i32(0x8000_0202 | 0));
    f.result(1);
  });
}

/** To be built before event delivery and task switches, which call these if they are there. */
export function buildVmxHooks(m: Module): void {
  buildLeave(m);
  buildInformation(m);
  buildLinears(m);
  buildMasks(m);
  buildIntercept(m);
  buildEvents(m);
}
