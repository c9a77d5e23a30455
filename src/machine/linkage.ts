/**
 * What all Wasm modules of the machine have in common: memories, functions of the host, how cells are read
 * and written, how a fault is noted.
 *
 * @module
 */
import { EVENT_TYPE } from "../abi/x86/vectors.ts";
import { type Callable, type Func, Global, Module } from "./wasm/module.ts";
import { type Expr, i32, i64, load, type Operand, toExpr } from "./wasm/expr.ts";
import type { Cell } from "./wasm/cells.ts";
import { ABORT, CPU_MEMORY_PAGES, V } from "./state.ts";

/** Memory numbers in every module of the machine. */
export const MEMORY = { cpu: 0, ram: 1, frames: 2 } as const;

/** Functions the host gives to the Wasm modules: name, parameters, whether a number comes back. */
export const HOST_FUNCTIONS = {
  /** (address low, high, bytes) -> value; 64-bit accesses come as two. */
  mmioRead: [3, 1],
  /** (address low, high, bytes, value). */
  mmioWrite: [4, 0],
  /** (port, bytes) -> value. */
  ioRead: [2, 1],
  /** (port, bytes, value). */
  ioWrite: [3, 0],
  /** Whether the next iteration of an INS or OUTS that is being emulated follows at once: 0 or 1. */
  ioRepeats: [0, 1],
  /** A store reaches granules of a frame that hold predecoded code: (frame, granule mask low, high). */
  codeWrite: [3, 0],
  /** A store reached a frame from whose contents a hypervisor has derived something: (address, bytes). */
  derivedWrite: [2, 0],
  /** What other processors have derived from a frame is dropped: (its flags' address, SHOOTDOWN). */
  shootdown: [2, 0],
  /** An access while watches are armed: (linear low, high, physical low, bytes, access, next page). */
  watch: [6, 0],
  /** Is a page watched: (linear page low, high, frame) -> 0 or 1. */
  watchesPage: [3, 1],
  /** Predecodes at linear address V.pa..: (EIP low, high) -> record, 0 if the fetch was given up. */
  predecode: [2, 1],
  /** Resolves a direct jump: (record, EIP low, high) -> record, 0 if the fetch was given up. */
  link: [3, 1],
  /** Checks the second page of a crossing instruction: (record) -> where to go on, 0 for a fault. */
  crossing: [1, 1],
  /** CPUID with leaf in EAX, sub-leaf in ECX: writes the four registers. */
  cpuid: [0, 0],
  /** An MSR without a home in the state: (number, write) -> 0, or 1 for #GP; value in V.value. */
  msr: [2, 1],
  /** Anything a semantics function hands to TypeScript: (service number, argument) -> number. */
  service: [2, 1],
} as const satisfies Record<string, readonly [number, number]>;

/** What of a TLB is dropped: entries that may write, or all. */
export const SHOOTDOWN = { writes: 0, all: 1 } as const;

/** Numbers of the services: `service(number, argument)`. */
export const SERVICE = {
  /** 32 random bits. */
  random: 1,
  /** CR8 was written: the argument. */
  priority: 2,
  /** The time-stamp counter or IA32_TSC_ADJUST was written. */
  tsc: 3,
  /**
   * A waiting x87 instruction finds an exception pending, and CR0.NE is clear: FERR#. 0: IGNNE# is
   * asserted, the instruction goes on; else the processor waits for an interrupt.
   */
  coprocessorError: 4,
  /** With V.ferr set: no unmasked exception is pending any more. */
  coprocessorQuiet: 5,
  /** A performance counter is read, the argument is its number: the value is put in V.value. */
  counter: 6,
  /** One of its registers is written, the argument is MSR - C001_0000h: the value is in V.value. */
  setCounter: 7,
} as const;
export type HostFunctions = Record<
  keyof typeof HOST_FUNCTIONS,
  (...args: number[]) => number | void
>;

/** A function of an instance, called from TypeScript. */
export type WasmFunction = (...args: (number | bigint)[]) => number;
/** Functions of module S, by name. */
export type SystemFunctions = Readonly<Record<string, WasmFunction>>;

/** What TypeScript below a processor sees of it. */
export interface ProcessorParts {
  /** Memory 0. */
  readonly i32: Int32Array;
  readonly system: SystemFunctions;
  /** An interrupt controller asks for service. */
  interruptPending(): boolean;
}

/** A module with the machine's memories, table and host functions imported. */
export function machineModule(Function?: typeof Func): Module {
  const m = new Module(Function);
  m.importMemory("machine", "cpu", CPU_MEMORY_PAGES, true);
  m.importMemory("machine", "ram", 1);
  m.importMemory("machine", "frames", 1);
  m.importTable("machine", "cold", 1);
  for (const [name, [params, results]] of Object.entries(HOST_FUNCTIONS)) {
    m.importFunction("host", name, Array(params).fill("i32"), Array(results).fill("i32"));
  }
  return m;
}

/** Reads a cell of memory 0, or the low half of one. */
export const cell = (address: number): Expr => load("i32", 32, "u", 0, address);
export const cell64 = (address: Cell<8>): Expr => load("i64", 64, "u", 0, address);
export function setCell(f: Func, address: number, value: Operand): void {
  f.store(32, i32(0), toExpr("i32", value), address);
}
export function setCell64(f: Func, address: Cell<8>, value: Operand): void {
  f.store(64, i32(0), toExpr("i64", value), address);
}

/** Notes an exception and the check that raised it; the caller then leaves the instruction. */
export function noteFault(
  f: Func,
  vector: number,
  errorCode: Operand | undefined,
  check: number,
  a: Expr = i64(0),
  b: Expr = i64(0),
): void {
  setCell(f, V.abort, ABORT.fault);
  setCell(f, V.vector, vector);
  setCell(f, V.eventType, EVENT_TYPE.hardwareException);
  setCell(f, V.hasError, errorCode === undefined ? 0 : 1);
  setCell(f, V.errorCode, errorCode ?? 0);
  setCell(f, V.check, check);
  setCell64(f, V.checkA, a.zext());
  setCell64(f, V.checkB, b.zext());
}

export type { Callable };
export { Global };
