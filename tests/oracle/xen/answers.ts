/**
 * Answers as they are kept and compared: one word for each answer of a program, host's bytes masked.
 *
 * @module
 */
import type { Answer, Run } from "./program.ts";
import type { Label, Program } from "./writer.ts";

/** Answers of Debian's Xen, recorded. */
export interface Recorded {
  /** Debian's package of Xen. */
  readonly xen: string;
  /** Hypercalls of each program, at least. */
  readonly calls: number;
  /** By program: how its domain ended, and its answers in a row. */
  readonly programs: Readonly<
    Record<string, { readonly ending: string; readonly answers: string }>
  >;
}

/**
 * An answer as a word: a result in decimal, `!13` for an exception, bytes in hexadecimal, `-` for none.
 * Bytes that depend on the host are dots.
 */
function word(answer: Answer | undefined, { what, mask }: Label): string {
  if (!answer) return "-";
  if ("fault" in answer) return `!${answer.fault}`;
  const bytes = masked(answer.bytes, mask);
  if (what !== "result" || mask.length > 0 || bytes === "") return bytes;
  const bits = bytes.length * 4;
  const value = BigInt(`0x${bytes.match(/../g)!.reverse().join("")}`);
  return `${BigInt.asIntN(bits, value)}`;
}

function masked(bytes: string, mask: Label["mask"]): string {
  return mask.reduce(
    (text, [at, length]) =>
      text.slice(0, 2 * at) + text.slice(2 * at, 2 * (at + length)).replace(/./g, ".") +
      text.slice(2 * (at + length)),
    bytes,
  );
}

/** The answers of a program, by its labels. */
export const words = ({ labels }: Program, { answers }: Run): string[] =>
  labels.map((label) => word(answers.get(label.step), label));

/** In a row; `=` for a window that is as it was when it was last looked at. */
export function pack(program: Program, all: readonly string[]): string {
  const before = new Map<string, string>();
  return all.map((text, i) => {
    const { what } = program.labels[i];
    if (what === "result") return text;
    const same = before.get(what) === text;
    before.set(what, text);
    return same ? "=" : text;
  }).join(" ");
}

export function unpack(program: Program, packed: string): string[] {
  const before = new Map<string, string>();
  return packed.split(" ").map((text, i) => {
    const { what, mask } = program.labels[i];
    if (what === "result") return text;
    const value = text === "=" ? before.get(what)! : text;
    before.set(what, value);
    // What was not masked yet when it was recorded is masked now.
    return /^[!-]/.test(value) ? value : masked(value, mask);
  });
}

/** One answer in which two hosts differ. */
export interface Difference {
  readonly program: string;
  readonly label: Label;
  readonly xen: string;
  readonly xvm: string;
}

/**
 * Where answers differ; masked bytes are not looked at. A window that stays as different as it was is told
 * once.
 */
export function compare(
  program: Program,
  xen: readonly string[],
  xvm: readonly string[],
): Difference[] {
  const told = new Map<string, string>();
  return program.labels.flatMap((label, i) => {
    const pair = `${xen[i]} ${xvm[i]}`, before = told.get(label.what);
    told.set(label.what, pair);
    if (xen[i] === xvm[i] || label.what !== "result" && before === pair) return [];
    return [{ program: program.name, label, xen: xen[i], xvm: xvm[i] }];
  });
}
