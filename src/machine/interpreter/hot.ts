/**
 * The interpreter proper: one function, one `br_table` over predecoded records. For flat 32-bit code
 * and for 64-bit code the commonest forms have handlers in it; everything else, and all other code,
 * goes to the cold functions through the table.
 *
 * What it costs: each access to memory at an address that is not a constant is three instructions
 * more, because V8 in Deno checks bounds in code. So records are read in words of eight bytes, and
 * the commonest forms have handlers with their registers baked in.
 */
import { CODE_MODE, CPU, REC, RECORD_SIZE, TLB, V } from "../state.ts";
import { cell, cell64, machineModule, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, load } from "../wasm/expr.ts";
import type { Func, Label, Local, Module } from "../wasm/module.ts";
import { type Form, NEXT, type Semantics } from "../isa/semantics/meaning.ts";
import { tlbIndex } from "../mmu/access.ts";
import { type HotForm, hotForms, PSEUDO } from "./hot_forms.ts";
import { Flat32, Flat64, goOn, leftBehind, leftHere, type Loop } from "./hot_meaning.ts";
import { RECORD_SHIFT, reloadLeft } from "./hot_meaning.ts";
import { wrapIp } from "../mode.ts";

/** Which code an interpreter is for. */
export const INTERPRETER_KINDS = ["flat32", "flat64", "general"] as const;
export type InterpreterKind = typeof INTERPRETER_KINDS[number];

/** What `interpret(budget)` returns, NEXT apart. */
export const STOPPED = { budget: 0, abort: 1, serialize: 3, breakpoint: 4 } as const;

/**
 * The module of an interpreter: `interpret(budget) -> STOPPED`. Functions of module S are imported
 * by the names in `system`.
 */
export function interpreterModule(
  kind: InterpreterKind,
  importSystem: (m: Module) => void,
  semantics: Record<string, Semantics>,
): Uint8Array<ArrayBuffer> {
  const m = machineModule();
  importSystem(m);
  m.func("interpret", ["i32"], ["i32"], (f, budget) => buildLoop(f, budget, kind, semantics));
  return m.bytes();
}

function buildLoop(
  f: Func,
  left: Local,
  kind: InterpreterKind,
  semantics: Record<string, Semantics>,
): void {
  const narrow = kind === "flat32";
  const word = f.local("i64"),
    rec = f.local("i32"),
    limit = f.local("i32"),
    tlb = f.local("i32"),
    ip = f.local(narrow ? "i32" : "i64");
  const here = () => {
    const base = narrow ? cell(V.ipBase) : cell64(V.ipBase);
    const offset = load(narrow ? "i32" : "i64", 16, "u", rec, REC.offset);
    return base.add(offset);
  };
  const storeIp = (value: Expr) =>
    f.store(64, i32(0), kind === "general" ? wrapIp(value) : value.zext(), CPU.rip);
  const stop = (code: number, left: Expr) => {
    setCell(f, V.left, left);
    f.return(i32(code));
  };
  f.set(tlb, cell(V.tlb));
  f.set(ip, narrow ? cell(CPU.rip) : cell64(CPU.rip));
  f.block((fetchFailed) => {
    f.block((abort) => {
      f.loop((resolve) => {
        f.scope(() => resolveRecord(f, kind, rec, ip, left, tlb, fetchFailed, storeIp));
        f.set(limit, rec.add(left.shl(RECORD_SHIFT)));
        f.loop((next) => {
          f.if(rec.geU(limit), () => {
            storeIp(here());
            stop(STOPPED.budget, i32(0));
          });
          if (kind === "general") {
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
          const handlers = pseudoHandlers(f, loop, here, storeIp, fetchFailed);
          if (kind !== "general") {
            for (const hot of hotForms(!narrow).values()) {
              handlers[hot.handler] = () => hotHandler(f, loop, hot, semantics);
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

/** One instruction, or one and the jump behind it, in place. */
function hotHandler(
  f: Func,
  x: Loop,
  { form, jump }: HotForm,
  semantics: Record<string, Semantics>,
): void {
  const meaning = (of: Form) => {
    const m = x.ip.type === "i32" ? new Flat32(f, of, x) : new Flat64(f, of, x);
    f.scope(() => semantics[of.key](m));
  };
  meaning(form);
  // In each of them, so that one jump less is taken.
  f.set(x.rec, x.rec.add(RECORD_SIZE));
  if (jump) {
    f.brIf(x.next, x.rec.geU(x.limit));
    f.set(x.word, load("i64", 64, "u", x.rec, REC.handler));
    meaning(jump);
    f.set(x.rec, x.rec.add(RECORD_SIZE));
  }
  f.br(x.next);
}

/** Handlers of records that are not hot instructions, by number. */
function pseudoHandlers(
  f: Func,
  x: Loop,
  here: () => Expr,
  storeIp: (ip: Expr) => void,
  fetchFailed: Label,
): (() => void)[] {
  const { rec } = x, narrow = x.ip.type === "i32";
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
    f.call("link", rec, ip.wrap(), narrow ? i32(0) : ip.shrU(32).wrap());
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
      f.set(x.ip, narrow ? cell(CPU.rip) : cell64(CPU.rip));
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
  kind: InterpreterKind,
  rec: Local,
  ip: Local,
  left: Local,
  tlb: Local,
  fetchFailed: Label,
  storeIp: (ip: Expr) => void,
): void {
  const narrow = kind === "flat32";
  const linear = kind === "general" ? f.let(ip.add(cell64(V.codeBase))) : ip;
  const entry = f.let(tlb.add(tlbIndex(linear)));
  const inPage = f.let(linear.wrap().and(4095));
  const tag = load(narrow ? "i32" : "i64", narrow ? 32 : 64, "u", entry, TLB.code);
  const page = linear.and(narrow ? -4096 : -4096n);
  const mode = kind === "general" ? cell64(V.codeMode) : CODE_MODE[kind];
  f.set(rec, 0);
  f.if(tag.eq(page.or(mode)), () => {
    const index = load("i32", 32, "u", entry, TLB.code + 8);
    f.set(rec, load("i32", 32, "u", index.add(inPage.shl(2))));
    setCell64(f, V.ipBase, (narrow ? ip.sub(inPage) : ip.sub(inPage.zext())).zext());
  });
  f.if(rec.eqz(), () => {
    // A fetch that faults belongs to the next instruction.
    f.if(left.eqz(), () => {
      storeIp(ip);
      setCell(f, V.left, 0);
      f.return(i32(STOPPED.budget));
    });
    setCell(f, V.left, left);
    f.set(rec, f.call("predecode", ip.wrap(), narrow ? i32(0) : ip.shrU(32).wrap()));
    f.set(left, cell(V.left));
    f.brIf(fetchFailed, rec.eqz());
  });
}
