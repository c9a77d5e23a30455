/**
 * Which answers each call got: by its kind, as a table.
 *
 * @module
 */
import { layoutOf, type StructOf } from "../../../src/abi/layout.ts";
import { errnoName } from "../../../src/abi/xen/errno.ts";
import { GNTST, GNTTABOP } from "../../../src/abi/xen/grant_table.ts";
import type { Label, Program } from "./writer.ts";

const STATUS = new Map(Object.entries(GNTST).map(([name, number]) => [number as number, name]));

export class Table {
  readonly #rows = new Map<string, Map<string, number>>();

  /** Takes up the answers of a program. */
  add(program: Program, words: readonly string[]): void {
    program.labels.forEach((label, i) => {
      if (label.what !== "result") return;
      let text = named(words[i]);
      const argument = program.labels[i + 1];
      if (text === "0" && argument?.what === "argument") {
        text = status(label, words[i + 1], program.width) ?? text;
      }
      this.#count(`${label.call} | ${label.kind}`, text);
      this.#count(`${label.call}`, text);
    });
  }

  #count(key: string, answer: string): void {
    let row = this.#rows.get(key);
    if (!row) this.#rows.set(key, row = new Map());
    row.set(answer, (row.get(answer) ?? 0) + 1);
  }

  text(): string {
    const rows = [...this.#rows].sort(([a], [b]) => a < b ? -1 : 1);
    return rows.map(([key, answers]) =>
      `| ${key} | ${
        [...answers].map(([answer, n]) => n > 1 ? `${answer} (${n})` : answer).join(", ")
      } |\n`
    ).join("");
  }
}

/** A result with its errno's name. */
const named = (word: string): string =>
  /^-\d+$/.test(word) ? errnoName(Number(word)) ?? word : word;

/** A grant operation says in its argument what became of it. */
function status({ call }: Label, argument: string, width: 32 | 64): string | undefined {
  const [hypercall, operation] = call.split(".");
  if (hypercall !== "grant_table_op") return undefined;
  const row = GNTTABOP[operation as keyof typeof GNTTABOP];
  const place = row && layoutOf(row.arg as StructOf, width).places.get("status");
  if (!place) return undefined;
  const bytes = argument.slice(2 * place.offset, 2 * place.offset + 4);
  const value = Number(BigInt.asIntN(16, BigInt(`0x${bytes.slice(2)}${bytes.slice(0, 2)}`)));
  return `0, ${STATUS.get(value) ?? value}`;
}
