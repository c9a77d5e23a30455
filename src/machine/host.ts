/** What the Wasm modules of a processor call in TypeScript: devices, observers, predecoding, services. */
import type { Cpu } from "./cpu.ts";
import { type HostFunctions, SERVICE, SHOOTDOWN } from "./linkage.ts";
import type { RunStop } from "./run.ts";
import { ABORT, EMULATED, FRAME, V } from "./state.ts";

/** Hooks of the virtualization extensions and of the platform; absent ones cost nothing. */
export interface CpuHooks {
  cpuid?(): void;
  msr?(number: number, write: boolean): boolean;
  service?(number: number, argument: number): number;
  /** An access of an emulated instruction to an address the nested paging does not map. */
  emulatedRead?(address: number, bytes: number): number | undefined;
  emulatedWrite?(address: number, bytes: number, value: number): boolean;
  /** A port access of an emulated instruction. Undefined or false: there is no answer yet. */
  emulatedIoRead?(port: number, bytes: number): number | undefined;
  emulatedIoWrite?(port: number, bytes: number, value: number): boolean;
  /**
   * Whether the next iteration of an emulated INS or OUTS may follow without the guest being entered
   * and leaving for it: then nobody can tell.
   */
  emulatedIoRepeats?(): boolean;
  /** Before anything is delivered in non-root operation; "exit" if that became a VM exit. */
  boundary?(): RunStop | undefined;
  /** A performance counter that is to interrupt has overflowed. */
  counterOverflow?(): void;
  /**
   * An exception was raised (`lastFault`): true stops the run before it is delivered ("fault"), or
   * behind that ("stopped") where it came of the delivery of an INT n.
   */
  fault?(): boolean;
}

const EMULATED_HIGH = Number(EMULATED >> 32n);
const addressOf = (low: number, high: number): number => (high >>> 0) * 2 ** 32 + (low >>> 0);
const unsigned = (value: number, bytes: number): number =>
  bytes === 4 ? value >>> 0 : value & (2 ** (8 * bytes) - 1);

export function hostFunctions(cpu: Cpu): HostFunctions {
  return { ...accesses(cpu), ...code(cpu), ...services(cpu) };
}

/** Accesses that are not to memory: the bus's, or an emulated instruction's. */
function accesses(cpu: Cpu) {
  const { i32, hooks } = cpu;
  const unanswered = () => i32[V.abort >> 2] = ABORT.unanswered;
  /** An answer for an emulated access; without one the instruction is given up and run again. */
  const answer = (value: number | undefined): number => {
    if (value === undefined) unanswered();
    return (value ?? 0) | 0;
  };
  return {
    mmioRead: (low, high, bytes) => {
      if (high & EMULATED_HIGH) {
        return answer(hooks.emulatedRead?.(addressOf(low, high & ~EMULATED_HIGH), bytes));
      }
      return cpu.bus.mmioRead(addressOf(low, high), bytes) | 0;
    },
    mmioWrite: (low, high, bytes, value) => {
      const written = unsigned(value, bytes);
      if (high & EMULATED_HIGH) {
        const at = addressOf(low, high & ~EMULATED_HIGH);
        if (!hooks.emulatedWrite?.(at, bytes, written)) unanswered();
      } else cpu.bus.mmioWrite(addressOf(low, high), bytes, written);
    },
    ioRead: (port, bytes) => {
      if (i32[V.emulating >> 2]) return answer(hooks.emulatedIoRead?.(port & 0xffff, bytes));
      return cpu.bus.ioRead(port & 0xffff, bytes) | 0;
    },
    ioWrite: (port, bytes, value) => {
      const written = unsigned(value, bytes);
      if (i32[V.emulating >> 2]) {
        if (!hooks.emulatedIoWrite?.(port & 0xffff, bytes, written)) unanswered();
      } else cpu.bus.ioWrite(port & 0xffff, bytes, written);
    },
    ioRepeats: () => cpu.loop.repeats() ? 1 : 0,
  } satisfies Partial<HostFunctions>;
}

/** Code and what is derived from memory; who watches. */
function code(cpu: Cpu) {
  const { i32, machine, observation } = cpu;
  return {
    codeWrite: (frame) => machine.dropCode(frame),
    shootdown: (entry, what) => {
      const frame = entry / FRAME.size;
      if (what === SHOOTDOWN.all) machine.shootdown(frame, cpu);
      else machine.dropWrites(frame, cpu);
    },
    derivedWrite: (address, bytes) => machine.tellWrite(address >>> 0, bytes),
    watch: (low, high, physical, bytes, access, next) =>
      observation.access(low, high, physical, bytes, access, next),
    watchesPage: (low, high, frame) => observation.watchesPage(low, high, frame) ? 1 : 0,
    predecode: (low, high) => {
      // Code that is written as it runs comes by here for each instruction.
      if (cpu.loop.hostDue) {
        i32[V.abort >> 2] = ABORT.due;
        return 0;
      }
      const record = cpu.predecoder.predecode(low, high);
      observation.fetched(record !== 0);
      return record;
    },
    link: (record, low, high) => cpu.predecoder.link(record, low, high),
    crossing: (record) => cpu.predecoder.crossing(record),
  } satisfies Partial<HostFunctions>;
}

function services(cpu: Cpu) {
  const { u64, hooks, counters } = cpu;
  return {
    cpuid: () => {
      if (!hooks.cpuid) throw new Error("the processor has no CPUID table");
      hooks.cpuid();
    },
    msr: (number, write) => hooks.msr?.(number >>> 0, write !== 0) ? 0 : 1,
    service: (number, argument) => {
      if (number === SERVICE.counter) u64[V.value >> 3] = counters.read(argument);
      else if (number === SERVICE.setCounter) counters.write(argument, u64[V.value >> 3]);
      else return hooks.service?.(number, argument) ?? 0;
      return 0;
    },
  } satisfies Partial<HostFunctions>;
}
