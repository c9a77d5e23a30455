import type { StateRegister } from "../machine/state_block.ts";

/**
 * A guest's virtual motherboard as the hypervisor sees it: what answers accesses, who interrupts,
 * and when something is due. `builder/board.ts` fills it with devices.
 */
export interface Platform {
  /** `bytes` is 1, 2 or 4; values are unsigned. */
  ioRead(port: number, bytes: number): number;
  ioWrite(port: number, bytes: number, value: number): void;
  mmioRead(address: number, bytes: number): number;
  mmioWrite(address: number, bytes: number, value: number): void;
  /** The interrupt controllers ask processor 0 for service. */
  interruptPending(): boolean;
  /** A device can send an NMI or INIT by itself: an entry of an interrupt controller says so. */
  readonly unmaskable: boolean;
  /** The vector (0 to 255) to deliver, acknowledged; -1 if there is none after all. */
  acknowledge(): number;
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
  /** A performance counter has overflowed: the local APIC's entry says what comes of it. */
  counterOverflow(): void;
  /** The task priority of processor 0, as CR8 has it: 0 to 15. */
  cr8: number;
  /** The guest's time-stamp counter was set: a deadline in its terms lies elsewhere now. */
  tscChanged(): void;
  /** An MSR of the local APIC; undefined for #GP(0). */
  readMsr(number: number): bigint | undefined;
  /** False for #GP(0). */
  writeMsr(number: number, value: bigint): boolean;
  /** Text from outside for the console. */
  input(bytes: Uint8Array): void;
  reset(): void;
  /** Registers the state of all its devices. */
  register(blocks: StateRegister): void;
}

/** What a platform tells its domain. */
export interface PlatformEvents {
  /** Guest time in nanoseconds. */
  now(): number;
  /** The earliest deadline or the interrupt request may have changed. */
  changed(): void;
  /** The processor waits: time passes (ns) without instructions. */
  stall(nanoseconds: number): void;
  /** A byte the guest wrote to its console. */
  output(byte: number): void;
  /** The guest ends itself: power-off, reset, or a status written to the debug-exit port. */
  end(reason: "poweroff" | "reset" | "exit", detail: string): void;
  post(code: number): void;
  a20(enabled: boolean): void;
  nmi(): void;
  /** The task priority changed, by whatever way: CR8's value, 0 to 15. */
  priority(cr8: number): void;
  /** Guest time (ns) at which the guest's time-stamp counter reads `tsc`. */
  timeOfTsc(tsc: bigint): number;
  /** Whether the guest's CPUID shows a feature. */
  has(feature: string): boolean;
}
