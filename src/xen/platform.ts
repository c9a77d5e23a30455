/**
 * The motherboard of a guest as the hypervisor asks for it; what fills it stands in builder/board.ts.
 *
 * @module
 */
import type { Signals } from "../machine/apic/messages.ts";
import type { StateRegister } from "../machine/state_block.ts";

/**
 * A guest's virtual motherboard as the hypervisor sees it: what answers accesses, who interrupts,
 * and when something is due. `builder/board.ts` fills it with devices.
 */
export interface Platform {
  /** What there is for each processor, by its number; the first is the bootstrap processor's. */
  readonly ports: readonly InterruptPort[];
  /** `bytes` is 1, 2 or 4; values are unsigned. */
  ioRead(port: number, bytes: number): number;
  ioWrite(port: number, bytes: number, value: number): void;
  /** `processor` makes the access: all local APICs lie at one address, each for its own processor. */
  mmioRead(address: number, bytes: number, processor: number): number;
  mmioWrite(address: number, bytes: number, value: number, processor: number): void;
  /** Guest time (ns) at which `run` has something to do; Infinity: never. */
  deadline(): number;
  run(now: number): void;
  /**
   * FERR#: an x87 exception is pending at a waiting instruction, and CR0.NE is clear. True if IGNNE# is
   * asserted: the instruction goes on.
   */
  coprocessorError(): boolean;
  /** No exception is pending any more. */
  coprocessorQuiet(): void;
  /** FERR# was seen, and nothing of its end. */
  readonly coprocessorPending: boolean;
  /** Moves a line of the I/O APIC, and of the 8259s if there is one of that number. */
  setLine(gsi: number, level: boolean): void;
  /** Text from outside for the console. */
  input(bytes: Uint8Array): void;
  reset(): void;
  /** Registers the state of all its devices. */
  register(blocks: StateRegister): void;
}

/** What of the motherboard is one processor's: its local APIC, and what comes to it there. */
export interface InterruptPort {
  /** APIC id at power-on, as CPUID tells it. */
  readonly id: number;
  /** The interrupt controllers ask the processor for service. */
  interruptPending(): boolean;
  /** An edge-triggered interrupt by a vector of the local APIC, as a message would bring it; false: that is off. */
  raise(vector: number): boolean;
  /** The vector (0 to 255) to deliver, acknowledged; -1 if there is none after all. */
  acknowledge(): number;
  /** What has come past the vectors; the processor takes it by clearing it. */
  readonly signals: Signals;
  /** A device can send an NMI or INIT by itself: an entry of an interrupt controller says so. */
  readonly unmaskable: boolean;
  /** A performance counter has overflowed: the local APIC's entry says what comes of it. */
  counterOverflow(): void;
  /** The task priority as CR8 has it: 0 to 15. */
  cr8: number;
  /** The processor's time-stamp counter was set: a deadline in its terms lies elsewhere now. */
  tscChanged(): void;
  /** An MSR of the local APIC; undefined for #GP(0). */
  readMsr(number: number): bigint | undefined;
  /** False for #GP(0). */
  writeMsr(number: number, value: bigint): boolean;
}

/** What a platform tells its domain. */
export interface PlatformEvents {
  /** Guest time in nanoseconds. */
  now(): number;
  /**
   * What the controllers ask of a processor may have changed; without a number: the earliest deadline,
   * or what they ask of any.
   */
  changed(processor?: number): void;
  /** The processor waits: time passes (ns) without instructions. */
  stall(nanoseconds: number): void;
  /** A byte the guest wrote to its console. */
  output(byte: number): void;
  /** The guest ends itself: power-off, reset, or a status written to the debug-exit port. */
  end(reason: "poweroff" | "reset" | "exit", detail: string): void;
  post(code: number): void;
  a20(enabled: boolean): void;
  /** An NMI, INIT or start-up has come for a processor: its port's `signals` say which. */
  signalled(processor: number): void;
  /** A processor's task priority changed, by whatever way: CR8's value, 0 to 15. */
  priority(cr8: number, processor: number): void;
  /** Guest time (ns) at which a processor's time-stamp counter reads `tsc`. */
  timeOfTsc(tsc: bigint, processor: number): number;
  /** Whether the guest's CPUID shows a feature. */
  has(feature: string): boolean;
}
