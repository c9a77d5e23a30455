/** From a decoded instruction to its form, and the forms an encoding can have. */
import type { Encoding } from "../isa/encodings.ts";
import type { Instruction } from "../isa/decode.ts";
import { type OperandSpec, sizeBytes } from "../isa/operands.ts";
import type { Form, OperandForm } from "../isa/semantics/meaning.ts";

/** Form letter of an operand, given whether ModRM names memory. */
function operandForm(spec: OperandSpec, memory: boolean): OperandForm {
  switch (spec.kind) {
    case "E":
      return memory ? "M" : "r";
    case "G":
    case "Z":
    case "gpr":
    case "R":
      return "r";
    case "I":
      return "i";
    case "one":
      return "1";
    case "J":
      return "j";
    case "M":
    case "O":
      return "M";
    case "Q":
    case "W":
      return memory ? "M" : "n";
    case "A":
    case "B":
    case "X":
    case "Y":
      return "-";
    default:
      return "n";
  }
}

function operandBits(
  e: Encoding,
  spec: OperandSpec,
  memory: boolean,
  operandSize: number,
  mode: number,
): number {
  // The decoder has extended these; they take the width of what they are combined with.
  if (spec.kind === "I" && spec.signed) {
    const first = e.operands[0];
    return first === spec ? operandSize : operandBits(e, first, memory, operandSize, mode);
  }
  const code = memory && operandForm(spec, memory) === "M" ? spec.memorySize : spec.size;
  // A far pointer, a structure or an address has no width a handler could read at once.
  return 8 * sizeBytes(code, operandSize, mode);
}

const cache = new Map<number, Form>();

/** The cold form of an encoding; the same object every time. */
export function coldForm(e: Encoding, memory: boolean, operandSize: number, mode: number): Form {
  const id = ((e.id * 2 + (memory ? 1 : 0)) * 4 + (operandSize >> 5)) * 2 + (mode === 64 ? 1 : 0);
  let form = cache.get(id);
  if (!form) {
    form = {
      key: e.key,
      cc: e.cc,
      operandSize: operandSize as 16 | 32 | 64,
      operands: e.operands.map((o) => operandForm(o, memory)),
      sizes: e.operands.map((o) => operandBits(e, o, memory, operandSize, mode)),
    };
    cache.set(id, form);
  }
  return form;
}

/** The cold forms of an encoding, some of them more than once. */
export function* formsOf(e: Encoding): Iterable<Form> {
  for (const mode of [32, 64]) {
    if (mode === 64 ? e.attributes.i64 : e.attributes.o64) continue;
    for (const size of mode === 64 ? [16, 32, 64] : [16, 32]) {
      for (const memory of [false, true]) {
        const form = coldForm(e, memory, size, mode);
        if (!memory || form.operands.includes("M")) yield form;
      }
    }
  }
}

/** The cold form of a decoded instruction. */
export function formOf(x: Instruction, mode: number): Form {
  return coldForm(x.encoding, x.memory, x.operandSize, mode);
}

/** Does REC.copy hold the displacement of a form? It does where the handler knows the registers. */
export const hasDisplacementCopy = (form: Form): boolean => form.fixed?.base !== undefined;

/** Does REC.copy hold the immediate of a form? It does where no second register or memory is. */
export function hasCopy(form: Form): boolean {
  const registers = form.operands.filter((o) => o === "r" || o === "n").length;
  return form.operands.includes("i") && registers < 2 &&
    !form.operands.some((o) => "bxsM".includes(o));
}
