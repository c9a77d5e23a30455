/**
 * Meanings of the x87 instructions. A handler checks, reads or writes memory, notes the pointers,
 * and calls the function that does the work (x87_operations.ts, x87_environment.ts).
 */
import { FCW, FSW } from "../../../abi/x86/float.ts";
import { buildFloat } from "../../float/index.ts";
import { F } from "../../float/cells.ts";
import { C1, OP } from "../../float/extended.ts";
import { ACCESS, CPU } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { coprocessorQuiet } from "../../system/exceptions/coprocessor.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Local, Module } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { buildPartAt, partAccess } from "./parts.ts";
import { buildX87Environment } from "./x87_environment.ts";
import { buildX87Operations, MEMORY, notStored } from "./x87_operations.ts";
import { buildX87State, setTop, tagEmpty, top } from "./x87_state.ts";
import { buildX87Transcendental } from "./x87_transcendental.ts";
import { ARITHMETIC } from "../../../abi/x86/cr.ts";

/** Notes FIP and the memory operand's address; from here on state changes. */
function enter(m: Meaning): void {
  m.commit();
  if (m.form.operands[0] !== "M") m.f.call("x87Pointers", m.x87Opcode, m.ip);
  else m.f.call("x87MemoryPointers", m.x87Opcode, m.ip, m.segmentOffset(), m.segment);
}

const begin = (m: Meaning) => m.callChecked("x87Begin");

/** A waiting instruction without a memory operand. */
const plain = (work: Semantics): Semantics => (m) => {
  begin(m);
  enter(m);
  work(m);
};
const call = (name: string, ...args: number[]): Semantics =>
  plain((m) => void m.f.call(name, ...args));

type Number = "real" | "integer" | "decimal";

/** Number of a memory operand's format, from its width. */
function memoryKind(m: Meaning, number: Number): number {
  const bits = m.form.sizes[0];
  const kinds: Record<Number, Record<number, number>> = {
    real: { 32: MEMORY.single, 64: MEMORY.double, 80: MEMORY.extended },
    integer: { 16: MEMORY.word, 32: MEMORY.long, 64: MEMORY.quad },
    decimal: { 80: MEMORY.decimal },
  };
  const kind = kinds[number][bits];
  if (kind === undefined) throw new Error(`${m.form.key}: no ${number} operand of ${bits} bits`);
  return kind;
}

const accessOf = (write: boolean): Expr => partAccess().or(write ? ACCESS.write : 0);

/**
 * Address of a structure of `bytes` whose elements have `element` bytes, after a look at the first
 * element; alignment is that of an element.
 */
function firstElement(m: Meaning, write: boolean, bytes: number, element: number): Local {
  const linear = m.addressOf(0, element, write);
  m.callChecked("x87Probe", linear, accessOf(write), element);
  m.addressOf(0, bytes, write);
  return linear;
}
/** The same after a look at the last byte too, in the order of processors. */
function structure(m: Meaning, write: boolean, bytes: number, element: number): Local {
  const linear = firstElement(m, write, bytes, element);
  m.callChecked("translate", m.f.call("partAt", linear, bytes - 1), accessOf(write));
  return linear;
}

/** Reads and widens the memory operand. */
function readMemory(m: Meaning, number: Number): void {
  const kind = memoryKind(m, number);
  let low: Expr, high: Expr = i32(0);
  if (m.form.sizes[0] === 80) {
    const linear = m.addressOf(0, 10, false);
    low = m.loadLinear(64, linear);
    high = m.loadLinear(16, m.f.call("partAt", linear, 8)).and(0xffff);
  } else low = m.readU(0).zext();
  enter(m);
  m.f.call("x87FromMemory", kind, low, high);
}

/** FST and its kin to memory. */
function storeMemory(number: Number, pops: number, truncate = 0): Semantics {
  return (m) => {
    begin(m);
    const bits = m.form.sizes[0], kind = memoryKind(m, number);
    const value = m.f.call("x87ToMemory", kind, truncate);
    m.f.if(asAmd("x87.store-probe"), () => {
      if (bits === 80) {
        const end = m.f.call("partAt", firstElement(m, true, 10, 8), 9);
        m.callChecked("translate", m.f.let(end.and(-4096n)), accessOf(true));
      } else {
        const linear = m.addressOf(0, bits / 8, true);
        m.callChecked("x87Probe", linear, accessOf(true), bits / 8);
      }
    });
    m.f.if(notStored().eqz(), () => {
      if (bits === 80) {
        // Two parts: where the second faults and was not probed, the first is in memory.
        const linear = firstElement(m, true, 10, 8);
        m.mayFaultLate = true;
        m.storeLinear(64, linear, value);
        m.storeLinear(16, m.f.call("partAt", linear, 8), cell(F.extra));
      } else {
        m.storeLinear(bits, m.addressOf(0, bits / 8, true), bits === 64 ? value : value.wrap());
      }
    });
    enter(m);
    m.f.call("x87Stored", pops);
  };
}

function arithmetic(op: number, number: Number, pops: number): Semantics {
  return (m) => {
    begin(m);
    if (m.isMemory(0)) {
      readMemory(m, number);
      m.f.call("x87BinaryMemory", op);
    } else {
      enter(m);
      m.f.call("x87Binary", op, m.number(0), m.number(1), pops);
    }
  };
}

/** FCOM, FUCOM and the like; mode 1 is quiet, mode 2 sets EFLAGS. */
function compare(mode: number, pops: number, number: Number = "real"): Semantics {
  return (m) => {
    begin(m);
    const forms = m.form.operands;
    if (forms.length > 0 && m.isMemory(0)) {
      readMemory(m, number);
      m.f.call("x87CompareMemory", pops);
    } else {
      enter(m);
      const other = forms.length === 0 ? i32(1) : m.number(forms.length - 1);
      const flags = m.f.call("x87Compare", other, mode, pops);
      if (mode & 2) m.setArithmeticFlags(ARITHMETIC, flags);
    }
  };
}

const loadOf = (number: Number): Semantics => (m) => {
  begin(m);
  if (m.isMemory(0)) {
    readMemory(m, number);
    m.f.call("x87Load", memoryKind(m, number));
  } else {
    enter(m);
    m.f.call("x87LoadRegister", m.number(0));
  }
};

function store(pops: number): Semantics {
  const memory = storeMemory("real", pops);
  return (m) => {
    if (m.isMemory(0)) return memory(m);
    begin(m);
    enter(m);
    m.f.call("x87StoreRegister", m.number(0), pops);
  };
}

/** FCMOVcc by the condition of a Jcc. */
const conditionalMove = (cc: number): Semantics => (m) => {
  begin(m);
  const move = m.condition(cc);
  enter(m);
  m.f.call("x87ConditionalMove", m.number(1), move);
};

/** FINCSTP, FDECSTP. */
const rotate = (by: number): Semantics =>
  plain((m) => {
    setTop(m.f, top().add(by));
    m.f.call("x87Finish", C1, 0);
  });

const free = (pops: number): Semantics =>
  plain((m) => {
    tagEmpty(m.f, m.number(0));
    if (pops) m.f.call("x87Pop");
    m.f.call("x87Finish", C1, 0);
  });

/** Control instructions that do not wait for pending exceptions. */
const noWait = (work: Semantics): Semantics => (m) => {
  m.callChecked("x87Available");
  work(m);
};
const storeWord = (place: number): Semantics => noWait((m) => m.write(0, cell(place)));

/** Bits of the environment's fields: 16 or 32. */
const fieldBits = (m: Meaning): number => m.form.operandSize === 16 ? 16 : 32;
const environmentBytes = (m: Meaning, registers: boolean): number =>
  fieldBits(m) * 7 / 8 + (registers ? 80 : 0);

function storeEnvironment(registers: boolean): Semantics {
  return noWait((m) => {
    const bytes = environmentBytes(m, registers);
    const linear = structure(m, true, bytes, fieldBits(m) / 8);
    m.mayFaultLate = true;
    m.callChecked(registers ? "x87Save" : "x87StoreEnvironment", linear, fieldBits(m));
    m.commit();
    if (registers) return;
    setCell(m.f, CPU.fcw, cell(CPU.fcw).or(0x3f));
    m.f.call("x87Summary");
  });
}

function loadEnvironment(registers: boolean): Semantics {
  return (m) => {
    begin(m);
    const bytes = environmentBytes(m, registers);
    const linear = structure(m, false, bytes, fieldBits(m) / 8);
    m.callChecked(registers ? "x87Restore" : "x87LoadEnvironment", linear, fieldBits(m));
    m.commit();
  };
}

const nothing = noWait(() => {});

const conditions = { b: 2, e: 4, be: 6, u: 10, nb: 3, ne: 5, nbe: 7, nu: 11 };
const arithmeticNames = {
  add: OP.add,
  mul: OP.mul,
  sub: OP.sub,
  subr: OP.subr,
  div: OP.div,
  divr: OP.divr,
};
const constantNames = ["fld1", "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fldz"];

const semantics: Record<string, Semantics> = {
  fcom: compare(0, 0),
  fcomp: compare(0, 1),
  fcompp: compare(0, 2),
  fucom: compare(1, 0),
  fucomp: compare(1, 1),
  fucompp: compare(1, 2),
  fcomi: compare(2, 0),
  fcomip: compare(2, 1),
  fucomi: compare(3, 0),
  fucomip: compare(3, 1),
  ficom: compare(0, 0, "integer"),
  ficomp: compare(0, 1, "integer"),
  fld: loadOf("real"),
  fild: loadOf("integer"),
  fbld: loadOf("decimal"),
  fst: store(0),
  fstp: store(1),
  fstpnce: plain((m) => void m.f.call("x87StoreAlias", m.number(0))),
  fist: storeMemory("integer", 0),
  fistp: storeMemory("integer", 1),
  fisttp: storeMemory("integer", 1, 1),
  fbstp: storeMemory("decimal", 1),
  fxch: plain((m) => void m.f.call("x87Exchange", m.number(0))),
  fnop: plain(() => {}),
  fchs: call("x87Sign", 0xffff, 0x8000),
  fabs: call("x87Sign", 0x7fff, 0),
  ftst: call("x87Test"),
  fxam: call("x87Examine"),
  fxtract: call("x87Extract"),
  fprem: call("x87Remainder", 0),
  fprem1: call("x87Remainder", 1),
  fsqrt: call("x87Sqrt"),
  frndint: call("x87RoundToInt"),
  fscale: call("x87Scale"),
  f2xm1: call("x87Exp"),
  fyl2x: call("x87Log", 0),
  fyl2xp1: call("x87Log", 1),
  fptan: call("x87Tangent"),
  fpatan: call("x87Arctangent"),
  fsin: call("x87Sine", 0),
  fcos: call("x87Sine", 1),
  fsincos: call("x87SineCosine"),
  fincstp: rotate(1),
  fdecstp: rotate(-1),
  ffree: free(0),
  ffreep: free(1),
  fldcw: (m) => {
    begin(m);
    const value = m.readU(0);
    m.commit();
    setCell(m.f, CPU.fcw, value.and(FCW.exist).or(FCW.fixed));
    m.f.call("x87Summary");
  },
  fnstcw: storeWord(CPU.fcw),
  fnstsw: storeWord(CPU.fsw),
  fnclex: noWait((m) => {
    m.commit();
    setCell(m.f, CPU.fsw, cell(CPU.fsw).and(FSW.C0 | FSW.C1 | FSW.C2 | FSW.C3 | FSW.TOP));
    coprocessorQuiet(m.f);
  }),
  fninit: noWait((m) => {
    m.commit();
    m.f.call("x87Init");
  }),
  fldenv: loadEnvironment(false),
  fnstenv: storeEnvironment(false),
  frstor: loadEnvironment(true),
  fnsave: storeEnvironment(true),
  fwait: (m) => void m.callChecked("x87Wait"),
  fneni: nothing,
  fndisi: nothing,
  fnsetpm: nothing,
};
for (const [name, op] of Object.entries(arithmeticNames)) {
  semantics[`f${name}`] = arithmetic(op, "real", 0);
  semantics[`fi${name}`] = arithmetic(op, "integer", 0);
  semantics[`f${name}p`] = arithmetic(op, "real", 1);
}
for (const [name, cc] of Object.entries(conditions)) {
  semantics[`fcmov${name}`] = conditionalMove(cc);
}
constantNames.forEach((name, n) => semantics[name] = call("x87Constant", n));

/** The x87: meanings by key, and the functions they call. */
export const x87Group = {
  semantics,
  functions(m: Module): void {
    buildFloat(m);
    buildPartAt(m);
    buildX87State(m);
    buildX87Environment(m);
    buildX87Operations(m);
    buildX87Transcendental(m);
  },
};
