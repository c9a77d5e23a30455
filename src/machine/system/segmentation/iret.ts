/** IRET in every mode (SDM 2 IRET; SDM 3 6.12, 7.4, 20.3), and what INT does in virtual-8086 mode. */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, IRET_NMI, V } from "../../state.ts";
import { cell, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import {
  ATTRIBUTE,
  attributesOf,
  baseAt,
  callChecked,
  CS,
  DS,
  ES,
  failIf,
  FS,
  GS,
  isNull,
  leaveIfAborted,
  limitAt,
  LINK,
  selectorError,
  setFlags,
  setReal,
  setVirtual,
  SS,
  TR,
  wrapSystem,
} from "./descriptor.ts";
import { ARITHMETIC, CR4, RFLAGS } from "../../../abi/x86/cr.ts";
import { TASK_SOURCE } from "./tasks.ts";
import { iopl, is64, longMode, protectedMode, virtual8086 } from "../../mode.ts";

const CHECK = {
  limit: check(
    "far.limit",
    "far transfer: target {a} is outside the code segment with limit {b}",
    "SDM 2 JMP",
  ),
  iopl: check(
    "v86.iopl",
    "virtual-8086 mode: the instruction needs IOPL 3, it is {a}",
    "SDM 3 20.2.7",
  ),
  nested: check("iret.nested", "IRET with NT set in IA-32e mode", "SDM 2 IRET"),
  vip: check(
    "vme.vip",
    "the new flags {a} enable virtual interrupts while VIP is set",
    "SDM 3 20.3.3",
  ),
  tf: check("vme.tf", "the new flags {a} set TF with CR4.VME and IOPL below 3", "SDM 2 IRET, POPF"),
  backLink: check(
    "task.back",
    "IRET: the TSS's back link {a}, attributes {b} is not a busy TSS",
    "SDM 3 7.4",
  ),
  backPresent: check(
    "task.backPresent",
    "IRET: the task {a} to return to is not present",
    "SDM 3 7.4",
  ),
};

/** Flags every IRET and POPF may write. */
export const FLAGS_ALWAYS = ARITHMETIC | RFLAGS.TF | RFLAGS.DF | RFLAGS.NT;

/** Mask of the flags that a return at this privilege writes, by width. */
function flagMask(f: Func, bits: Expr): Local {
  const mask = f.let(i32(FLAGS_ALWAYS));
  f.if(bits.ne(16), () => f.set(mask, mask.or(RFLAGS.RF | RFLAGS.AC | RFLAGS.ID)));
  f.if(cell(V.cpl).leU(iopl()), () => f.set(mask, mask.or(RFLAGS.IF)));
  f.if(cell(V.cpl).eqz(), () => {
    f.set(mask, mask.or(RFLAGS.IOPL));
    f.if(bits.ne(16), () => f.set(mask, mask.or(RFLAGS.VIF | RFLAGS.VIP)));
  });
  return mask;
}

/** The three words on top of the stack: IP, CS, flags. */
function readFrame(f: Func, bits: Local): { ip: Local; selector: Local; flags: Local } {
  const ip = f.local("i64"), selector = f.local("i32"), flags = f.local("i32");
  for (const width of [16, 32, 64] as const) {
    f.if(bits.eq(width), () => {
      // Processors read from the top down: a fault names the address.
      f.set(flags, callChecked(f, `stackLoad${width}`, i32(width / 4)).wrap());
      f.set(selector, callChecked(f, `stackSelector${width}`, i32(width / 8)));
      f.set(ip, callChecked(f, `stackLoad${width}`, i32(0)).zext());
    });
  }
  return { ip, selector, flags };
}

function buildReal(m: Module): void {
  // Real mode, and virtual-8086 mode with IOPL 3.
  m.func("iretReal", ["i32"], [], (f, bits) => {
    const { ip, selector, flags } = readFrame(f, bits);
    const limit = f.let(limitAt(CS));
    failIf(f, ip.gtU(limit.zext()), VECTOR.GP, 0, CHECK.limit, ip, limit);
    f.call("addToStack", bits.shrU(3).mul(3));
    const mask = f.let(i32(FLAGS_ALWAYS | RFLAGS.IF));
    f.if(bits.ne(16), () => f.set(mask, mask.or(RFLAGS.RF | RFLAGS.AC | RFLAGS.ID)));
    f.if(virtual8086().eqz(), () => f.set(mask, mask.or(RFLAGS.IOPL)));
    setReal(f, CS, selector);
    setCell64(f, CPU.rip, ip);
    setFlags(f, mask, flags);
  });
  // Virtual-8086 mode with VME, IOPL below 3 and a 16-bit operand: IF goes to VIF.
  m.func("iretVme", [], [], (f) => {
    const { ip, selector, flags } = readFrame(f, f.let(i32(16)));
    const pending = flags.and(RFLAGS.IF).nez().and(cell(CPU.rflags).and(RFLAGS.VIP).nez());
    failIf(f, pending, VECTOR.GP, 0, CHECK.vip, flags);
    failIf(f, flags.and(RFLAGS.TF).nez(), VECTOR.GP, 0, CHECK.tf, flags);
    const limit = f.let(limitAt(CS));
    failIf(f, ip.gtU(limit.zext()), VECTOR.GP, 0, CHECK.limit, ip, limit);
    f.call("addToStack", i32(6));
    setReal(f, CS, selector);
    setCell64(f, CPU.rip, ip);
    setFlags(f, FLAGS_ALWAYS | RFLAGS.VIF, flags.or(flags.and(RFLAGS.IF).shl(10)));
  });
}

function buildToVirtual(m: Module): void {
  // From privilege 0 to virtual-8086 mode: nine doublewords.
  m.func("iretToVirtual", ["i64", "i32", "i32"], [], (f, ip, selector, flags) => {
    const limit = i32(0xffff);
    failIf(f, ip.gtU(0xffff), VECTOR.GP, 0, CHECK.limit, ip, limit);
    const stack = callChecked(f, "stackLoad32", i32(12));
    const word = (at: number) => callChecked(f, "stackSelector32", i32(at));
    const values = [SS, ES, DS, FS, GS].map((place, i) => ({ place, value: word(16 + 4 * i) }));
    setVirtual(f, CS, selector);
    for (const { place, value } of values) setVirtual(f, place, value);
    setCell64(f, CPU.rsp, stack.zext());
    setCell64(f, CPU.rip, ip);
    setCell(f, CPU.rflags, flags.and(0x3f_7fd5).or(RFLAGS.fixed));
  });
}

/** NT is set: return to the task that the back link names (SDM 3 7.4). */
function buildTaskReturn(m: Module): void {
  m.func("iretTask", ["i64"], [], (f, back) => {
    const linear = wrapSystem(baseAt(TR));
    const selector = callChecked(f, "ld16", linear, cell(V.accessSystem));
    const code = f.let(selectorError(selector));
    const local = selector.and(4).nez().or(isNull(selector));
    failIf(f, local, VECTOR.TS, code, CHECK.backLink, selector);
    const raw = callChecked(f, "descriptorOf", selector, i32(VECTOR.TS));
    const attributes = f.let(attributesOf(raw));
    const busy = attributes.and(0x17).eq(3);
    failIf(f, busy.eqz(), VECTOR.TS, code, CHECK.backLink, selector, attributes);
    const absent = attributes.and(ATTRIBUTE.present).eqz();
    failIf(f, absent, VECTOR.NP, code, CHECK.backPresent, selector);
    f.call("switchTask", selector, raw, cell(CPU.rflags), back, i32(TASK_SOURCE.iret));
  });
}

/**
 * `interruptReturn(bits, next)`: IRET of that operand size; `next` is the address behind it, saved by
 * a return to another task. With LINK.taskSwitched set, V.abort is a fault of the new task.
 */
export function buildIret(m: Module): void {
  buildReal(m);
  buildToVirtual(m);
  buildTaskReturn(m);
  m.func("interruptReturn", ["i32", "i64"], [], (f, bits, next) => {
    setCell(f, LINK.taskSwitched, 0);
    f.call("materialize");
    const unblock = () => {
      const ends = i32(~8).when(cell(V.iret).and(IRET_NMI.keeps).eqz(), i32(-1));
      setCell(f, CPU.interruptibility, cell(CPU.interruptibility).and(ends));
      setCell(f, V.iret, 0);
    };
    f.if(protectedMode().eqz(), () => {
      f.call("iretReal", bits);
      leaveIfAborted(f);
      unblock();
      f.return();
    });
    f.if(virtual8086(), () => {
      f.if(iopl().eq(3), () => f.call("iretReal", bits), () => {
        const vme = cell(CPU.cr4).and(CR4.VME).nez().and(bits.eq(16));
        failIf(f, vme.eqz(), VECTOR.GP, 0, CHECK.iopl, iopl());
        f.call("iretVme");
      });
      leaveIfAborted(f);
      unblock();
      f.return();
    });
    f.if(cell(CPU.rflags).and(RFLAGS.NT), () => {
      failIf(f, longMode(), VECTOR.GP, 0, CHECK.nested);
      f.call("iretTask", next);
      f.if(cell(LINK.taskSwitched), unblock);
      f.return();
    });
    const { ip, selector, flags } = readFrame(f, bits);
    const mask = flagMask(f, bits);
    const toVirtual = flags.and(RFLAGS.VM).nez().and(cell(V.cpl).eqz()).and(bits.eq(32)).and(
      longMode().eqz(),
    );
    f.if(toVirtual, () => f.call("iretToVirtual", ip, selector, flags), () => {
      const skip = bits.shrU(3).mul(3);
      f.call("returnFar", selector, ip, bits, skip, i32(0), f.let(is64()));
      leaveIfAborted(f);
      setFlags(f, mask, flags);
    });
    leaveIfAborted(f);
    unblock();
  });
}

/**
 * `virtualInterrupt(vector, return IP) -> 1` if an INT n of virtual-8086 mode was redirected to the
 * task's own interrupt table (SDM 3 20.3.3); 0 if it goes through the IDT. V.abort as usual.
 */
export function buildVirtualInterrupt(m: Module): void {
  m.func("virtualInterrupt", ["i32", "i64"], ["i32"], (f, vector, next) => {
    const limit = f.let(limitAt(TR));
    const map = callChecked(f, "ld16", wrapSystem(baseAt(TR).add(0x66)), cell(V.accessSystem));
    // The redirection bitmap is the 32 bytes below the I/O map. Beyond the limit: not redirected.
    const at = f.let(map.sub(32).add(vector.shrU(3)));
    f.if(map.ltU(32).or(at.gtU(limit)).or(limit.ltU(0x67)), () => f.return(i32(0)));
    const linear = wrapSystem(baseAt(TR).add(at.zext()));
    const byte = callChecked(f, "ld8", linear, cell(V.accessSystem));
    f.if(byte.shrU(vector.and(7)).and(1), () => f.return(i32(0)));
    const entry = callChecked(f, "ld32", vector.shl(2).zext(), cell(V.access));
    f.call("materialize");
    const old = f.let(cell(CPU.rflags)), low = f.let(iopl().ltU(3));
    // With IOPL below 3 the image has VIF for IF and says IOPL 3.
    const image = f.let(
      old.and(~RFLAGS.IF).or(old.shrU(10).and(RFLAGS.IF)).or(RFLAGS.IOPL).when(low, old),
    );
    callChecked(f, "enterReal", entry, image, next);
    f.if(low, () => {
      setFlags(f, RFLAGS.IF | RFLAGS.VIF, old.and(RFLAGS.IF));
    });
    // RF and AC stay as they were; enterReal is real mode's.
    setFlags(f, RFLAGS.AC, old);
    f.result(i32(1));
  });
}
