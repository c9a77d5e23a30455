/** Which instruction forms have handlers in the interpreters of flat code. */
import { conditionKind, FLAG_KIND, type FlagKind } from "../isa/flags.ts";
import { columnsOf, encodings } from "../isa/encodings.ts";
import { type FixedRegisters, type Form, formName } from "../isa/semantics/meaning.ts";
import { coldForm } from "./forms.ts";

/** Handlers that are not instructions. They do not count. */
export const PSEUDO = {
  /** The record is stale: look the instruction up again. */
  refetch: 0,
  /** Calls the function in REC.cold. */
  cold: 1,
  /** Falls into the next page. */
  pageEnd: 2,
  /** Goes on at the record in REC.target. */
  goto: 3,
  /** The next instruction crosses into a page that must still be the one it was decoded from. */
  crossing: 4,
  /** A breakpoint on the next instruction. */
  breakpoint: 5,
  /** The run goes on elsewhere: becomes a goto once it is known where. */
  more: 6,
} as const;
const PSEUDO_COUNT = 7;

/** Forms of the commonest instructions: a handler for each value of the registers that are named. */
const FIXED: Record<string, readonly ("a" | "b" | "base")[]> = {
  "mov.rr": ["a", "b"],
  "mov.rb": ["a", "base"],
  "mov.br": ["a", "base"],
  "mov.ri": ["a"],
  "add.rr": ["a", "b"],
  "xor.rr": ["a", "b"],
  "and.rr": ["a"],
  "sub.rr": ["a"],
  "cmp.rr": ["a"],
  "test.rr": ["a"],
  "add.ri": ["a"],
  "sub.ri": ["a"],
  "and.ri": ["a"],
  "cmp.ri": ["a"],
  "inc.r": ["a"],
  "dec.r": ["a"],
  "push.r": ["a"],
  "pop.r": ["a"],
  "lea.rb": ["a"],
  "shr.ri": ["a"],
  "shl.ri": ["a"],
  "rol.ri": ["a"],
  "ror.ri": ["a"],
};

/** In 64-bit code there are too many registers for more than the first one to be known. */
const FIXED_LONG = new Set(
  ("mov.rr mov.rb mov.br mov.ri add.rr add.ri sub.ri and.ri cmp.rr cmp.ri xor.rr test.rr lea.rb " +
    "push.r pop.r shr.ri shl.ri").split(" "),
);

/** Registers that handlers of their own know, for a form with its memory letter. */
export function fixedNames(form: Form, long: boolean): readonly ("a" | "b" | "base")[] | undefined {
  const name = `${form.key}.${form.operands.join("")}`;
  if (form.sizes[0] < 32 || form.operandSize !== form.sizes[0]) return undefined;
  return long ? (FIXED_LONG.has(name) ? ["a"] : undefined) : FIXED[name];
}

/** Registers by number, and eight for no base. */
function fixedRegisters(form: Form, long: boolean): FixedRegisters[] {
  const registers = Array.from({ length: long ? 16 : 8 }, (_, n) => n);
  let all: FixedRegisters[] = [];
  for (const name of fixedNames(form, long) ?? []) {
    all = name === "a"
      ? registers.map((a) => ({ a }))
      : all.flatMap((given) =>
        [...registers, ...name === "base" ? [8] : []].map((n) => ({ ...given, [name]: n }))
      );
  }
  return all;
}

/** All operands are bytes: the operand size, 32 in the table, means nothing. */
export const isByteForm = (form: Form): boolean =>
  form.sizes.length > 0 && form.sizes.every((s) => s === 8) && form.operands[0] !== "j";

/** A handler of the interpreter. */
export interface HotForm {
  readonly form: Form;
  readonly handler: number;
  /** The conditional jump that this handler goes on with. */
  readonly jump?: Form;
}
/** The hot handlers of a mode: forms by name, with the numbers of their handlers. */
export type HotForms = ReadonlyMap<string, HotForm>;

/** Conditions of a jump with which a comparison has a handler in common, by the kind of its flags. */
const FUSED_CONDITIONS: Partial<Record<FlagKind, readonly number[]>> = {
  [FLAG_KIND.sub]: [2, 3, 4, 5, 6, 7, 12, 13, 14, 15],
  [FLAG_KIND.logic]: [4, 5, 8, 9, 14, 15],
  [FLAG_KIND.decrement]: [4, 5, 8, 9],
};
/** Forms that often stand before a conditional jump. */
const FUSED = new Set(
  "cmp.rr cmp.ri cmp.rb cmp.br cmp.bi sub.ri test.rr test.ri test.bi and.ri dec.r".split(" "),
);

/** Name of the handler of a form together with a jump on condition `cc`. */
export const fusedName = (form: Form, cc: number): string => `${formName(form)}+${cc}`;

/** The jumps that a form has handlers in common with. */
function fusedJumps(form: Form, long: boolean): Form[] {
  if (form.sizes[0] === 16 || !FUSED.has(`${form.key}.${form.operands.join("")}`)) return [];
  const kind = FLAG_KIND[columnsOf(form.key, form.cc)?.lazy || "explicit"];
  const conditions = FUSED_CONDITIONS[kind] ?? [];
  return conditions.map((cc) => ({
    key: "jcc",
    cc,
    operandSize: long ? 64 : 32,
    operands: ["j"],
    sizes: [8],
    producer: conditionKind(kind, cc),
  }));
}

const tables: (HotForms | undefined)[] = [undefined, undefined];

/** All forms with a handler in the interpreter of flat 32-bit code, or of 64-bit code (`long`). */
export function hotForms(long: boolean): HotForms {
  return tables[+long] ??= listForms(long);
}

function listForms(long: boolean): HotForms {
  const forms = new Map<string, HotForm>();
  const add = (form: Form, jump?: Form) => {
    const name = jump ? fusedName(form, jump.cc) : formName(form);
    if (!forms.has(name)) forms.set(name, { form, jump, handler: PSEUDO_COUNT + forms.size });
  };
  for (const form of plainForms(long)) {
    if (form.cc >= 0) {
      for (const producer of Object.values(FLAG_KIND)) {
        add({ ...form, producer: conditionKind(producer, form.cc) });
      }
      continue;
    }
    add(form);
    for (const fixed of fixedRegisters(form, long)) add({ ...form, fixed });
    for (const jump of fusedJumps(form, long)) add(form, jump);
  }
  return forms;
}

/** Forms with their memory letters, some more than once. */
function* plainForms(long: boolean): Generator<Form> {
  for (const e of encodings) {
    const { d64, f64, hot } = e.attributes;
    if (!hot || (long ? e.attributes.i64 : e.attributes.o64 || e.rexw)) continue;
    const wide = long && (d64 || f64) ? [64] : long ? [32, 64] : [32];
    for (const size of [...wide, ...hot === "all" ? [16] : []]) {
      for (const memory of [false, true]) {
        const form = coldForm(e, memory, size, long ? 64 : 32);
        if (form.operands.includes("n")) continue;
        if (size !== 32 && isByteForm(form)) continue;
        const hasMemory = form.operands.includes("M");
        if (memory && !hasMemory) continue;
        // Strings of bits have addresses of their own.
        if (e.key.startsWith("bt") && form.operands.join("") === "Mr") continue;
        for (const letter of hasMemory ? ["b", "x", "s"] as const : ["-"] as const) {
          if (letter === "s" && hot === "flat") continue;
          yield { ...form, operands: form.operands.map((o) => o === "M" ? letter : o) };
        }
      }
    }
  }
}
