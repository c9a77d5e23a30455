/**
 * The interpreter proper: one function, one `br_table` over predecoded records. In flat 32-bit mode
 * the commonest forms have handlers in it; everything else, and every other mode, goes to the cold
 * functions through the table.
 */
import { CPU, gpr, REC, RECORD_SIZE, SEGMENT, TLB, V } from "../state.ts";
import { cell, cell64, machineModule, MEMORY, setCell, setCell64 } from "../system.ts";
import { type Expr, i32, load } from "../wasm/expr.ts";
import type { Func, Label, Local, Module } from "../wasm/module.ts";
import { AF, condition, conditionKind, FLAG_KIND } from "../isa/flags.ts";
import { encodings } from "../isa/encodings.ts";
import {
  type FixedRegisters,
  type Form,
  formName,
  Meaning,
  NEXT,
  type Semantics,
} from "../isa/semantics/meaning.ts";
import { tlbIndex } from "../mmu/access.ts";
import { coldForm, hasCopy, hasDisplacementCopy } from "./forms.ts";
import { MODE } from "./predecode.ts";

/** Handlers that are not instructions. They do not count. */
export const PSEUDO = {
  /** The record is stale: look the instruction up again. */
  refetch: 0,
  /** Calls the function in REC.cold. */
  cold: 1,
  /** Falls into the next page. */
  pageEnd: 2,
  /** Goes on at the record in REC.target. */
  goto: 3,
  /** The next instruction crosses into a page that must still be the one it was decoded from. */
  crossing: 4,
  /** A breakpoint on the next instruction. */
  breakpoint: 5,
  /** The run goes on elsewhere: becomes a goto once it is known where. */
  more: 6,
} as const;
const PSEUDO_COUNT = 7;

/** What `interpret(budget)` returns, NEXT apart. */
export const STOPPED = { budget: 0, abort: 1, serialize: 3, breakpoint: 4 } as const;

/** Instructions with handlers of their own in flat 32-bit mode, and whether in 16 bits too. */
const HOT: Record<string, boolean> = {
  mov: true,
  add: true,
  sub: true,
  cmp: true,
  and: true,
  or: true,
  xor: true,
  test: true,
  adc: false,
  sbb: false,
  inc: true,
  dec: true,
  neg: false,
  not: false,
  lea: false,
  movzx: false,
  movsx: false,
  push: false,
  pop: false,
  shl: false,
  shr: false,
  sar: false,
  rol: false,
  ror: false,
  shld: false,
  shrd: false,
  imul2: false,
  imul3: false,
  mul: false,
  jcc: false,
  jmp: false,
  call: false,
  ret: false,
  setcc: false,
  cmovcc: false,
  nop: false,
  leave: false,
  cwd: false,
  bswap: false,
  xchg: false,
  xadd: false,
  cmpxchg: false,
  bt: false,
  bts: false,
  btr: false,
  btc: false,
  bsf: false,
  bsr: false,
  clc: false,
  stc: false,
  cld: false,
};

/** Forms of the commonest instructions: a handler for each value of the registers that are named. */
const FIXED: Record<string, readonly ("a" | "b" | "base")[]> = {
  "mov.rr": ["a", "b"],
  "mov.rb": ["a", "base"],
  "mov.br": ["a", "base"],
  "mov.ri": ["a"],
  "add.rr": ["a", "b"],
  "xor.rr": ["a", "b"],
  "and.rr": ["a"],
  "sub.rr": ["a"],
  "cmp.rr": ["a"],
  "test.rr": ["a"],
  "add.ri": ["a"],
  "sub.ri": ["a"],
  "and.ri": ["a"],
  "cmp.ri": ["a"],
  "inc.r": ["a"],
  "dec.r": ["a"],
  "push.r": ["a"],
  "pop.r": ["a"],
  "lea.rb": ["a"],
  "shr.ri": ["a"],
  "shl.ri": ["a"],
  "rol.ri": ["a"],
  "ror.ri": ["a"],
};

/** Registers that handlers of their own know, for a 32-bit form with its memory letter. */
export function fixedNames(form: Form): readonly ("a" | "b" | "base")[] | undefined {
  if (form.operandSize !== 32 || form.sizes[0] !== 32) return undefined;
  return FIXED[`${form.key}.${form.operands.join("")}`];
}

function fixedRegisters(form: Form): FixedRegisters[] {
  let all: FixedRegisters[] = [];
  for (const name of fixedNames(form) ?? []) {
    const values = [0, 1, 2, 3, 4, 5, 6, 7, ...name === "base" ? [8] : []];
    all = name === "a"
      ? values.map((a) => ({ a }))
      : all.flatMap((given) => values.map((n) => ({ ...given, [name]: n })));
  }
  return all;
}

/** Those that have handlers for segments that need not be flat. */
const SEGMENTED = new Set("mov add sub and or xor cmp test inc dec movzx".split(" "));

/** Those that test a condition: one handler for each kind of flags. */
export const CONDITIONAL: ReadonlySet<string> = new Set(["jcc", "setcc", "cmovcc"]);

/** All forms with a handler in the hot function, by name, with their handler numbers. */
export function hotForms(): Map<string, { form: Form; handler: number }> {
  const forms = new Map<string, { form: Form; handler: number }>();
  const add = (form: Form) => {
    const name = formName(form);
    if (!forms.has(name)) forms.set(name, { form, handler: PSEUDO_COUNT + forms.size });
  };
  for (const e of encodings) {
    if (!(e.key in HOT) || e.attributes.o64 || e.rexw) continue;
    for (const size of HOT[e.key] ? [32, 16] : [32]) {
      for (const memory of [false, true]) {
        const form = coldForm(e, memory, size, 32);
        if (form.operands.includes("n") || form.sizes.includes(64)) continue;
        const hasMemory = form.operands.includes("M");
        if (memory && !hasMemory) continue;
        // Strings of bits have addresses of their own.
        if (e.key.startsWith("bt") && form.operands.join("") === "Mr") continue;
        for (const letter of hasMemory ? ["b", "x", "s"] as const : ["-"] as const) {
          if (letter === "s" && !SEGMENTED.has(e.key)) continue;
          const operands = form.operands.map((o) => o === "M" ? letter : o);
          if (CONDITIONAL.has(e.key)) {
            for (const producer of Object.values(FLAG_KIND)) {
              add({ ...form, operands, producer: conditionKind(producer, e.cc) });
            }
          } else {
            add({ ...form, operands });
            for (const fixed of fixedRegisters({ ...form, operands })) {
              add({ ...form, operands, fixed });
            }
          }
        }
      }
    }
  }
  return forms;
}

interface Loop {
  readonly next: Label;
  readonly resolve: Label;
  readonly abort: Label;
  readonly rec: Local;
  /** The first eight bytes of the record. */
  readonly word: Local;
  /** Where the budget ends: the address of the running record, plus one record for each instruction left. */
  readonly limit: Local;
  /** Instructions left, for `resolve`. */
  readonly left: Local;
  readonly ip: Local;
  readonly tlb: Local;
}

const RECORD_SHIFT = Math.log2(RECORD_SIZE);

/** Instructions left at the running record, itself included. */
const leftHere = (x: Loop): Expr => x.limit.sub(x.rec).shrU(RECORD_SHIFT);
/** The same after it. */
const leftBehind = (x: Loop): Expr => leftHere(x).sub(1);
/** After a call that may have used up or taken away some of the budget. */
const reloadLeft = (f: Func, x: Loop) =>
  f.set(x.limit, x.rec.add(cell(V.left).shl(RECORD_SHIFT)).add(RECORD_SIZE));
/** Goes on at another record; `counted` if the running one is an instruction. */
function goOn(f: Func, x: Loop, target: Local, counted: boolean): void {
  f.set(x.limit, x.limit.add(target).sub(x.rec).sub(counted ? RECORD_SIZE : 0));
  f.set(x.rec, target);
  f.br(x.next);
}

/** Semantics inlined in the interpreter: flat segments, 32-bit addresses and stack. */
class HotMeaning extends Meaning {
  readonly address = "i32";
  /** Machine address of the operand an `update` found in the TLB, 0 if it took the slow way. */
  #host: Local | undefined;

  constructor(f: Func, form: Form, private readonly loop: Loop) {
    super(f, form, loop.rec);
  }

  abort(): void {
    this.f.br(this.loop.abort);
  }
  branch(ip: Expr): void {
    this.f.set(this.loop.ip, ip.wrap());
    this.#resolve();
  }
  #resolve(): void {
    this.f.set(this.loop.left, leftBehind(this.loop));
    this.f.br(this.loop.resolve);
  }
  branchDirect(): void {
    const { f, loop } = this;
    const target = f.let(loop.word.shrU(32).wrap());
    f.if(target, () => goOn(f, loop, target, true));
    f.set(loop.ip, cell(V.ipBase).add(load("i32", 32, "u", loop.rec, REC.immediate)));
    // A target in the same page can be linked once it has a record.
    f.if(load("i32", 8, "u", loop.rec, REC.scale), () => {
      f.call("link", loop.rec, loop.ip, i32(0));
    });
    this.#resolve();
  }
  checkTarget(): void {}
  checkIp(): void {}
  /** Outside 64-bit mode the upper halves are zero. */
  override losesUpper(): boolean {
    return false;
  }
  serialize(): void {
    throw new Error(`${formName(this.form)}: a hot handler cannot serialize`);
  }
  override get ip(): Expr {
    return cell(V.ipBase).add(this.field(REC.offset)).zext();
  }
  override get nextIp(): Expr {
    return cell(V.ipBase).add(this.field(REC.offset)).add(load("i32", 8, "u", this.rec, REC.length))
      .zext();
  }
  override field(offset: number): Expr {
    const { word } = this.loop, { fixed } = this.form;
    if (fixed && offset === REC.a) return i32(gpr(fixed.a));
    if (fixed?.b !== undefined && offset === REC.b) return i32(gpr(fixed.b));
    if (fixed?.base !== undefined && offset === REC.base) {
      return i32(fixed.base === 8 ? V.zero : gpr(fixed.base));
    }
    if (offset === REC.a) return word.wrap().shrU(16);
    if (offset === REC.b) return word.shrU(32).wrap().and(0xffff);
    if (offset === REC.base) return word.shrU(48).wrap();
    return super.field(offset);
  }
  override immediate(i: number): Expr {
    return hasCopy(this.form) ? this.loop.word.shrU(32).wrap() : super.immediate(i);
  }
  offset(i: number): Expr {
    const base = load("i32", 32, "u", this.field(REC.base));
    if (hasDisplacementCopy(this.form)) return base.add(this.loop.word.shrU(32).wrap());
    if (this.form.operands[i] !== "x") {
      return base.add(load("i32", 32, "u", this.rec, REC.displacement));
    }
    // Index, scale and displacement in one.
    const word = this.f.let(load("i64", 64, "u", this.rec, REC.index));
    const index = load("i32", 32, "u", word.wrap().and(0xffff));
    return base.add(word.shrU(32).wrap()).add(index.shl(word.wrap().shrU(16)));
  }
  protected linear(i: number, bytes: number, write: number): Local {
    const { f } = this;
    if (this.form.operands[i] !== "s") return f.let(this.offset(i));
    // A writable expand-up segment of 4 GiB needs no checks.
    const linear = f.local("i32"), place = f.let(this.field(REC.segment));
    const attributes = load("i32", 32, "u", place, SEGMENT.attributes);
    const whole = load("i32", 32, "u", place, SEGMENT.limit).eq(-1);
    f.if(attributes.and(0x1_000e).eq(2).and(whole), () => {
      f.set(linear, this.offset(i).add(load("i32", 32, "u", place, SEGMENT.base)));
    }, () => {
      f.set(linear, f.call("effective", this.rec, i32(bytes), i32(write)).wrap());
      this.abortIfSet();
    });
    return linear;
  }

  /** Tests the TLB: `hit` gets the machine address, otherwise `miss` runs. */
  #probe(table: number, bits: number, linear: Expr, hit: (at: Expr) => void, miss: () => void) {
    const { f, loop } = this;
    // What to add to the address, and the low half of the page in one.
    const entry = f.let(load("i64", 64, "u", loop.tlb.add(tlbIndex(linear)), table + 8));
    f.if(
      entry.shrU(32).wrap().eq(linear.add(bits / 8 - 1).and(-4096)),
      () => hit(linear.add(entry.wrap())),
      miss,
    );
  }

  loadLinear(bits: number, linear: Expr, forWrite = false): Local {
    const { f } = this;
    const value = f.local("i32");
    if (forWrite) this.#host = f.local("i32");
    const host = forWrite ? this.#host : undefined;
    this.#probe(
      forWrite ? TLB.write : TLB.read,
      bits,
      linear,
      (at) => {
        if (host) f.set(host, at);
        f.set(value, load("i32", bits, "u", host ?? at, 0, MEMORY.ram));
      },
      () => {
        if (host) f.set(host, 0);
        // A device that is read may ask for the time.
        setCell(f, V.left, leftBehind(this.loop));
        f.set(value, f.call(`${forWrite ? "ldw" : "ld"}${bits}`, linear.zext(), cell(V.access)));
        this.abortIfSet();
      },
    );
    return value;
  }
  storeLinear(bits: number, linear: Expr, value: Expr): void {
    const { f } = this;
    this.#probe(
      TLB.write,
      bits,
      linear,
      (at) => f.store(bits, at, value, 0, MEMORY.ram),
      () => {
        this.#storeSlow(bits, linear, value);
        this.abortIfSet();
      },
    );
    this.commit();
  }
  /** A store that may reach a device, which may end the slice. */
  #storeSlow(bits: number, linear: Expr, value: Expr): void {
    const { f, loop } = this;
    setCell(f, V.left, leftBehind(loop));
    f.call(`st${bits}`, linear.zext(), cell(V.access), value);
    reloadLeft(f, loop);
  }
  protected override writeBack(
    i: number,
    bits: number,
    linear: Expr,
    value: Expr,
    probed: boolean,
  ) {
    const host = this.#host;
    if (!probed || !host) return super.writeBack(i, bits, linear, value, probed);
    const { f } = this;
    f.if(
      host,
      () => f.store(bits, host, value, 0, MEMORY.ram),
      () => this.#storeSlow(bits, linear, value),
    );
  }

  override push(bits: number, value: Expr): void {
    const { f } = this;
    const kept = f.let(value);
    const to = f.let(this.gpr(4, 32).sub(bits / 8));
    this.probe("a push");
    this.storeLinear(bits, to, kept);
    this.setGpr(4, 32, to);
  }
  override stackRead(bits: number, skip = 0): Local {
    this.probe("a pop");
    return this.loadLinear(bits, this.f.let(this.gpr(4, 32).add(skip)));
  }
  override dropStack(bytes: number | Expr): void {
    this.setGpr(4, 32, this.gpr(4, 32).add(bytes));
  }

  /** The common case in place: the flags are those of a shift or a logical instruction. */
  override setCarryOverflow(carry: Expr, overflow: Expr): void {
    const { f } = this;
    this.commit();
    const op = f.let(cell(CPU.flagOp));
    const isLogic = op.shrU(8).eq(FLAG_KIND.logic);
    f.if(isLogic.or(op.shrU(8).eq(FLAG_KIND.result)), () => {
      const adjust = i32(0).when(isLogic, cell(CPU.flagX).and(AF));
      setCell64(f, CPU.flagX, adjust.or(overflow.shl(11)).zext());
      setCell(f, CPU.flagCarry, carry);
      setCell(f, CPU.flagOp, op.and(0xff).or(FLAG_KIND.result << 8));
    }, () => {
      f.call("setCarryOverflow", carry.or(overflow.shl(11)));
    });
  }

  condition(cc: number): Expr {
    const known = this.form.producer && condition(this.form.producer, cc);
    if (known) return known;
    const value = this.f.call(`cond${cc >> 1}`);
    return cc & 1 ? value.eqz() : value;
  }
}

/**
 * The module of an interpreter: `interpret(budget) -> STOPPED`. `flat` has the hot handlers.
 * Functions of module S are imported by the names in `system`.
 */
export function interpreterModule(
  flat: boolean,
  importSystem: (m: Module) => void,
  semantics: Record<string, Semantics>,
): Uint8Array<ArrayBuffer> {
  const m = machineModule();
  importSystem(m);
  m.func("interpret", ["i32"], ["i32"], (f, budget) => buildLoop(f, budget, flat, semantics));
  return m.bytes();
}

function buildLoop(
  f: Func,
  left: Local,
  flat: boolean,
  semantics: Record<string, Semantics>,
): void {
  const word = f.local("i64"),
    rec = f.local("i32"),
    limit = f.local("i32"),
    tlb = f.local("i32"),
    ip = f.local(flat ? "i32" : "i64");
  const here = () => {
    const base = flat ? cell(V.ipBase) : cell64(V.ipBase);
    const offset = load(flat ? "i32" : "i64", 16, "u", rec, REC.offset);
    return base.add(offset);
  };
  const storeIp = (value: Expr) => f.store(64, i32(0), value.zext(), CPU.rip);
  const stop = (code: number, left: Expr) => {
    setCell(f, V.left, left);
    f.return(i32(code));
  };
  f.set(tlb, cell(V.tlb));
  f.set(ip, flat ? cell(CPU.rip) : cell64(CPU.rip));
  f.block((fetchFailed) => {
    f.block((abort) => {
      f.loop((resolve) => {
        f.scope(() => resolveRecord(f, flat, rec, ip, left, tlb, fetchFailed, storeIp));
        f.set(limit, rec.add(left.shl(RECORD_SHIFT)));
        f.loop((next) => {
          f.if(rec.geU(limit), () => {
            storeIp(here());
            stop(STOPPED.budget, i32(0));
          });
          if (!flat) {
            // IP may run off the end of the segment in the middle of a page.
            f.if(
              here().add(load("i64", 8, "u", rec, REC.length)).sub(1).gtU(cell64(V.codeLimit)),
              () => {
                f.call("fetchLimit", here());
                f.br(abort);
              },
            );
          }
          f.set(word, load("i64", 64, "u", rec, REC.handler));
          const loop = { next, resolve, abort, rec, word, limit, left, ip, tlb };
          const handlers = pseudoHandlers(f, loop, flat, here, storeIp, fetchFailed);
          if (flat) {
            for (const { form, handler } of hotForms().values()) {
              handlers[handler] = () => {
                semantics[form.key](new HotMeaning(f, form, loop));
                // In each of them, so that one jump less is taken.
                f.set(rec, rec.add(RECORD_SIZE));
                f.br(next);
              };
            }
          }
          f.switch(word.wrap().and(0xffff), handlers, () => f.unreachable());
          f.set(rec, rec.add(RECORD_SIZE));
          f.br(next);
        });
      });
    });
    storeIp(here());
    stop(STOPPED.abort, limit.sub(rec).shrU(RECORD_SHIFT).sub(1));
  });
  storeIp(ip);
  stop(STOPPED.abort, left.sub(1));
  f.unreachable();
}

/** Handlers of records that are not hot instructions, by number. */
function pseudoHandlers(
  f: Func,
  x: Loop,
  flat: boolean,
  here: () => Expr,
  storeIp: (ip: Expr) => void,
  fetchFailed: Label,
): (() => void)[] {
  const { rec } = x;
  const lookUp = () => {
    f.set(x.left, leftHere(x));
    f.set(x.ip, here());
    f.br(x.resolve);
  };
  const pseudo: (() => void)[] = [];
  pseudo[PSEUDO.refetch] = lookUp;
  pseudo[PSEUDO.pageEnd] = lookUp;
  pseudo[PSEUDO.more] = () => {
    const ip = f.let(here());
    f.call("link", rec, ip.wrap(), flat ? i32(0) : ip.shrU(32).wrap());
    lookUp();
  };
  pseudo[PSEUDO.goto] = () => goOn(f, x, f.let(x.word.shrU(32).wrap()), false);
  pseudo[PSEUDO.cold] = () => {
    setCell(f, V.left, leftBehind(x));
    const status = f.callIndirect(load("i32", 16, "u", rec, REC.cold), ["i32"], ["i32"], rec);
    reloadLeft(f, x);
    f.if(status, () => {
      f.brIf(x.abort, status.eq(NEXT.abort));
      f.if(status.ne(NEXT.branch), () => f.return(i32(STOPPED.serialize)));
      f.set(x.left, cell(V.left));
      f.set(x.ip, flat ? cell(CPU.rip) : cell64(CPU.rip));
      f.br(x.resolve);
    });
  };
  pseudo[PSEUDO.crossing] = () => {
    const second = f.call("crossing", rec);
    f.if(second.eqz(), () => {
      f.set(x.left, leftHere(x));
      f.set(x.ip, here());
      f.br(fetchFailed);
    });
    f.if(second.ne(rec), () => goOn(f, x, second, false));
    f.set(x.limit, x.limit.add(RECORD_SIZE));
  };
  pseudo[PSEUDO.breakpoint] = () => {
    f.if(cell64(V.passing).eq(here().zext()), () => setCell64(f, V.passing, -1), () => {
      storeIp(here());
      setCell(f, V.left, leftHere(x));
      f.return(i32(STOPPED.breakpoint));
    });
    f.set(x.limit, x.limit.add(RECORD_SIZE));
  };
  return pseudo;
}

/** Finds the record for `ip`, through the code TLB where it can. */
function resolveRecord(
  f: Func,
  flat: boolean,
  rec: Local,
  ip: Local,
  left: Local,
  tlb: Local,
  fetchFailed: Label,
  storeIp: (ip: Expr) => void,
): void {
  const linear = flat ? ip : f.let(ip.add(cell64(V.codeBase)));
  const entry = f.let(tlb.add(tlbIndex(linear)));
  const inPage = f.let(linear.wrap().and(4095));
  const tag = flat ? load("i32", 32, "u", entry, TLB.code) : load("i64", 64, "u", entry, TLB.code);
  f.set(rec, 0);
  const page = linear.and(flat ? -4096 : -4096n);
  f.if(tag.eq(page.or(flat ? MODE.flat32 : cell64(V.codeMode))), () => {
    const index = load("i32", 32, "u", entry, TLB.code + 8);
    f.set(rec, load("i32", 32, "u", index.add(inPage.shl(2))));
    setCell64(f, V.ipBase, (flat ? ip.sub(inPage) : ip.sub(inPage.zext())).zext());
  });
  f.if(rec.eqz(), () => {
    // A fetch that faults belongs to the next instruction.
    f.if(left.eqz(), () => {
      storeIp(ip);
      setCell(f, V.left, 0);
      f.return(i32(STOPPED.budget));
    });
    f.set(rec, f.call("predecode", ip.wrap(), flat ? i32(0) : ip.shrU(32).wrap()));
    f.brIf(fetchFailed, rec.eqz());
  });
}
