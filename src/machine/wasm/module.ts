/**
 * Writes WebAssembly modules: functions with statements, locals and labels over the expressions of expr.ts,
 * imports, tables and memories, down to the bytes that the engine compiles.
 *
 * @module
 */
import { Bytes } from "./bytes.ts";
import {
  Expr,
  type Operand,
  store128Code,
  storeCode,
  toExpr,
  VAL_TYPE_CODE,
  type ValType,
} from "./expr.ts";

/** What a call needs to know of a function: its place and its type. */
export interface Callable {
  readonly name: string;
  readonly index: number;
  readonly params: readonly ValType[];
  readonly results: readonly ValType[];
}

/** A place a branch can go to; the number of enclosing blocks when it was opened. */
export interface Label {
  readonly depth: number;
}

/** A variable of a function; reading it is an expression, `Func.set` writes it. */
export class Local extends Expr {
  constructor(type: ValType, readonly index: number) {
    super(type, localCode(0x20, index));
  }
}

function localCode(op: number, index: number): number[] {
  return index < 0x80 ? [op, index] : [op, (index & 0x7f) | 0x80, index >>> 7];
}

/** A module under construction: imports first, then functions. */
export class Module {
  readonly #types: string[] = [];
  readonly #imports: { module: string; name: string; kind: number; body: Bytes }[] = [];
  #functionImports = 0;
  readonly #functions: Func[] = [];
  readonly #exports: { name: string; index: number }[] = [];
  readonly #byName = new Map<string, Callable>();
  readonly #globalImports: string[] = [];
  #tables = 0;

  /** Functions are of the class given: tests look at what is built. */
  constructor(private readonly Function: typeof Func = Func) {}

  typeIndex(params: readonly ValType[], results: readonly ValType[]): number {
    const key = `${params.join(",")}>${results.join(",")}`;
    const found = this.#types.indexOf(key);
    return found >= 0 ? found : this.#types.push(key) - 1;
  }

  /**
   * Imports a memory of at least `pages` (of 64 KiB), or of exactly that many; gives its index.
   * V8 keeps base and size of a fixed one out of the way of register allocation.
   */
  importMemory(module: string, name: string, pages: number, fixed = false): number {
    const body = new Bytes();
    body.u8(fixed ? 1 : 0);
    body.u32(pages);
    if (fixed) body.u32(pages);
    this.#imports.push({ module, name, kind: 2, body });
    return this.#imports.filter((i) => i.kind === 2).length - 1;
  }

  /** Imports a table of function references. */
  importTable(module: string, name: string, size: number): number {
    const body = new Bytes();
    body.raw([0x70, 0]);
    body.u32(size);
    this.#imports.push({ module, name, kind: 1, body });
    return this.#tables++;
  }

  importFunction(
    module: string,
    name: string,
    params: readonly ValType[],
    results: readonly ValType[] = [],
  ): Callable {
    if (this.#functions.length > 0) {
      throw new Error(`import ${name}: imports come before functions`);
    }
    const body = new Bytes();
    body.u32(this.typeIndex(params, results));
    this.#imports.push({ module, name, kind: 0, body });
    const callable = { name, index: this.#functionImports++, params, results };
    this.#byName.set(name, callable);
    return callable;
  }

  /** Imports a mutable i32 global. */
  importGlobal(module: string, name: string): Global {
    const body = new Bytes();
    body.raw([0x7f, 1]);
    this.#imports.push({ module, name, kind: 3, body });
    return new Global(this.#globalImports.push(name) - 1);
  }

  /** Opens a function; `build` writes its body. It is exported if `exported`. */
  func(
    name: string,
    params: readonly ValType[],
    results: readonly ValType[],
    build: (f: Func, ...params: Local[]) => void,
    exported = true,
  ): Callable {
    const declared = this.#byName.get(name);
    const f = declared instanceof Func && !declared.isBuilt
      ? declared
      : this.declare(name, params, results, exported);
    if (f.params.join() !== params.join() || f.results.join() !== results.join()) {
      throw new TypeError(`${name}: declared as (${f.params}) -> (${f.results})`);
    }
    f.build(build);
    return f;
  }

  /** Declares a function that `func` defines further on, unless it is known already. */
  declareLater(name: string, params: readonly ValType[], results: readonly ValType[]): void {
    if (!this.#byName.has(name)) this.declare(name, params, results);
  }

  /** Names of all functions, imported ones first. */
  names(): string[] {
    return [...this.#byName.keys()];
  }

  /** A function whose body comes later, so that others can call it. */
  declare(
    name: string,
    params: readonly ValType[],
    results: readonly ValType[],
    exported = true,
  ): Func {
    if (this.#byName.has(name)) throw new Error(`function ${name} is declared twice`);
    const index = this.#functionImports + this.#functions.length;
    const f = new this.Function(this, name, index, params, results);
    this.#functions.push(f);
    this.#byName.set(name, f);
    if (exported) this.#exports.push({ name, index: f.index });
    return f;
  }

  /** The function of that name, imported or own. */
  get(name: string): Callable {
    const found = this.#byName.get(name);
    if (!found) throw new Error(`no function named ${name} in this module`);
    return found;
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** The binary module. */
  bytes(): Uint8Array<ArrayBuffer> {
    const out = new Bytes();
    out.raw([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const section = (id: number, write: (b: Bytes) => void) => {
      const body = new Bytes();
      write(body);
      out.u8(id);
      out.u32(body.length);
      out.raw(body.view());
    };
    const bodies = this.#functions.map((f) => f.finish());
    const funcTypes = this.#functions.map((f) => this.typeIndex(f.params, f.results));
    section(1, (b) => {
      b.u32(this.#types.length);
      for (const key of this.#types) {
        const [params, results] = key.split(">").map((s) => s === "" ? [] : s.split(","));
        b.u8(0x60);
        for (const list of [params, results]) {
          b.u32(list.length);
          for (const t of list) b.u8(VAL_TYPE_CODE[t as ValType]);
        }
      }
    });
    section(2, (b) => {
      b.u32(this.#imports.length);
      for (const i of this.#imports) {
        b.text(i.module);
        b.text(i.name);
        b.u8(i.kind);
        b.raw(i.body.view());
      }
    });
    section(3, (b) => {
      b.u32(funcTypes.length);
      for (const t of funcTypes) b.u32(t);
    });
    section(7, (b) => {
      b.u32(this.#exports.length);
      for (const e of this.#exports) {
        b.text(e.name);
        b.u8(0);
        b.u32(e.index);
      }
    });
    section(10, (b) => {
      b.u32(bodies.length);
      for (const body of bodies) {
        b.u32(body.length);
        b.raw(body.view());
      }
    });
    // Function names, for profiles and stack traces.
    section(0, (b) => {
      b.text("name");
      const names = new Bytes();
      names.u32(this.#functions.length);
      for (const f of this.#functions) {
        names.u32(f.index);
        names.text(f.name);
      }
      b.u8(1);
      b.u32(names.length);
      b.raw(names.view());
    });
    return out.view();
  }
}

/** A mutable i32 global of a module. */
export class Global extends Expr {
  constructor(readonly index: number) {
    super("i32", [0x23, index]);
  }
}

/** A function under construction. Statements are emitted in the order they are called. */
export class Func implements Callable {
  readonly #code = new Bytes();
  readonly #localTypes: ValType[] = [];
  /** Locals given back, by type. */
  readonly #free: Partial<Record<ValType, Local[]>> = {};
  #depth = 0;
  #built = false;

  constructor(
    readonly module: Module,
    readonly name: string,
    readonly index: number,
    readonly params: readonly ValType[],
    readonly results: readonly ValType[],
  ) {}

  build(write: (f: this, ...params: Local[]) => void): void {
    if (this.#built) throw new Error(`${this.name}: built twice`);
    this.#built = true;
    write(this, ...this.params.map((t, i) => new Local(t, i)));
  }

  finish(): Bytes {
    if (!this.#built) throw new Error(`${this.name}: declared but not built`);
    if (this.#depth !== 0) throw new Error(`${this.name}: a block was left open`);
    const out = new Bytes();
    const runs: { type: ValType; count: number }[] = [];
    for (const type of this.#localTypes) {
      const last = runs.at(-1);
      if (last?.type === type) last.count++;
      else runs.push({ type, count: 1 });
    }
    out.u32(runs.length);
    for (const run of runs) {
      out.u32(run.count);
      out.u8(VAL_TYPE_CODE[run.type]);
    }
    out.raw(this.#code.view());
    out.u8(0x0b);
    return out;
  }

  get isBuilt(): boolean {
    return this.#built;
  }

  /** How many locals the function has, parameters apart. */
  get localCount(): number {
    return this.#localTypes.length;
  }

  /** A fresh local (its value is whatever it last held, zero at first). */
  local(type: ValType): Local {
    const free = this.#free[type]?.pop();
    if (free) {
      this.#taken?.push(free);
      return free;
    }
    const local = new Local(type, this.params.length + this.#localTypes.push(type) - 1);
    this.#taken?.push(local);
    return local;
  }

  #taken: Local[] | undefined;

  /** Runs `body`; the locals it took are free for others afterwards. */
  scope(body: () => void): void {
    const outer = this.#taken;
    this.#taken = [];
    body();
    for (const local of this.#taken) (this.#free[local.type] ??= []).push(local);
    this.#taken = outer;
  }

  /** Evaluates an expression now and keeps it in a local. */
  let(value: Expr): Local {
    const local = this.local(value.type);
    this.set(local, value);
    return local;
  }

  set(local: Local, value: Operand): void {
    toExpr(local.type, value).emit(this.#code);
    this.#code.raw(localCode(0x21, local.index));
  }

  setGlobal(global: Global, value: Operand): void {
    toExpr("i32", value).emit(this.#code);
    this.#code.raw([0x24, global.index]);
  }

  /** Stores the low `bits` of `value` at `address` + `offset` in memory number `memory`. */
  store(bits: number, address: Operand, value: Expr, offset = 0, memory = 0): void {
    toExpr("i32", address).emit(this.#code);
    value.emit(this.#code);
    this.#code.raw(storeCode(value.type, bits, offset, memory));
  }

  store128(address: Operand, value: Expr, offset = 0, memory = 0): void {
    toExpr("i32", address).emit(this.#code);
    value.emit(this.#code);
    this.#code.raw(store128Code(offset, memory));
  }

  /** `memory.fill`: `count` bytes of `value` from `address`. */
  fill(address: Operand, value: Operand, count: Operand, memory = 0): void {
    for (const e of [address, value, count]) toExpr("i32", e).emit(this.#code);
    this.#code.raw([0xfc, 11, memory]);
  }

  /** `memory.copy` within or between memories. */
  copy(to: Operand, from: Operand, count: Operand, toMemory = 0, fromMemory = toMemory): void {
    for (const e of [to, from, count]) toExpr("i32", e).emit(this.#code);
    this.#code.raw([0xfc, 10, toMemory, fromMemory]);
  }

  if(condition: Expr, then: () => void, otherwise?: () => void): void {
    toExpr("i32", condition).emit(this.#code);
    this.#code.raw([0x04, 0x40]);
    this.#depth++;
    then();
    if (otherwise) {
      this.#code.u8(0x05);
      otherwise();
    }
    this.#depth--;
    this.#code.u8(0x0b);
  }

  /** A block; a branch to its label leaves it. */
  block(body: (label: Label) => void): void {
    this.#code.raw([0x02, 0x40]);
    this.#depth++;
    body({ depth: this.#depth });
    this.#depth--;
    this.#code.u8(0x0b);
  }

  /** A loop; a branch to its label starts it again, its end leaves it. */
  loop(body: (label: Label) => void): void {
    this.#code.raw([0x03, 0x40]);
    this.#depth++;
    body({ depth: this.#depth });
    this.#depth--;
    this.#code.u8(0x0b);
  }

  while(condition: () => Expr, body: (out: Label) => void): void {
    this.block((out) =>
      this.loop((again) => {
        this.brIf(out, condition().eqz());
        body(out);
        this.br(again);
      })
    );
  }

  br(label: Label): void {
    this.#code.u8(0x0c);
    this.#code.u32(this.#depth - label.depth);
  }

  brIf(label: Label, condition: Expr): void {
    toExpr("i32", condition).emit(this.#code);
    this.#code.u8(0x0d);
    this.#code.u32(this.#depth - label.depth);
  }

  /** Runs `cases[index]`; any other index runs `otherwise`. Cases do not fall through. */
  switch(index: Expr, cases: readonly (() => void)[], otherwise: () => void): void {
    const bodies = [...cases, otherwise];
    this.block((out) => {
      // Block number i, counted from inside, ends where body i begins.
      const nest = (level: number) => {
        if (level < 0) {
          index.emit(this.#code);
          this.#code.u8(0x0e);
          this.#code.u32(cases.length);
          for (let i = 0; i <= cases.length; i++) this.#code.u32(i);
          return;
        }
        this.block(() => nest(level - 1));
        this.scope(bodies[level]);
        this.br(out);
      };
      nest(bodies.length - 1);
    });
  }

  /** Calls a function; its result, if any, is kept in a local, so that order is as written. */
  call(target: Callable | string, ...args: Operand[]): Local {
    const callee = typeof target === "string" ? this.module.get(target) : target;
    if (args.length !== callee.params.length) {
      throw new TypeError(
        `${callee.name}: ${callee.params.length} arguments, ${args.length} given`,
      );
    }
    args.forEach((a, i) => toExpr(callee.params[i], a).emit(this.#code));
    this.#code.u8(0x10);
    this.#code.u32(callee.index);
    if (callee.results.length === 0) return undefined as unknown as Local;
    const result = this.local(callee.results[0]);
    this.#code.raw(localCode(0x21, result.index));
    return result;
  }

  /** Calls the function at `index` of table 0, of the given type. */
  callIndirect(
    index: Expr,
    params: readonly ValType[],
    results: readonly ValType[],
    ...args: Operand[]
  ): Local {
    args.forEach((a, i) => toExpr(params[i], a).emit(this.#code));
    index.emit(this.#code);
    this.#code.u8(0x11);
    this.#code.u32(this.module.typeIndex(params, results));
    this.#code.u8(0);
    if (results.length === 0) return undefined as unknown as Local;
    const result = this.local(results[0]);
    this.#code.raw(localCode(0x21, result.index));
    return result;
  }

  return(value?: Operand): void {
    if (value !== undefined) toExpr(this.results[0], value).emit(this.#code);
    this.#code.u8(0x0f);
  }

  /** Leaves `value` on the stack: the last statement of a function with a result. */
  result(value: Operand): void {
    toExpr(this.results[0], value).emit(this.#code);
  }

  unreachable(): void {
    this.#code.u8(0);
  }
}
