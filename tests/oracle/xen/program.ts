/**
 * Programs for the oracle's guest as bytes, and what the guest printed as answers.
 *
 * @module
 */
import { ARGUMENT, STEP } from "./guest.ts";

/** A hypercall's argument: a number, a place in the arena, or what stands at a place there. */
export type Argument =
  | number
  | bigint
  | { readonly at: number }
  | { readonly word: number }
  | { readonly natural: number };

/** One step. Places are offsets in the arena, unless `to` says otherwise; lengths are in bytes. */
export type Step =
  | { readonly do: "set"; readonly at: number; readonly bytes: Uint8Array }
  | { readonly do: "copy"; readonly to: number; readonly from: number; readonly length: number }
  | { readonly do: "fill"; readonly at: number; readonly length: number; readonly byte: number }
  | {
    readonly do: "call";
    readonly number: number;
    readonly args: readonly Argument[];
    /** Not through the hypercall page. */
    readonly direct?: boolean;
  }
  | { readonly do: "dump"; readonly at: number; readonly length: number }
  | { readonly do: "cpuid"; readonly leaf: number; readonly subleaf?: number }
  | { readonly do: "rdmsr"; readonly index: number }
  | {
    readonly do: "wrmsr";
    readonly index: number;
    readonly value: number | bigint;
    readonly arena?: boolean;
  }
  | {
    readonly do: "wait";
    readonly at: number;
    readonly mask: number;
    readonly value: number;
    readonly turns?: number;
  }
  | { readonly do: "interrupts"; readonly open: boolean }
  | {
    /** System time, `ns` from now, by the vcpu_time_info at `info`. */
    readonly do: "later";
    readonly to: number;
    readonly info: number;
    readonly ns: number;
  };

const low = (value: number | bigint): number => Number(BigInt.asUintN(32, BigInt(value)));
const high = (value: number | bigint): number => Number(BigInt.asUintN(32, BigInt(value) >> 32n));

function argument(value: Argument): number[] {
  if (typeof value !== "object") return [ARGUMENT.plain, low(value), high(value)];
  if ("at" in value) return [ARGUMENT.arena, value.at, 0];
  if ("word" in value) return [ARGUMENT.word, value.word, 0];
  return [ARGUMENT.natural, value.natural, 0];
}

function operands(step: Exclude<Step, { do: "set" }>): number[] {
  switch (step.do) {
    case "copy":
      return [step.to, step.from, step.length];
    case "fill":
      return [step.at, step.length, step.byte];
    case "call":
      return [
        step.number,
        step.args.length | (step.direct ? 0x100 : 0),
        ...step.args.flatMap(argument),
      ];
    case "dump":
      return [step.at, step.length];
    case "cpuid":
      return [step.leaf, step.subleaf ?? 0];
    case "rdmsr":
      return [step.index];
    case "wrmsr":
      return [step.index, low(step.value), high(step.value), step.arena ? 1 : 0];
    case "wait":
      return [step.at, step.mask, step.value, step.turns ?? 1 << 22];
    case "interrupts":
      return [step.open ? 1 : 0];
    case "later":
      return [step.to, step.info, step.ns];
  }
}

/** The module that the guest runs: the steps, then the end. */
export function encode(steps: readonly Step[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const words = (list: readonly number[]) =>
    parts.push(new Uint8Array(Uint32Array.from(list, (n) => n >>> 0).buffer));
  for (const step of steps) {
    words([STEP[step.do]]);
    if (step.do === "set") {
      words([step.at, step.bytes.length]);
      parts.push(step.bytes, new Uint8Array(-step.bytes.length & 3));
    } else words(operands(step));
  }
  words([STEP.end]);
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

/** What one step answered: bytes, or the vector of the exception it raised. */
export type Answer = { readonly bytes: string } | { readonly fault: number };

/** What a program answered, by step; and whether it came to its end. */
export interface Run {
  readonly answers: ReadonlyMap<number, Answer>;
  readonly ended: boolean;
}

/** Reads the guest's lines; others are passed over. */
export function readRun(lines: readonly string[]): Run {
  const answers = new Map<number, Answer>();
  let ended = false;
  for (const line of lines) {
    const match = /^([=!])([0-9a-f]{4})([0-9a-f]*)$/.exec(line);
    if (line === ".") ended = true;
    if (!match) continue;
    const step = parseInt(match[2], 16);
    const before = answers.get(step);
    if (match[1] === "!") answers.set(step, { fault: parseInt(match[3], 16) });
    else {
      answers.set(step, { bytes: (before && "bytes" in before ? before.bytes : "") + match[3] });
    }
  }
  return { answers, ended };
}
