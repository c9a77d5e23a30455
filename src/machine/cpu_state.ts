/**
 * What of a processor is state: its registers by their names, what is under way in a guest of its own,
 * and its clock.
 *
 * @module
 */
import { ARITHMETIC } from "../abi/x86/cr.ts";
import type { Cpu } from "./cpu.ts";
import type { Plain } from "./record.ts";
import { amount, bytes, record, type Shape, u32, u64 } from "./shape.ts";
import {
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  architecturalFields,
  CPU,
  type CpuCell,
} from "./state.ts";
import { refuse, type StateBlock, type StateRegister } from "./state_block.ts";
import { virtualization } from "./virtualization.ts";
import { type CellField, fieldsNamed } from "./wasm/cells.ts";
import { COUNTERS } from "./system/msrs.ts";

/** Cells by their names. */
type Values = Readonly<Record<string, number | bigint | Uint8Array>>;

/** How the flags were put off is no state, nor is what lies between fields. */
const REGISTERS = architecturalFields.filter(({ name }) => !/^flag[A-Z]|[pP]ad2?$/.test(name));
const FLAGS = BigInt(ARITHMETIC);

const shapeOf = (fields: readonly CellField[]): Shape =>
  record(Object.fromEntries(fields.map(({ name, width }): [string, Shape] => [
    name,
    width === 4 ? u32 : width === 8 ? u64 : bytes(width),
  ])));

function read({ i32, u64, u8 }: Cpu, { at, width }: CellField): Values[string] {
  if (width === 4) return i32[at >> 2] >>> 0;
  return width === 8 ? u64[at >> 3] : u8.slice(at, at + width);
}
function write(cpu: Cpu, { at, width }: CellField, value: Values[string]): void {
  if (width === 4) cpu.i32[at >> 2] = value as number;
  else if (width === 8) cpu.u64[at >> 3] = value as bigint;
  else cpu.u8.set(value as Uint8Array, at);
}
const readAll = (cpu: Cpu, fields: readonly CellField[]): Values =>
  Object.fromEntries(fields.map((field) => [field.name, read(cpu, field)]));

/** The registers; lazy flags stand worked out in them. */
function registers(cpu: Cpu): Values {
  const values = readAll(cpu, REGISTERS), flags = BigInt(cpu.system.arithmeticFlags());
  return { ...values, rflags: cpu.get("rflags") & ~FLAGS | flags & FLAGS };
}

/** Values that the registers of virtualization can have; others the processor never has. */
function checkModes(cpu: Cpu, values: Values, nonRoot: number | bigint): void {
  const value = (name: CpuCell) => values[name] as number | bigint;
  const wrong = (name: string, value: number | bigint) =>
    refuse(`the processor's ${name} is 0x${value.toString(16)}, which it never is`);
  const most = [["vmxMode", 2], ["svmMode", 1], ["activity", 3], ["gif", 1]] as const;
  for (const [name, max] of most) if (value(name) > max) wrong(name, value(name));
  const none = [["vmcsPointer", -1], ["vmxonPointer", -1], ["vmcb", 0], ["vmHsave", 0]] as const;
  for (const [name, absent] of none) {
    const address = value(name) as bigint;
    if (BigInt.asIntN(64, address) === BigInt(absent)) continue;
    if (address & 0xfffn || address > BigInt(cpu.machine.size - 4096)) wrong(name, address);
  }
  for (let n = 0; n < COUNTERS; n++) {
    const counter = values[`perfCtr${n}`] as bigint;
    if (counter >> 48n) wrong(`perfCtr${n}`, counter);
  }
  const guest = value("vmxMode") === 2 || value("svmMode") === 1;
  if (nonRoot !== (guest ? 1 : 0)) wrong("mode", nonRoot);
}

/** The processor as a guest's own. */
function processorBlock(cpu: Cpu): StateBlock<{ registers: Values; guest: Values }> {
  const { cells } = virtualization[cpu.model];
  const nonRoot = cells[0].name;
  return {
    name: numbered(cpu, "processor"),
    version: 2,
    shape: record({ registers: shapeOf(REGISTERS), guest: shapeOf(cells) }),
    save: () => {
      const guest = readAll(cpu, cells);
      // Outside a guest of the guest's own they say nothing.
      const nothing = () => mapped(guest, (value) => typeof value === "bigint" ? 0n : 0);
      return { registers: registers(cpu), guest: guest[nonRoot] ? guest : nothing() };
    },
    check: ({ registers, guest }) => {
      checkModes(cpu, registers, guest[nonRoot] as number);
      if (!guest[nonRoot] && Object.values(guest).some((cell) => cell)) {
        refuse("the processor runs no guest, and has what only one that runs has");
      }
    },
    load: ({ registers, guest }) => {
      cpu.u8.fill(0, ARCHITECTURAL_START, ARCHITECTURAL_END);
      for (const field of REGISTERS) write(cpu, field, registers[field.name]);
      for (const field of cells) write(cpu, field, guest[field.name]);
    },
  };
}

/** The first processor's blocks have plain names. */
export const numbered = ({ id }: Cpu, name: string) => id ? `${name} ${id}` : name;

const mapped = <A, B>(values: Readonly<Record<string, A>>, to: (value: A) => B) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, to(value)]));

/** What a hypervisor sets up in the processor, and nothing changes then. */
const ROOT = fieldsNamed(CPU, [
  "cr0",
  "cr4",
  "efer",
  "vmxMode",
  "vmxonPointer",
  "vmHsave",
  "vmCr",
  "svmMode",
  "featureControl",
]);

/**
 * The processor under a hypervisor: the same wherever the state is loaded. The rest is a vCPU's while
 * one is loaded, and left over from the last one while none is.
 */
export function hypervisorsProcessor(cpu: Cpu): StateBlock<Plain> {
  return {
    name: numbered(cpu, "processor"),
    version: 1,
    shape: record({}),
    configuration: () => mapped(readAll(cpu, ROOT), (value) => `0x${value.toString(16)}`),
    save: () => ({}),
    load: () => {},
  };
}

/** Registers the state of a processor that has no hypervisor yet. */
export function registerProcessor(cpu: Cpu, blocks: StateRegister): void {
  blocks.register(processorBlock(cpu));
  blocks.register({
    name: numbered(cpu, "clock"),
    version: 1,
    shape: record({ count: amount, idle: amount, fruitless: amount }),
    save: () => ({ count: cpu.count, idle: cpu.idle, fruitless: cpu.fruitless }),
    load: (saved) => Object.assign(cpu, saved),
  });
}
