/** The command was used wrongly; `exitCode` is what the process should end with. */
export class ValidationError extends Error {
  readonly exitCode: number;
  /** The command it happened in. */
  cmd?: unknown;

  constructor(message: string, { exitCode }: { exitCode?: number } = {}) {
    super(message);
    this.name = "ValidationError";
    this.exitCode = exitCode ?? 2;
  }
}

/** What {@linkcode Type.parse} is given: where the value stands, and the value. */
export interface ArgumentValue {
  /** "Option" or "Argument". */
  label: string;
  /** The name of the type. */
  type: string;
  /** The name of the option or argument. */
  name: string;
  /** What was written. */
  value: string;
}

/** Turns what was written into a value, or throws a ValidationError. */
export abstract class Type<T> {
  abstract parse(type: ArgumentValue): T;
}

/** One of a list of words. */
export class EnumType<const T extends string> extends Type<T> {
  readonly #values: readonly T[];

  constructor(values: readonly T[]) {
    super();
    this.#values = values;
  }

  parse({ label, name, value }: ArgumentValue): T {
    const found = this.#values.find((it) => it === value);
    if (found !== undefined) return found;
    throw new ValidationError(
      `${label} "${name}" must be one of: ${this.#values.join(", ")}; but got "${value}".`,
    );
  }

  /** The words. */
  values(): T[] {
    return [...this.#values];
  }
}

function wrong({ label, name, type, value }: ArgumentValue): never {
  throw new ValidationError(`${label} "${name}" must be of type "${type}", but got "${value}".`);
}

class StringType extends Type<string> {
  parse({ value }: ArgumentValue): string {
    return value;
  }
}

class NumberType extends Type<number> {
  parse(it: ArgumentValue): number {
    const number = Number(it.value);
    return it.value.trim() !== "" && Number.isFinite(number) ? number : wrong(it);
  }
}

class IntegerType extends Type<number> {
  parse(it: ArgumentValue): number {
    const number = Number(it.value);
    return it.value.trim() !== "" && Number.isInteger(number) ? number : wrong(it);
  }
}

class BooleanType extends Type<boolean> {
  parse(it: ArgumentValue): boolean {
    if (/^(true|1)$/.test(it.value)) return true;
    return /^(false|0)$/.test(it.value) ? false : wrong(it);
  }
}

/** The types every command knows. */
export const BUILT_IN = {
  string: new StringType(),
  number: new NumberType(),
  integer: new IntegerType(),
  boolean: new BooleanType(),
  file: new StringType(),
};

/** The value types of {@linkcode BUILT_IN}, by name. */
export interface BuiltIn {
  string: string;
  number: number;
  integer: number;
  boolean: boolean;
  file: string;
}
