/** A guest of a few instructions, for the tests of this folder. */
import { assemble } from "../machine/isa/encode.ts";
import { Machine } from "../machine/machine.ts";
import type { Exit } from "./exit.ts";
import type { HvmCpu, HvmOps, HvmVcpu, Intercepts, NestedRights, Stopped } from "./ops.ts";
import { hvmOps } from "./vendors.ts";
import type { CpuModel } from "../machine/vendors.ts";

/** Where the guest's 2 MiB lie in machine memory, and what is in them. */
export const GUEST = {
  machine: 4 << 20,
  gdt: 0x1000,
  idt: 0x2000,
  stack: 0x7000,
  code: 0x8000,
  tss: 0x3000,
};

/** The exit by which a guest left. @throws {Error} if it stopped without one */
export function exitOf(left: Exit | Stopped): Exit {
  if (typeof left === "string") throw new Error(`an exit was expected, the guest stopped: ${left}`);
  return left;
}

/** One machine with a vCPU in flat 32-bit protected mode; guest memory is one 2-MiB nested page. */
export class Guest {
  readonly machine: Machine;
  readonly ops: HvmOps;
  readonly on: HvmCpu;
  v!: HvmVcpu;
  root = 0;
  #next = 1 << 20;
  /** Where the frames of one test begin. */
  readonly #first: number;
  #free: number[] = [];
  readonly frames = {
    allocate: (count = 1) => {
      const reused = count === 1 ? this.#free.pop() : undefined;
      const frame = reused ?? (this.#next += 4096 * count) - 4096 * count;
      if (frame + 4096 * count > GUEST.machine) throw new Error("no frames are left");
      this.machine.write(frame, new Uint8Array(4096 * count));
      return frame;
    },
    free: (frame: number) => void this.#free.push(frame),
  };

  constructor(model: CpuModel) {
    this.machine = new Machine({ memory: 8 << 20, cpu: model });
    this.ops = hvmOps(model);
    const { cpu } = this.machine;
    cpu.hooks.msr = () => false;
    this.on = this.ops.enable(cpu, this.frames);
    this.#first = this.#next;
    this.reset();
  }

  /** A fresh vCPU and empty memory. */
  reset(): void {
    const { ops } = this;
    if (this.v) ops.destroyVcpu(this.v, this.frames);
    this.#next = this.#first;
    this.#free = [];
    this.v = ops.createVcpu(this.on, this.frames);
    this.machine.write(GUEST.machine, new Uint8Array(2 << 20));
    this.root = this.#nestedTables();
    ops.setNestedRoot(this.v, this.root);
    // GDT: null, code, data, TSS, LDT.
    const gdt = [0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, tss(9), tss(2)];
    gdt.forEach((d, n) => this.write64(GUEST.gdt + 8 * n, d));
    const { v } = this;
    const data = { selector: 16, base: 0n, limit: 0xffff_ffff, attributes: 0xc093 };
    for (const s of ["ss", "ds", "es", "fs", "gs"] as const) ops.setSegment(v, s, data);
    ops.setSegment(v, "cs", { ...data, selector: 8, attributes: 0xc09b });
    ops.setSegment(v, "tr", {
      selector: 24,
      base: BigInt(GUEST.tss),
      limit: 0x67,
      attributes: 0x8b,
    });
    ops.setDescriptorTable(v, "gdtr", { base: BigInt(GUEST.gdt), limit: 8 * gdt.length - 1 });
    ops.setDescriptorTable(v, "idtr", { base: BigInt(GUEST.idt), limit: 0x7ff });
    ops.setCr(v, 0, 0x31n);
    ops.setRegister(v, "rsp", BigInt(GUEST.stack));
  }

  #nestedTables(): number {
    const { table } = this.ops.nestedFormat;
    const l4 = this.frames.allocate(), l3 = this.frames.allocate();
    this.l2 = this.frames.allocate();
    this.machineWrite64(l4, table(l3));
    this.machineWrite64(l3, table(this.l2));
    this.mapLarge(0, GUEST.machine);
    return l4;
  }
  /** Maps one of the first 512 pages of 2 MBytes. */
  mapLarge(page: number, machine: number, rights: NestedRights = ALL): void {
    this.machineWrite64(this.l2 + 8 * page, this.ops.nestedFormat.page(machine, rights) | 0x80n);
  }
  /** The nested page directory. */
  l2 = 0;

  /** Maps the first 4 KBytes of such a page by a table of its own. */
  mapSmall(page: number, machine: number, rights: NestedRights): void {
    const table = this.frames.allocate(), format = this.ops.nestedFormat;
    this.machineWrite64(this.l2 + 8 * page, format.table(table));
    this.machineWrite64(table, format.page(machine, rights));
  }

  /** Tables for shadow paging: the guest's 2 MiB in one large page. */
  shadowTables(): number {
    const pointers = this.frames.allocate(), directory = this.frames.allocate();
    this.machineWrite64(pointers, BigInt(directory) | 1n);
    this.machineWrite64(directory, BigInt(GUEST.machine) | 0xe7n);
    return pointers;
  }

  machineWrite64(address: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.machine.write(address, bytes);
  }
  write(gpa: number, bytes: Uint8Array): void {
    this.machine.write(GUEST.machine + gpa, bytes);
  }
  write64(gpa: number, value: bigint): void {
    this.machineWrite64(GUEST.machine + gpa, value);
  }
  read32(gpa: number): number {
    return new DataView(this.machine.ram.buffer).getUint32(GUEST.machine + gpa, true);
  }

  /** An interrupt gate of the guest. */
  gate(vector: number, handler: number): void {
    const low = BigInt(handler & 0xffff) | 8n << 16n | 0x8e00n << 32n;
    this.write64(GUEST.idt + 8 * vector, low | BigInt(handler >>> 16) << 48n);
  }

  /** Puts code at GUEST.code and the instruction pointer on it. */
  load(source: string, mode: 16 | 32 | 64 = 32): Map<string, bigint> {
    const { bytes, symbols } = assemble(`org ${GUEST.code}\nbits ${mode}\n${source}`, { mode });
    this.write(GUEST.code, bytes);
    this.ops.setRegister(this.v, "rip", BigInt(GUEST.code));
    return symbols as Map<string, bigint>;
  }

  /** Runs from where it stands; at most `budget` instructions. */
  enter(budget: number): Exit | Stopped {
    return this.ops.enter(this.v, { budget });
  }
  /** The same to its exit. */
  run(budget = 1000): Exit {
    return exitOf(this.enter(budget));
  }

  /** One 4-MByte page maps the first addresses onto themselves; paging is not on yet. */
  identityPage(): void {
    this.write64(0x4000, 0x83n);
    this.ops.setCr(this.v, 3, 0x4000n);
    this.ops.setCr(this.v, 4, 0x10n);
  }

  /** 64-bit mode, on one page of 1 GByte that maps the first addresses onto themselves. */
  longMode(): void {
    const { ops, v } = this;
    this.write64(0x4000, 0x5003n);
    this.write64(0x5000, 0x83n);
    ops.setMsr(v, 0xc000_0080, 0x100n);
    ops.setCr(v, 4, 0x20n);
    ops.setCr(v, 3, 0x4000n);
    ops.setCr(v, 0, 0x8000_0031n);
    ops.setSegment(v, "cs", { ...ops.getSegment(v, "cs"), attributes: 0xa09b });
  }

  want(intercepts: Intercepts): void {
    this.ops.setIntercepts(this.v, intercepts);
  }
}

const ALL: NestedRights = { read: true, write: true, execute: true };

/** A system descriptor of that type at GUEST.tss. */
function tss(type: number): bigint {
  return BigInt(GUEST.tss & 0xffff) << 16n | BigInt(0x80 | type) << 40n | 0x67n;
}
