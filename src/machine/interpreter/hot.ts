/**
 * The interpreter proper: one function, one `br_table` over predecoded records. In flat 32-bit mode
 * the commonest forms have handlers in it; everything else, and every other mode, goes to the cold
 * functions through the table.
 */
import { CPU, REC, RECORD_SIZE, TLB, V } from "../state.ts";
import { cell, cell64, machineModule, MEMORY, setCell, setCell64 } from "../system.ts";
import { type Expr, i32, load } from "../wasm/expr.ts";
import type { Func, Label, Local, Module } from "../wasm/module.ts";
import { condition, conditionKind, FLAG_KIND } from "../isa/flags.ts";
import { encodings } from "../isa/encodings.ts";
import { type Form, formName, Meaning, NEXT, type Semantics } from "../isa/semantics/meaning.ts";
import { tlbIndex } from "../mmu/access.ts";
import { coldForm, hasCopy } from "./forms.ts";
import { MODE } from "./predecode.ts";

/** Handlers that are not instructions. They do not count. */
export const PSEUDO = {
  /** The record is stale: look the instruction up again. */
  refetch: 0,
  /** Calls the function in REC.cold. */
  cold: 1,
  /** Falls into the next page. */
  pageEnd: 2,
  /** Goes on at the record in REC.link. */
  goto: 3,
  /** The next instruction crosses into a page that must still be the one it was decoded from. */
  crossing: 4,
  /** A breakpoint on the next instruction. */
  breakpoint: 5,
} as const;
const PSEUDO_COUNT = 6;

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
};

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
        const memories = form.operands.includes("M") ? ["b", "x"] as const : ["-"] as const;
        if (memory && memories[0] === "-") continue;
        for (const letter of memories) {
          const operands = form.operands.map((o) => o === "M" ? letter : o);
          if (CONDITIONAL.has(e.key)) {
            for (const producer of Object.values(FLAG_KIND)) {
              add({ ...form, operands, producer: conditionKind(producer, e.cc) });
            }
          } else add({ ...form, operands });
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
  readonly left: Local;
  readonly ip: Local;
  readonly tlb: Local;
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
    this.f.br(this.loop.resolve);
  }
  branchDirect(): void {
    const { f, loop } = this;
    const target = f.let(loop.word.shrU(32).wrap());
    f.if(target, () => {
      f.set(loop.rec, target);
      f.br(loop.next);
    });
    f.set(loop.ip, cell(V.ipBase).add(load("i32", 32, "u", loop.rec, REC.immediate)));
    // A target in the same page can be linked once it has a record.
    f.if(load("i32", 8, "u", loop.rec, REC.scale), () => {
      f.call("link", loop.rec, loop.ip, i32(0));
    });
    f.br(loop.resolve);
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
    const { word } = this.loop;
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
    if (this.form.operands[i] === "b") {
      return base.add(load("i32", 32, "u", this.rec, REC.displacement));
    }
    // Index, scale and displacement in one.
    const word = this.f.let(load("i64", 64, "u", this.rec, REC.index));
    const index = load("i32", 32, "u", word.wrap().and(0xffff));
    return base.add(word.shrU(32).wrap()).add(index.shl(word.wrap().shrU(16)));
  }
  protected linear(i: number): Local {
    return this.f.let(this.offset(i));
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
        setCell(f, V.left, this.loop.left);
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
    setCell(f, V.left, loop.left);
    f.call(`st${bits}`, linear.zext(), cell(V.access), value);
    f.set(loop.left, cell(V.left));
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
    tlb = f.local("i32"),
    ip = f.local(flat ? "i32" : "i64");
  const here = () => {
    const base = flat ? cell(V.ipBase) : cell64(V.ipBase);
    const offset = load(flat ? "i32" : "i64", 16, "u", rec, REC.offset);
    return base.add(offset);
  };
  const storeIp = (value: Expr) => f.store(64, i32(0), value.zext(), CPU.rip);
  const stop = (code: number) => {
    setCell(f, V.left, left);
    f.return(i32(code));
  };
  const uncount = () => f.set(left, left.add(1));
  f.set(tlb, cell(V.tlb));
  f.set(ip, flat ? cell(CPU.rip) : cell64(CPU.rip));
  f.block((fetchFailed) => {
    f.block((abort) => {
      f.loop((resolve) => {
        f.scope(() => resolveRecord(f, flat, rec, ip, left, tlb, fetchFailed, storeIp));
        f.loop((next) => {
          const loop = { next, resolve, abort, rec, word, left, ip, tlb };
          f.set(left, left.sub(1));
          f.if(left.ltS(0), () => {
            storeIp(here());
            f.set(left, 0);
            stop(STOPPED.budget);
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
          const goTo = (target: Expr) => {
            f.set(ip, target);
            f.br(resolve);
          };
          const pseudo: (() => void)[] = [];
          pseudo[PSEUDO.refetch] = () => {
            uncount();
            goTo(here());
          };
          pseudo[PSEUDO.cold] = () => {
            setCell(f, V.left, left);
            const status = f.callIndirect(
              load("i32", 16, "u", rec, REC.cold),
              ["i32"],
              ["i32"],
              rec,
            );
            f.set(left, cell(V.left));
            f.if(status, () => {
              f.brIf(abort, status.eq(NEXT.abort));
              f.if(status.eq(NEXT.branch), () => goTo(flat ? cell(CPU.rip) : cell64(CPU.rip)));
              stop(STOPPED.serialize);
            });
          };
          pseudo[PSEUDO.pageEnd] = () => {
            uncount();
            goTo(here());
          };
          pseudo[PSEUDO.goto] = () => {
            uncount();
            f.set(rec, load("i32", 32, "u", rec, REC.link));
            f.br(next);
          };
          pseudo[PSEUDO.crossing] = () => {
            uncount();
            f.if(left.eqz(), () => {
              storeIp(here());
              stop(STOPPED.budget);
            });
            const second = f.call("crossing", rec);
            f.if(second.eqz(), () => {
              f.set(ip, here());
              f.br(fetchFailed);
            });
            f.if(second.ne(rec), () => {
              f.set(rec, second);
              f.br(next);
            });
          };
          pseudo[PSEUDO.breakpoint] = () => {
            uncount();
            f.if(cell64(V.passing).eq(here().zext()), () => setCell64(f, V.passing, -1), () => {
              storeIp(here());
              stop(STOPPED.breakpoint);
            });
          };
          const handlers = [...pseudo];
          if (flat) {
            for (const { form, handler } of hotForms().values()) {
              handlers[handler] = () => semantics[form.key](new HotMeaning(f, form, loop));
            }
          }
          f.set(word, load("i64", 64, "u", rec, REC.handler));
          f.switch(word.wrap().and(0xffff), handlers, () => f.unreachable());
          f.set(rec, rec.add(RECORD_SIZE));
          f.br(next);
        });
      });
    });
    storeIp(here());
    stop(STOPPED.abort);
  });
  storeIp(ip);
  f.set(left, left.sub(1));
  stop(STOPPED.abort);
  f.unreachable();
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
