/**
 * Translations as the hardware makes them: the machine's own walk, run as a look that sets no
 * accessed bit, with the levels it records. What the shell shows is what the processor walks.
 *
 * @module
 */
import { CR0, CR4, EFER } from "../abi/x86/cr.ts";
import type { Cpu } from "../machine/cpu.ts";
import { checkById, explain } from "../machine/checks.ts";
import { holdsPdptes } from "../machine/system/control_rules.ts";
import { WALK_STEP, WALK_STEPS } from "../machine/mmu/walk.ts";
import {
  ABORT,
  ACCESS,
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  TLB_LIST,
  V,
} from "../machine/state.ts";
import type { NestedFormat } from "../hvm/ops.ts";
import type { RegisterFile } from "./register_file.ts";

/** One entry that a walk read. */
export interface RawStep {
  /** 1 to 4, as in the manual: 4 the PML4 entry, 1 the page-table entry. */
  readonly level: number;
  /** Of the nested tables, not of the guest's. */
  readonly nested: boolean;
  /** Where the entry lies: guest-physical for the guest's tables, machine for nested ones. */
  readonly address: bigint;
  readonly entry: bigint;
}

/** What a walk came to. */
export interface RawWalk {
  readonly steps: readonly RawStep[];
  /** Machine address, undefined where the walk ended early. */
  readonly machine?: number;
  /** Why it ended early. */
  readonly failure?: {
    readonly kind: "fault" | "exit";
    readonly check: string;
    readonly text: string;
  };
}

/** How addresses of a vCPU are translated. */
export interface PagingContext {
  readonly cpu: Cpu;
  readonly file: RegisterFile;
  /** Nested tables: machine address of their root, and their format; undefined: none. */
  readonly nested?: { readonly root: number; readonly format: NestedFormat };
  /** The shadow tables that the processor walks in place of the guest's, if it does. */
  readonly shadow?: ShadowRoot;
}

/** Where shadow tables begin, and their format: 4-level, else PAE. */
export interface ShadowRoot {
  readonly root: number;
  readonly fourLevel: boolean;
}

const PG = BigInt(CR0.PG);
const CELLS = { from: V.abort, to: 0x1180 };
const ENTRIES = { from: V.walkEntries, to: 0x2000 };

/**
 * Runs `look` with the processor's paging registers those of the vCPU; everything is put back. The
 * registers of the machine's own state are not touched for a bare guest, whose they are already.
 */
export function withPaging<T>(context: PagingContext, look: (walker: Walker) => T): T {
  const { file, nested } = context;
  const pointer = nested ? nested.format.pointer(nested.root) : 0n;
  return withRegisters(context, (name) => file.get(name)!, pointer, (walker) => {
    if (nested) loadGuestPdptes(context);
    return look(walker);
  });
}

/** The same over the shadow tables, as the processor has its registers while the guest runs. */
export function withShadow<T>(
  context: PagingContext,
  { root, fourLevel }: ShadowRoot,
  look: (walker: Walker) => T,
): T {
  const long = fourLevel ? EFER.LME | EFER.LMA : 0;
  const values: Record<string, bigint> = {
    cr0: BigInt(CR0.PE | CR0.ET | CR0.NE | CR0.WP) | PG,
    cr3: BigInt(root),
    cr4: BigInt(CR4.PAE),
    efer: BigInt(EFER.SCE | EFER.NXE | long),
  };
  return withRegisters(context, (name) => values[name], 0n, (walker) => {
    if (!fourLevel) context.cpu.loadPdptes(root);
    return look(walker);
  });
}

function withRegisters<T>(
  { cpu }: PagingContext,
  value: (name: string) => bigint,
  nestedPointer: bigint,
  look: (walker: Walker) => T,
): T {
  const { u8, i32 } = cpu;
  // The list of marked tables must have room for what the looks add.
  const room = () => {
    if (i32[V.tables >> 2] > TLB_LIST.maxTables - 64) cpu.flushTlb();
  };
  room();
  const architectural = u8.slice(ARCHITECTURAL_START, ARCHITECTURAL_END);
  const cells = u8.slice(CELLS.from, CELLS.to), entries = u8.slice(ENTRIES.from, ENTRIES.to);
  const steps = u8.slice(WALK_STEPS, ENTRIES.from);
  try {
    for (const name of ["cr0", "cr3", "cr4", "efer"] as const) cpu.set(name, value(name));
    cpu.u64[V.eptp >> 3] = nestedPointer;
    i32[V.paging >> 2] = value("cr0") & PG ? 1 : 0;
    i32[V.emulating >> 2] = 0;
    return look(new Walker(cpu, room));
  } finally {
    const keep = [V.tables, V.fills].map((at) => [at, i32[at >> 2]] as const);
    u8.set(architectural, ARCHITECTURAL_START);
    u8.set(cells, CELLS.from);
    u8.set(entries, ENTRIES.from);
    u8.set(steps, WALK_STEPS);
    for (const [at, value] of keep) i32[at >> 2] = value;
  }
}

/** A nested guest's directory pointers, from its memory (the processor may hold those of another). */
function loadGuestPdptes({ cpu, file }: PagingContext): void {
  const word = (name: string) => Number(BigInt.asIntN(32, file.get(name)!));
  if (!holdsPdptes(word("cr0"), word("cr4"), word("efer"))) return;
  const place = new Walker(cpu, () => {}).nested(file.get("cr3")! & 0xffff_ffe0n);
  if (place.machine !== undefined) cpu.loadPdptes(place.machine);
}

/** Walks in the context that {@linkcode withPaging} set up. */
export class Walker {
  constructor(private readonly cpu: Cpu, private readonly room: () => void) {}

  /** The walk of a linear address, through the nested tables where there are any. */
  walk(linear: bigint): RawWalk {
    return this.#run(() => this.cpu.system.walk(BigInt.asIntN(64, linear), ACCESS.probe));
  }

  /** The nested walk of a guest-physical address. */
  nested(physical: bigint): RawWalk {
    return this.#run(() => this.cpu.system.nested(BigInt.asIntN(64, physical), ACCESS.probe, -1n));
  }

  #run(walk: () => number | bigint): RawWalk {
    const { i32, u64 } = this.cpu;
    this.room();
    i32[V.walkCount >> 2] = 0;
    i32[V.abort >> 2] = ABORT.none;
    const machine = Number(walk());
    const steps: RawStep[] = [];
    for (let n = 0; n < i32[V.walkCount >> 2]; n++) {
      const at = WALK_STEPS + n * WALK_STEP.size;
      const level = i32[(at + WALK_STEP.level) >> 2];
      steps.push({
        level: level & 0xff,
        nested: (level & 0x100) !== 0,
        address: u64[(at + WALK_STEP.address) >> 3],
        entry: u64[(at + WALK_STEP.entry) >> 3],
      });
    }
    const abort = i32[V.abort >> 2];
    i32[V.abort >> 2] = ABORT.none;
    if (abort === ABORT.none) return { steps, machine };
    const id = i32[V.check >> 2];
    const text = explain(id, u64[V.checkA >> 3], u64[V.checkB >> 3]);
    const kind = abort === ABORT.exit ? "exit" : "fault";
    return { steps, failure: { kind, check: checkById(id).name, text } };
  }
}
