/**
 * Writes a program for the oracle's guest: steps, and of each answer what it is and what of it can be
 * compared.
 *
 * @module
 */
import {
  offsetOf,
  type StructFields,
  type StructOf,
  type ValuePath,
  View,
} from "../../../src/abi/layout.ts";
import { type HypercallName, HYPERCALLS } from "../../../src/abi/xen/hypercalls.ts";
import { Random } from "../../fuzz/random.ts";
import { ARENA, OWN, type Width } from "./guest.ts";
import { type Argument, encode, type Step } from "./program.ts";

/** Places in the arena. */
export const AT = {
  /** The argument of the call at hand, and lists that it points to. */
  arg: 0x1000,
  list: 0x2000,
  more: 0x4000,
  /** Numbers that Xen gave: ports, handles; {@linkcode Writer.slot}. */
  slots: 0x8000,
  shared: 0x1_0000,
  grants: 0x1_1000,
  status: 0x1_9000,
  control: 0x2_0000,
  events: 0x2_2000,
  info: 0x3_0000,
  data: 0x4_0000,
  maps: 0x8_0000,
} as const;
export const PAGE = 0x1000;

/** Frame number of a place in the arena. */
export const frameOf = (at: number): number => (ARENA + at) / PAGE;
/** A place outside the arena as one in it: offsets wrap at 4 GB. */
export const absolute = (address: number): number => (address - ARENA) >>> 0;

/** Bytes that are dumped after a call. */
export interface Window {
  readonly what: string;
  readonly at: number;
  readonly length: number;
  /** Offsets and lengths of what depends on the host: addresses, times. */
  readonly mask?: readonly (readonly [number, number])[];
}

/** What a step's answer is. */
export interface Label {
  readonly step: number;
  /** The call, as `event_channel_op.send`. */
  readonly call: string;
  /** What the generator meant it to be: `free port`, `bad handle`. */
  readonly kind: string;
  /** `result`, or the name of a window. */
  readonly what: string;
  readonly mask: readonly (readonly [number, number])[];
}

/** A program, ready to run. */
export interface Program {
  readonly name: string;
  readonly width: Width;
  readonly steps: readonly Step[];
  readonly labels: readonly Label[];
  readonly bytes: Uint8Array;
}

/** What a call is made of. */
export interface Call {
  readonly hypercall: HypercallName | number;
  /** The sub-operation's name. */
  readonly operation?: string;
  readonly kind: string;
  readonly args: readonly Argument[];
  readonly windows?: readonly Window[];
  readonly direct?: boolean;
  /** The result itself is not to be compared. */
  readonly hostResult?: boolean;
}

/** Fields from a slot: the path, and where its value stands. */
type From = Readonly<Record<string, { readonly slot: number; readonly length: number }>>;

/** The domain's own number, to fill a domid with. */
export const OWN_DOMID = { slot: OWN.domid, length: 2 } as const;

export class Writer {
  readonly steps: Step[] = [];
  readonly labels: Label[] = [];
  readonly random: Random;
  #slots = 0;

  constructor(readonly name: string, readonly width: Width, seed: number) {
    this.random = new Random(seed);
  }

  get calls(): number {
    return this.labels.filter(({ what }) => what === "result").length;
  }

  step(step: Step): void {
    this.steps.push(step);
  }

  /** A place of 8 bytes for a number that Xen gives. */
  slot(): number {
    return AT.slots + 8 * this.#slots++;
  }

  set(at: number, bytes: Uint8Array | readonly number[]): void {
    this.step({ do: "set", at, bytes: Uint8Array.from(bytes) });
  }

  words(at: number, ...words: number[]): void {
    this.set(at, new Uint8Array(Uint32Array.from(words, (n) => n >>> 0).buffer));
  }

  /** Numbers as wide as the guest's code: frames, lists of them. */
  longs(at: number, ...values: (number | bigint)[]): void {
    if (this.width === 32) return this.words(at, ...values.map(Number));
    this.set(at, new Uint8Array(BigUint64Array.from(values, (n) => BigInt(n)).buffer));
  }

  /** Lays a structure into memory. */
  struct<F extends StructFields>(
    at: number,
    type: StructOf<F>,
    values: Parameters<View<F>["setAll"]>[0],
    from: From = {},
  ): Argument {
    this.set(at, new View(type, this.width).setAll(values).raw);
    for (const [path, { slot, length }] of Object.entries(from)) {
      const to = at + offsetOf(type, path as ValuePath<F>, this.width);
      this.step({ do: "copy", to, from: slot, length });
    }
    return { at };
  }

  /** A window on fields of a structure in memory. */
  field<F extends StructFields>(at: number, type: StructOf<F>, path: ValuePath<F>): number {
    return at + offsetOf(type, path, this.width);
  }

  call({ hypercall, operation, kind, args, windows = [], direct, hostResult }: Call): void {
    const number = typeof hypercall === "number" ? hypercall : HYPERCALLS[hypercall].number;
    const name = typeof hypercall === "number" ? "unknown" : hypercall;
    const call = operation === undefined ? name : `${name}.${operation}`;
    this.label(
      { do: "call", number, args, direct },
      call,
      kind,
      "result",
      hostResult ? [[0, this.width / 8]] : [],
    );
    for (const { what, at, length, mask = [] } of windows) {
      this.label({ do: "dump", at, length }, call, kind, what, mask);
    }
  }

  label(step: Step, call: string, kind: string, what: string, mask: Label["mask"] = []): void {
    this.labels.push({ step: this.steps.length, call, kind, what, mask });
    this.step(step);
  }

  finish(): Program {
    const { name, width, steps, labels } = this;
    return { name, width, steps, labels, bytes: encode(steps) };
  }
}
