/**
 * A kind in words: what its row says, for `.help KIND` and for docs/kinds.md.
 *
 * @module
 */
import { type ExitRow, exitRows } from "../hvm/exit_kinds.ts";
import { type Field, type FieldTable, isFiltered } from "../hvm/fields.ts";
import { hvmOps } from "../hvm/vendors.ts";
import { everywhere, filterFields, isExit, isPlatform, type Kind, rows } from "./kinds.ts";
import { hex } from "./values.ts";
import { CPU_MODELS } from "../machine/vendors.ts";

/** What there is to say of a kind, each part in a line. */
export interface KindHelp {
  readonly kind: Kind;
  readonly meaning: string;
  readonly help: string;
  /** Keys of filters, and what each may be. */
  readonly filter: readonly (readonly [key: string, may: string])[];
  /** Names of what events have. */
  readonly fields: readonly string[];
  /** What a reply says, and what `deny()` does. */
  readonly reply: string;
  readonly deny: string;
  /** Who has it. */
  readonly where: string;
  readonly example: string;
}

const number = (n: number) => n > 9 ? hex(n) : String(n);

/** What a filter may say of a field. */
function may({ is, min = 0, max = 0, bits = 64, of = [], names, range, needed }: Field): string {
  const one = is === "number"
    ? `${number(min)} to ${number(max)}${names ? `, or a name (${Object.keys(names)[0]})` : ""}`
    : is === "flag"
    ? "true or false"
    : is === "choice"
    ? of.join(", ")
    : is === "word"
    ? `${bits} bits`
    : is === "path"
    ? "a path; * stands for any part, a slash at the end for all below"
    : is === "physical"
    ? "a guest-physical address"
    : "an address or a symbol";
  return one + (range ? "; or a range" : "") + (needed ? "; must be said" : "");
}

const keysOf = (fields: FieldTable): string => Object.keys(fields).join(", ");

function replyOf({ reply }: ExitRow): string {
  if (!reply) return "";
  return keysOf(typeof reply.takes === "function" ? reply.takes({}) : reply.takes);
}

/** What deny() does. */
function denyOf(kind: Kind): string {
  const { refuses } = rows[kind], exit = isExit(kind) ? exitRows[kind] : undefined;
  if (refuses?.plainly) return `deny() gives ${refuses.plainly}, deny(status) another`;
  const injects = exit && `deny() injects ${exit.denied ?? "#GP(0)"}`;
  return (injects ?? "") + (refuses ? "; deny(status) gives an error" : "");
}

function whereOf(kind: Kind): string {
  if (isPlatform(kind)) return "domains that know Xen (xen: true)";
  if (everywhere.includes(kind)) return "every domain";
  const hvm = 'domains of type "hvm"';
  if (!isExit(kind)) return hvm;
  const { paging } = exitRows[kind];
  const hosts = CPU_MODELS.filter((model) => hvmOps(model).exitKinds.includes(kind));
  return hvm + (paging ? ` with ${paging} paging` : "") +
    (hosts.length < CPU_MODELS.length ? ` on hosts with cpu: "${hosts}"` : "");
}

/** What the row of a kind says. */
export function kindHelp(kind: Kind): KindHelp {
  const row = rows[kind], exit = isExit(kind) ? exitRows[kind] : undefined;
  return {
    kind,
    meaning: row.meaning,
    help: row.help ?? "",
    filter: Object.entries(filterFields(kind)).filter(([, f]) => isFiltered(f))
      .map(([key, field]) => [key, may(field)]),
    fields: kind === "any" ? ["those of the exit that it is"] : Object.keys(row.fields),
    reply: exit ? replyOf(exit) : "",
    deny: denyOf(kind),
    where: whereOf(kind),
    example: row.example,
  };
}

/** The same as text. */
export function kindText(kind: Kind): string {
  const { meaning, help, filter, fields, reply, deny, where, example } = kindHelp(kind);
  const width = Math.max(0, ...filter.map(([key]) => key.length));
  return [
    `${kind}: ${meaning}.`,
    help,
    ...filter.length ? ["filter:"] : [],
    ...filter.map(([key, what]) => `  ${key.padEnd(width)}  ${what}`),
    fields.length ? `events have: ${fields.join(", ")}` : "",
    reply && `reply: { ${reply} }`,
    deny,
    `who has it: ${where}`,
    `  ${example}`,
  ].filter((line) => line).join("\n");
}
