/** A builder that records what semantics functions do: cells, calls, flags, faults, where they go on. */
import { virtualization } from "../virtualization.ts";
import { ColdMeaning } from "../interpreter/cold.ts";
import { buildSystem, coldForms } from "../interpreter/modules.ts";
import { ARCHITECTURAL_START, CPU, V } from "../state.ts";
import { machineModule } from "../linkage.ts";
import { Expr, type Operand } from "../wasm/expr.ts";
import { type Callable, Func, Local, type Module } from "../wasm/module.ts";
import { groups } from "../interpreter/groups.ts";
import { type Form, formName, type Uses } from "./semantics/meaning.ts";
import type { Implied } from "./encodings.ts";
import { gpr64 } from "../../abi/x86/registers.ts";

/** The offset of a load of memory 0 if that is a cell: at address 0, or an element of an array. */
function loaded(e: Expr): number | undefined {
  const [code, hint, ...leb] = e.code;
  const isLoad = code >= 0x28 && code <= 0x35 || code === 0xfd && hint === 0;
  if (!isLoad) return undefined;
  const offset = code === 0xfd ? leb : [hint, ...leb];
  if (offset[0] === 0x40) return undefined;
  const at = offset.slice(1).reduce((sum, byte, n) => sum | (byte & 0x7f) << 7 * n, 0);
  return isCell(e.operands[0], at) ? at : undefined;
}
/** Records and the like are addressed with offsets that lie below all cells. */
function isCell(address: Operand, offset: number): boolean {
  const constant = typeof address === "object" ? address.constant : address;
  return constant === 0 || offset >= ARCHITECTURAL_START;
}

/** A function that notes the cells it touches and the functions it calls. */
export class RecordedFunc extends Func {
  readonly reads = new Set<number>();
  readonly writes = new Set<number>();
  readonly calls = new Set<string>();
  /** Statements that may be left out: the number of blocks around the present one. */
  depth = 0;
  /** Ways out, those of doors left out. */
  returns = 0;
  /** Nothing of what is touched now counts. */
  inDoor = false;
  readonly #from = new Map<number, Set<number>>();
  /** Loads that a door has given out. */
  readonly given = new WeakSet<Expr>();

  /** Cells that a value is loaded from, those that its locals came from as well if `through`. */
  cellsOf(e: Operand | undefined, through: boolean, into = new Set<number>()): Set<number> {
    if (typeof e !== "object") return into;
    const cell = loaded(e);
    if (cell !== undefined && !this.given.has(e)) into.add(cell);
    if (through && e instanceof Local) {
      for (const c of this.#from.get(e.index) ?? []) {
        into.add(c);
      }
    }
    for (const operand of e.operands) this.cellsOf(operand, through, into);
    return into;
  }
  /** Is bit 0 of CR0 looked at? */
  testsMode(e: Expr): boolean {
    const [cr0, mask] = e.operands;
    const here = mask && loaded(cr0) === CPU.cr0 && BigInt(mask.constant ?? 0) === 1n;
    return here || e.operands.some((operand) => this.testsMode(operand));
  }
  /** What a door gives out is its own affair. */
  give(e: unknown): void {
    if (!(e instanceof Expr)) return;
    this.given.add(e);
    e.operands.forEach((operand) => this.give(operand));
  }
  /** Notes what a statement outside of doors looks at. */
  note(...values: (Operand | undefined)[]): void {
    if (this.inDoor) return;
    for (const v of values) for (const cell of this.cellsOf(v, false)) this.reads.add(cell);
  }
  override set(local: Local, value: Operand): void {
    this.note(value);
    const from = this.#from.get(local.index) ?? new Set();
    this.#from.set(local.index, this.inDoor ? from : this.cellsOf(value, true, from));
    super.set(local, value);
  }
  override store(bits: number, address: Operand, value: Expr, offset = 0, memory = 0): void {
    this.#stores(address, value, offset, memory);
    super.store(bits, address, value, offset, memory);
  }
  override store128(address: Operand, value: Expr, offset = 0, memory = 0): void {
    this.#stores(address, value, offset, memory);
    super.store128(address, value, offset, memory);
  }
  #stores(address: Operand, value: Expr, offset: number, memory: number): void {
    this.note(address, value);
    if (!this.inDoor && memory === 0 && isCell(address, offset)) this.writes.add(offset);
  }
  #within(body: () => void): void {
    this.depth++;
    body();
    this.depth--;
  }
  override if(condition: Expr, then: () => void, otherwise?: () => void): void {
    this.note(condition);
    const always = typeof condition.constant === "number" && condition.constant !== 0;
    const inside = (body: () => void) => always ? body : () => this.#within(body);
    super.if(condition, inside(then), otherwise && inside(otherwise));
  }
  override block(body: Parameters<Func["block"]>[0]): void {
    super.block((label) => this.#within(() => body(label)));
  }
  override loop(body: Parameters<Func["loop"]>[0]): void {
    super.loop((label) => this.#within(() => body(label)));
  }
  override brIf(...[label, condition]: Parameters<Func["brIf"]>): void {
    this.note(condition);
    super.brIf(label, condition);
  }
  override call(target: Callable | string, ...args: Operand[]): Local {
    this.note(...args);
    if (!this.inDoor) this.calls.add(typeof target === "string" ? target : target.name);
    return super.call(target, ...args);
  }
  override return(value?: Operand): void {
    this.note(value);
    if (!this.inDoor) this.returns++;
    super.return(value);
  }
  override result(value: Operand): void {
    this.note(value);
    super.result(value);
  }
}

/** What the semantics of one form does. */
export interface Recorded {
  readonly form: Form;
  readonly f: RecordedFunc;
  readonly uses: readonly Uses[];
  /** Kinds of lazy flags left, and whether always. */
  readonly lazy: readonly { readonly kind: string; readonly always: boolean }[];
  /** Cells that decide about faults, and whether CR0.PE does, those of the doors left out. */
  readonly faultCells: ReadonlySet<number>;
  readonly modeFault: boolean;
  /** It may go on with the next instruction. */
  readonly fallsThrough: boolean;
}

class RecordingMeaning extends ColdMeaning {
  readonly noted: Uses[] = [];
  readonly lazy: { kind: string; always: boolean }[] = [];
  readonly faultCells = new Set<number>();
  modeFault = false;
  /** It has left, whatever the conditions. */
  left = false;

  constructor(readonly recorded: RecordedFunc, form: Form, rec: Expr) {
    super(recorded, form, rec);
  }
  override uses(what: Uses): void {
    super.uses(what);
    this.noted.push(what);
  }
  /** Notes what decides about a fault that no door raises. */
  noteFault(condition: Expr): void {
    this.recorded.cellsOf(condition, true, this.faultCells);
    this.modeFault ||= this.recorded.testsMode(condition);
  }
  #leaves(): void {
    if (this.recorded.depth === 0) this.left = true;
  }
  protected override giveUp(): void {
    this.#leaves();
    super.giveUp();
  }
  override branch(ip: Expr): void {
    this.#leaves();
    super.branch(ip);
  }
  override serialize(): void {
    if (!this.toNext) this.#leaves();
    super.serialize();
  }
  /** RIP has been set to the next instruction. */
  toNext = false;
  override advance(): void {
    this.toNext = true;
    super.advance();
  }
}

/** The kind of lazy flags that a door of {@linkcode Meaning} leaves. */
function lazyKind(door: string, by: unknown): string | undefined {
  if (door === "flagsStep") return by === 1 ? "increment" : "decrement";
  return { flagsAdd: "add", flagsSub: "sub", flagsLogic: "logic", flagsResult: "result" }[door];
}

/** A method of Meaning: what it touches is its own affair, what it is given and calls back is not. */
const door = (name: string, plain: (...args: unknown[]) => unknown) =>
  function (this: RecordingMeaning, ...args: unknown[]): unknown {
    const f = this.recorded, outer = f.inDoor;
    const kind = lazyKind(name, args[0]);
    if (kind) this.lazy.push({ kind, always: f.depth === 0 });
    for (const arg of args) if (arg instanceof Expr) f.note(arg);
    if (name === "faultIf" && !outer) this.noteFault(args[0] as Expr);
    if (name === "callChecked" && !outer) f.calls.add(args[0] as string);
    f.inDoor = true;
    const result = plain.apply(
      this,
      args.map((arg) => typeof arg === "function" ? outside(f, arg as () => void) : arg),
    );
    f.inDoor = outer;
    f.give(result);
    return result;
  };
const outside = (f: RecordedFunc, body: (...args: unknown[]) => void) => (...args: unknown[]) => {
  const inner = f.inDoor;
  f.inDoor = false;
  body(...args);
  f.inDoor = inner;
};

/** All methods, overridden ones once. */
function methodsOf(prototype: object): Record<string, PropertyDescriptor> {
  const base = Object.getPrototypeOf(prototype);
  const inherited = base === Object.prototype ? {} : methodsOf(base);
  return { ...inherited, ...Object.getOwnPropertyDescriptors(prototype) };
}
for (const [name, { value, get }] of Object.entries(methodsOf(RecordingMeaning.prototype))) {
  if (name === "constructor") continue;
  const wrapped = get ? { get: door(name, get) } : { value: door(name, value) };
  Object.defineProperty(RecordingMeaning.prototype, name, wrapped);
}

/** Every function of module S and of a group, and what each form of the group's semantics does. */
export function recordGroup(name: string): { module: Module; records: Recorded[] } {
  const model = name === "svm" ? "amd" : "intel", group = groups[name];
  const module = machineModule(RecordedFunc as typeof Func);
  buildSystem(module, virtualization[model]);
  group.functions?.(module);
  const records: Recorded[] = [];
  for (const form of coldForms(name)) {
    const f = module.declare(formName(form), ["i32"], ["i32"]) as RecordedFunc;
    f.build((_, rec) => {
      const m = new RecordingMeaning(f, form, rec);
      group.semantics[form.key](m);
      const { noted: uses, lazy, faultCells, modeFault, left } = m;
      records.push({ form, f, uses, lazy, faultCells, modeFault, fallsThrough: !left });
      f.result(0);
    });
  }
  return { module, records };
}

/** Cells that hold flags, the arithmetic ones while they are lazy. */
export const FLAG_CELLS: readonly number[] = [
  CPU.flagOp,
  CPU.flagCarry,
  CPU.flagX,
  CPU.flagY,
  CPU.rflags,
];
export const PRIVILEGE_CELL: number = V.cpl;

/** What of the instruction table's columns `in` and `out` a cell belongs to. */
export function impliedBy(cell: number): Implied | undefined {
  if (cell >= CPU.rax && cell < CPU.rip) return gpr64[(cell - CPU.rax) >> 3];
  if (cell >= CPU.fpr0 && cell < CPU.mxcsr) return "x87";
  if (cell === CPU.mxcsr) return "mxcsr";
  if (cell >= CPU.xmm0 && cell < CPU.xmm15 + 16) return "xmm";
}
