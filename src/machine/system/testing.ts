/** A processor in protected mode with a small set of descriptors, for the tests of this folder. */
import type { GprName } from "../../abi/x86/registers.ts";
import { checkById } from "../checks.ts";
import { Cpuid } from "../cpuid.ts";
import { assemble } from "../isa/encode.ts";
import { Machine } from "../machine.ts";
import { SEGMENT, segment, V } from "../state.ts";

/** Where things lie. */
export const AT = {
  gdt: 0x1000,
  idt: 0x2000,
  ldt: 0x2800,
  tss: 0x3000,
  tss2: 0x3100,
  tss16: 0x3200,
  stubs: 0x4000,
  code: 0x8000,
  stack0: 0x7000,
  stack1: 0x6800,
  stack3: 0x6000,
} as const;

const descriptor = (base: number, limit: number, access: number, flags = 0): bigint =>
  BigInt(limit & 0xffff) | BigInt(base & 0xff_ffff) << 16n | BigInt(access) << 40n |
  BigInt(limit >>> 16) << 48n | BigInt(flags) << 52n | BigInt(base >>> 24) << 56n;
const gate = (selector: number, offset: number, access: number, count = 0): bigint =>
  BigInt(offset & 0xffff) | BigInt(selector) << 16n | BigInt(count) << 32n |
  BigInt(access) << 40n | BigInt(offset >>> 16) << 48n;

/** Selectors of the table. */
export const S = {
  code: 0x08,
  data: 0x10,
  code3: 0x1b,
  data3: 0x23,
  mainTask: 0x28,
  otherTask: 0x30,
  localTable: 0x38,
  absent: 0x40,
  executeOnly: 0x48,
  conforming: 0x50,
  readOnly: 0x58,
  callGate: 0x63,
  code16: 0x68,
  data16: 0x70,
  taskGate: 0x7b,
  smallTask: 0x80,
  expandDown: 0x88,
  small: 0x90,
  code1: 0x99,
  data1: 0xa1,
  callGate16: 0xab,
  absentGate: 0xb3,
  beyond: 0xc0,
  /** In the LDT. */
  local: 0x0c,
} as const;

const GDT: bigint[] = [
  0n,
  descriptor(0, 0xfffff, 0x9a, 0xc),
  descriptor(0, 0xfffff, 0x92, 0xc),
  descriptor(0, 0xfffff, 0xfa, 0xc),
  descriptor(0, 0xfffff, 0xf2, 0xc),
  descriptor(AT.tss, 0x67, 0x8b),
  descriptor(AT.tss2, 0x67, 0x89),
  descriptor(AT.ldt, 0x17, 0x82),
  descriptor(0, 0xfffff, 0x12, 0xc),
  descriptor(0, 0xfffff, 0x98, 0xc),
  descriptor(0, 0xfffff, 0x9e, 0xc),
  descriptor(0, 0xfffff, 0x90, 0xc),
  gate(0x08, 0x9000, 0xec, 2),
  descriptor(0, 0xffff, 0x9a),
  descriptor(0, 0xffff, 0x92),
  gate(0x30, 0, 0xe5),
  descriptor(AT.tss16, 0x2b, 0x81),
  descriptor(0, 0xfff, 0x96, 0x4),
  descriptor(AT.code, 0xff, 0x92, 0x4),
  descriptor(0, 0xfffff, 0xba, 0xc),
  descriptor(0, 0xfffff, 0xb2, 0xc),
  gate(0x08, 0x9000, 0xe4, 1),
  gate(0x08, 0x9000, 0x6c, 0),
];
const LDT: bigint[] = [0n, descriptor(0x10000, 0xffff, 0x92, 0x4), 0n];

export interface Setup {
  /** "intel" if absent. */
  readonly cpu?: "intel" | "amd";
  /** Privilege the code starts at; default 0. */
  readonly cpl?: 0 | 3;
  /** Gates by vector, instead of the interrupt gates with DPL 0. */
  readonly gates?: Readonly<Record<number, bigint>>;
  /** EFLAGS to start with; default 2. */
  readonly flags?: number;
  readonly cr4?: number;
  /** Bytes to put somewhere before the start. */
  readonly memory?: readonly (readonly [number, Uint8Array | readonly number[]])[];
  /** More to set before the start. */
  readonly prepare?: (machine: Machine) => void;
  /** Instructions allowed; default 1000. */
  readonly budget?: number;
  readonly idtLimit?: number;
}

/** What a piece of code did. */
export interface Ran {
  readonly machine: Machine;
  readonly stop: string;
  /** Vector, error code (if that vector has one) and EIP, if the code ended in a handler. */
  readonly vector?: number;
  readonly error?: number;
  readonly eip?: number;
  /** Name of the check that was noted last. */
  readonly check: string;
  /** What the code wrote to port E9h. */
  readonly out: string;
  /** A 32-bit register. */
  reg(name: string): number;
  word(address: number): number;
}

const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17]);
export { descriptor, gate };

/** Runs 32-bit code (Intel syntax, at AT.code) until it halts; every vector ends in a HLT. */
export function runCode(source: string, setup: Setup = {}): Ran {
  const machine = new Machine({ memory: 1 << 20, cpu: setup.cpu });
  const { cpu } = machine;
  cpu.hooks.cpuid = new Cpuid(cpu.model).install(cpu.i32);
  let out = "";
  machine.bus = {
    ...machine.bus,
    ioWrite: (port, _bytes, value) => {
      if (port === 0xe9) out += String.fromCharCode(value & 0xff);
    },
  };
  writeTables(machine, setup);
  const { bytes } = assemble(source, { mode: 32, origin: AT.code, symbols: { ...AT, ...S } });
  machine.write(AT.code, bytes);
  for (const [at, data] of setup.memory ?? []) machine.write(at, Uint8Array.from(data));
  enter(machine, setup);
  setup.prepare?.(machine);
  const stop = cpu.run(setup.budget ?? 1000);
  const view = new DataView(machine.ram.buffer);
  const word = (address: number) => view.getUint32(address, true);
  const rip = Number(cpu.get("rip"));
  const inStub = rip >= AT.stubs && rip < AT.stubs + 0x1000;
  const top = Number(cpu.get("rsp") & 0xffff_ffffn);
  const vector = inStub ? word(top) : undefined;
  const hasError = vector !== undefined && WITH_ERROR.has(vector);
  return {
    machine,
    stop,
    vector,
    error: hasError ? word(top + 4) : undefined,
    eip: inStub ? word(top + (hasError ? 8 : 4)) : undefined,
    check: checkById(cpu.i32[V.check >> 2]).name,
    out,
    reg: (name) => Number(cpu.get(`r${name.slice(1)}` as GprName) & 0xffff_ffffn),
    word,
  };
}

function writeTables(machine: Machine, setup: Setup): void {
  const put = (at: number, values: bigint[]) =>
    machine.write(at, new Uint8Array(BigUint64Array.from(values).buffer));
  put(AT.gdt, GDT);
  put(AT.ldt, LDT);
  const gates: bigint[] = [];
  const stubs = new Uint8Array(256 * 8);
  for (let v = 0; v < 256; v++) {
    gates.push(setup.gates?.[v] ?? gate(S.code, AT.stubs + 8 * v, 0x8e));
    // push v; hlt
    stubs.set([0x68, v, 0, 0, 0, 0xf4], 8 * v);
  }
  put(AT.idt, gates);
  machine.write(AT.stubs, stubs);
  const task = new Uint32Array(26);
  task.set([0, AT.stack0, S.data, AT.stack1, S.data1]);
  task[25] = 0x68 << 16;
  machine.write(AT.tss, new Uint8Array(task.buffer));
}

function enter(machine: Machine, setup: Setup): void {
  const { cpu } = machine, cpl = setup.cpl ?? 0;
  const flat = (n: number, selector: number, access: number) =>
    cpu.setSegment(n, { selector, base: 0n, limit: 0xffff_ffff, attributes: 0xc000 | access });
  for (const n of [0, 2, 3, 4, 5]) {
    flat(n, cpl ? S.data3 : S.data, cpl ? 0xf3 : 0x93);
  }
  flat(1, cpl ? S.code3 : S.code, cpl ? 0xfb : 0x9b);
  cpu.setSegment(6, {
    selector: S.localTable,
    base: BigInt(AT.ldt),
    limit: 0x17,
    attributes: 0x82,
  });
  cpu.setSegment(7, { selector: S.mainTask, base: BigInt(AT.tss), limit: 0x67, attributes: 0x8b });
  cpu.set("gdtr.base", BigInt(AT.gdt));
  cpu.set("gdtr.limit", BigInt(GDT.length * 8 - 1));
  cpu.set("idtr.base", BigInt(AT.idt));
  cpu.set("idtr.limit", BigInt(setup.idtLimit ?? 0x7ff));
  cpu.set("cr0", 0x11n);
  cpu.set("cr4", BigInt(setup.cr4 ?? 0));
  cpu.set("rsp", BigInt(cpl ? AT.stack3 : AT.stack0));
  cpu.set("rip", BigInt(AT.code));
  cpu.set("rflags", BigInt(setup.flags ?? 2));
}

/** Selector of a segment register by its number in encoding order (6 LDTR, 7 TR). */
export function selectorOf(machine: Machine, n: number): number {
  return machine.cpu.i32[(segment(n) + SEGMENT.selector) >> 2];
}
