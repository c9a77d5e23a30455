/**
 * The only thing a device knows: ports, memory ranges, an interrupt line, guest time, its state.
 *
 * @module
 */

/** Width of an access in bytes. */
export type Size = 1 | 2 | 4;

/** Ports `first` to `last`, both included (16 bits each). */
export type PortRange = readonly [first: number, last: number];

/** Least and greatest values, by the names of a state's members; up to Infinity: a time, or never. */
export type Ranges = Readonly<Record<string, readonly [least: number, most: number]>>;
export const WORD = [0, 0xffff] as const;
export const DWORD = [0, 0xffff_ffff] as const;
/** A count of instructions, or a time in ns. */
export const AMOUNT = [0, 2 ** 52] as const;
/** Ticks of a clock below 9 MHz in such a time. */
export const TICKS = [0, 2 ** 46] as const;
export const DEADLINE = [0, Infinity] as const;

/** A range of guest-physical addresses in bytes. */
export interface MmioRange {
  /** The first address. */
  readonly base: number;
  /** Bytes. */
  readonly size: number;
}

/** The world as one device sees it. The board provides it; none of it is state. */
export interface DeviceContext {
  /** Guest time in nanoseconds, a safe integer that never runs backwards. */
  now(): number;
  /** Drives interrupt line `line` (an ISA IRQ, 0 to 15): `true` is asserted. */
  irq(line: number, level: boolean): void;
  /** The value of `deadline()` may have changed. */
  reschedule(): void;
}

/**
 * A device of a guest's PC.
 *
 * A device is its `state` and a way to answer accesses: everything that changes is in that one
 * plain record, deadlines in guest nanoseconds included. Saving a device is saving the record.
 */
export interface Device<S extends object = object> {
  /** Unique within one machine, for example `"pit"`. */
  readonly name: string;
  /** Of the state's meaning; a saved one of another version is refused. */
  readonly version: number;
  /** I/O ports that are its own. */
  readonly ports: readonly PortRange[];
  /** Guest-physical addresses that are its own. */
  readonly mmio: readonly MmioRange[];
  /** Number of the processor that alone sees it there: a local APIC's. Absent: all do. */
  readonly processor?: number;
  /** Widest access the device takes; a wider one is split into bytes (see `Bus`). */
  readonly width: Size;
  /**
   * Registers that take accesses of these widths whole where they begin, whoever owns the ports
   * behind; a wider access that begins below and runs over them does not reach them.
   */
  readonly registers?: Readonly<Record<number, readonly Size[]>>;
  /** One plain record: all there is to save. */
  state: S;
  /** Names of the state's members that are queues: their length changes, that of others does not. */
  readonly queues?: readonly string[];
  /** The least and the greatest value of the state's members that are numbers, and no bytes. */
  readonly ranges?: Ranges;
  /** Reads `size` bytes at `port`, if the device has ports; the result is unsigned. */
  read?(port: number, size: Size): number;
  /** Writes the low `size` bytes of `value` at `port`. */
  write?(port: number, size: Size, value: number): void;
  /** Reads `size` bytes at a guest-physical address, if it has any; unsigned. */
  mmioRead?(address: number, size: Size): number;
  /** Writes the low `size` bytes of `value` there. */
  mmioWrite?(address: number, size: Size, value: number): void;
  /** Guest ns of the next moment at which `run` has something to do; Infinity if none. */
  deadline(): number;
  /** Brings the device up to `now` (guest ns); harmless when early, late or repeated. */
  run(now: number): void;
  /** To the state after power-on, the construction options kept. */
  reset(): void;
  /** The state in words, for the prompt. */
  show(): string;
}

/** What most devices share: no memory, no deadline, prints itself. */
export abstract class DeviceModel<S extends object> implements Device<S> {
  abstract readonly name: string;
  abstract readonly version: number;
  readonly ports: readonly PortRange[] = [];
  readonly mmio: readonly MmioRange[] = [];
  readonly width: Size = 1;
  readonly registers?: Readonly<Record<number, readonly Size[]>>;
  readonly ranges?: Ranges;
  state: S;

  constructor(state: S) {
    this.state = state;
  }
  abstract read(port: number, size: Size): number;
  abstract write(port: number, size: Size, value: number): void;
  abstract reset(): void;
  abstract show(): string;
  deadline(): number {
    return Infinity;
  }
  run(_now: number): void {}

  [Symbol.for("Deno.customInspect")](): string {
    return this.show();
  }
}

/** `floor(ns * frequency / 1e9)` without loss: `frequency` below 9 MHz, `ns` a safe integer. */
export function ticksAt(ns: number, frequency: number): number {
  const seconds = Math.floor(ns / 1e9);
  return seconds * frequency + Math.floor((ns - seconds * 1e9) * frequency / 1e9);
}

/** The first guest ns at which {@linkcode ticksAt} is at least `ticks`. */
export function timeOfTick(ticks: number, frequency: number): number {
  const seconds = Math.floor(ticks / frequency);
  return seconds * 1e9 + Math.ceil((ticks - seconds * frequency) * 1e9 / frequency);
}

/** `value` as hexadecimal digits, at least `digits` of them, without a prefix. */
export function hex(value: number, digits = 2): string {
  return value.toString(16).padStart(digits, "0");
}

/** Rows under a heading, columns padded: how devices show tables. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map((row) => row.map(String));
  const widths: number[] = [];
  for (const row of cells) {
    row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  }
  const line = (row: string[]) => row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd();
  return cells.map(line).join("\n");
}
