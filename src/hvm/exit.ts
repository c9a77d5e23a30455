/**
 * Why a guest in a hardware virtual machine came back, in words that no vendor owns. `hvm` makes
 * these from the vendor's raw fields; `xen/exits` handles them by kind. What each kind has stands in
 * exit_kinds.ts.
 *
 * Numbers are unsigned unless they say otherwise. Values of 64 bits come as two halves
 * ({@linkcode Wide}), because exits are hot; {@linkcode wideToBigInt} joins them.
 */

import type { EXIT_KINDS, ExitKind } from "./exit_kinds.ts";
import type { FieldTable, RawOf } from "./fields.ts";

/** A 64-bit value as unsigned halves. */
export interface Wide {
  readonly low: number;
  readonly high: number;
}

export function wide(low: number, high: number): Wide {
  return { low: low >>> 0, high: high >>> 0 };
}
export function wideToBigInt(value: Wide): bigint {
  return BigInt(value.high) << 32n | BigInt(value.low);
}
export function toWide(value: bigint | number): Wide {
  const v = BigInt.asUintN(64, BigInt(value));
  return { low: Number(v & 0xffff_ffffn), high: Number(v >> 32n) };
}

/** What kind of event is injected, was being delivered, or made a guest leave. */
export type EventType =
  | "external-interrupt"
  | "nmi"
  | "exception"
  /** INT n. */
  | "software-interrupt"
  /** INT1. */
  | "privileged-software-exception"
  /** INT3, INTO. */
  | "software-exception";

/** An interrupt or exception. */
export interface GuestEvent {
  /** How it is delivered. */
  readonly type: EventType;
  /** 0 to 255. */
  readonly vector: number;
  /** What is pushed besides; undefined where the vector has none. */
  readonly errorCode?: number;
  /** Bytes of the instruction, for the software events. */
  readonly length?: number;
}

/** What every exit has. */
export interface Common {
  /** Bytes of the instruction that left, 0 where there is none. */
  readonly length: number;
  /** The event whose delivery was cut short; it is queued again before this exit is handed on. */
  readonly vectoring?: GuestEvent;
}

type Rows = typeof EXIT_KINDS;
type Members<R> = R extends { raw: infer F extends FieldTable } ? RawOf<F>
  : R extends { fields: infer F extends FieldTable } ? RawOf<F>
  : never;

/** An exit of a kind. */
export type ExitOf<K extends ExitKind> = {
  [P in K]: { readonly kind: P } & Common & Members<Rows[P]>;
}[K];

/** Kinds that say all by their name. */
export type PlainKind = {
  [K in ExitKind]: Record<never, never> extends Members<Rows[K]> ? K : never;
}[ExitKind];
/** Exits that say all by their name. */
export interface PlainExit extends Common {
  readonly kind: PlainKind;
}

/** Why a guest left. */
export type Exit = PlainExit | ExitOf<Exclude<ExitKind, PlainKind>>;
