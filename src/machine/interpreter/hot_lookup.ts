/** Finds the hot handlers of a form; what was found is kept. */
import { conditionKind, type FlagKind } from "../isa/flags.ts";
import { type Form, formName } from "../isa/semantics/meaning.ts";
import { fixedNames, fusedName, hotForms, isByteForm } from "./hot_forms.ts";

/** The hot handler of a form, 0 if it has none, and those that know its registers. */
export interface HotHandler {
  readonly plain: number;
  /** By the first register plus sixteen times the second register or the base. */
  readonly fixed?: Uint16Array;
  readonly names: readonly string[];
  /** The handler that does the conditional jump behind it too, by its condition. */
  readonly fused: readonly number[];
}
const hotByForm = new Map<Form, Map<string, HotHandler>>();
/** How a memory operand is reached: see OperandForm. */
export type MemoryLetter = "b" | "x" | "s";

/** The hot handler of a form in 32-bit or 64-bit (`long`) code. */
export function hotHandler(
  form: Form,
  letter: MemoryLetter,
  producer: FlagKind,
  long: boolean,
): HotHandler {
  const id = `${letter}${producer}${long}`;
  let byLetter = hotByForm.get(form);
  if (!byLetter) hotByForm.set(form, byLetter = new Map());
  let handler = byLetter.get(id);
  if (!handler) byLetter.set(id, handler = findHandler(form, letter, producer, long));
  return handler;
}

function findHandler(
  form: Form,
  letter: MemoryLetter,
  producer: FlagKind,
  long: boolean,
): HotHandler {
  const table = hotForms(long);
  const operands = form.operands.map((o) => o === "M" ? letter : o);
  const known = form.cc >= 0 ? conditionKind(producer, form.cc) : undefined;
  const operandSize = isByteForm(form) ? 32 : form.operandSize;
  const exact: Form = { ...form, operands, operandSize, producer: known };
  const plain = table.get(formName(exact))?.handler ?? 0;
  const names = plain && fixedNames(exact, long) || [];
  const fused = Array.from(
    { length: 16 },
    (_, cc) => table.get(fusedName(exact, cc))?.handler ?? 0,
  );
  if (!names.length) return { plain, names, fused };
  const fixed = new Uint16Array(16 * 9);
  for (let a = 0; a < 16; a++) {
    for (let other = 0; other < (names[1] ? 9 : 1); other++) {
      const registers = { a, ...(names[1] ? { [names[1]]: other } : {}) };
      fixed[a + 16 * other] = table.get(formName({ ...exact, fixed: registers }))?.handler ?? 0;
    }
  }
  return { plain, fixed, names, fused };
}
