/**
 * What a field of an exit can be, as data: types, checks of filters, checks of saved states and help
 * follow from it. A row of exit_kinds.ts lists such fields.
 *
 * Each has three forms: as a vendor's decoder gives it ({@linkcode Raw}), as scripts see it
 * ({@linkcode Seen}: halves are joined), and as a filter may say it ({@linkcode Given}: addresses by
 * symbol, numbers by name, ranges).
 *
 * @module
 */
import type { GuestEvent, Wide } from "./exit.ts";

/** An address as one may write it: a bigint, a safe integer, or a symbol's name. */
export type Address = bigint | number | string;

/** A field of an exit, of an event, of a filter or of a reply. */
export interface Field {
  readonly is:
    | "number"
    | "flag"
    | "choice"
    | "text"
    /** A value of `bits` bits, 64 if not said. */
    | "word"
    /** A canonical linear address, any address of 64 bits, a physical address. */
    | "linear"
    | "address"
    | "physical"
    | "event"
    /** EAX, EBX, ECX and EDX. */
    | "cpuid"
    /** A path; filters say it with * for any part of it, or with a slash at the end for all below. */
    | "path"
    /** Values by name, which differ from event to event; or a list of such. */
    | "record"
    | "records";
  /** Of a number; 0 if not said. */
  readonly min?: number;
  readonly max?: number;
  readonly bits?: number;
  /** Of a choice. */
  readonly of?: readonly (string | number)[];
  /** Names that numbers go by, and how a message tells of them. */
  readonly names?: Readonly<Record<string, number>>;
  readonly expected?: string;
  /** A filter may say a range of it: `[first, last]`. */
  readonly range?: true;
  /** A filter must say it. */
  readonly needed?: true;
  /** A filter cannot say it. */
  readonly filter?: false;
  /** Not there in every exit of the kind. */
  readonly optional?: true;
  /** Made where the event is seen (the row's `see`); the exit itself does not have it. */
  readonly made?: true;
}

/** Fields by name. */
export type FieldTable = Readonly<Record<string, Field>>;

/** A field as an exit has it. */
export type Raw<F extends Field> = F["is"] extends "number" | "physical" ? number
  : F["is"] extends "flag" ? boolean
  : F["is"] extends "choice" ? Choice<F>
  : F["is"] extends "text" | "path" ? string
  : F["is"] extends "event" ? GuestEvent
  : Wide;

/** A field as scripts see it. */
export type Seen<F extends Field> = F["is"] extends "cpuid"
  ? { eax: number; ebx: number; ecx: number; edx: number }
  : F["is"] extends "record" ? Readonly<Record<string, unknown>>
  : F["is"] extends "records" ? readonly Readonly<Record<string, unknown>>[]
  : F["is"] extends "word" | "linear" | "address" | "physical" ? bigint
  : Raw<F>;

/** A field as filters say it. */
export type Given<F extends Field> = F extends { range: true }
  ? One<F> | readonly [first: One<F>, last: One<F>]
  : One<F>;

type One<F extends Field> = F["is"] extends "linear" | "address" | "physical" ? Address
  : F["is"] extends "word" ? bigint
  : F["is"] extends "choice" ? NonNullable<F["of"]>[number]
  : F extends { names: unknown } ? number | string
  : Raw<F>;

/** Processors tell numbers. */
type Choice<F extends Field> = NonNullable<F["of"]>[number] extends number ? number
  : NonNullable<F["of"]>[number];

type Optional<F> = { [K in keyof F]: F[K] extends { optional: true } ? K : never }[keyof F];

/** What exits have, of fields that are not made. */
export type RawOf<F extends FieldTable> =
  & { readonly [K in Exclude<keyof F, Optional<F> | Made<F>>]: Raw<F[K]> }
  & { readonly [K in Exclude<Optional<F>, Made<F>>]?: Raw<F[K]> };
type Made<F> = { [K in keyof F]: F[K] extends { made: true } ? K : never }[keyof F];

/** @ignore What events have. */
export type SeenOf<F extends FieldTable> =
  & { readonly [K in Exclude<keyof F, Optional<F>>]: Seen<F[K]> }
  & { readonly [K in Optional<F>]?: Seen<F[K]> };

/** @ignore What filters say. */
export type GivenOf<F extends FieldTable> =
  & { [K in Exclude<keyof F, Needed<F> | Unfiltered<F>>]?: Given<F[K]> }
  & { [K in Needed<F>]: Given<F[K]> };
type Needed<F> = { [K in keyof F]: F[K] extends { needed: true } ? K : never }[keyof F];
type Unfiltered<F> = {
  [K in keyof F]: F[K] extends { filter: false } | { is: Unsayable } ? K : never;
}[keyof F];

/** What no filter says. */
type Unsayable = "text" | "cpuid" | "record" | "records";
const UNSAYABLE: readonly Field["is"][] = ["text", "cpuid", "record", "records"];
/** Whether filters may say a field. */
export const isFiltered = ({ filter, is }: Field): boolean =>
  filter !== false && !UNSAYABLE.includes(is);

export const flag = { is: "flag" } as const;
export const text = { is: "text" } as const;
export const u8 = { is: "number", max: 0xff } as const;
export const u16 = { is: "number", max: 0xffff } as const;
export const u32 = { is: "number", max: 0xffff_ffff } as const;
/** A vendor's number, which may be negative. */
export const code = {
  is: "number",
  min: -0x8000_0000,
  max: 0xffff_ffff,
  filter: false,
} as const;
/** A general register by number, 0 (RAX) to 15. */
export const register = { is: "number", max: 15, filter: false } as const;
export const word = { is: "word" } as const;
export const linear = { is: "linear" } as const;
