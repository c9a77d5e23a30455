/**
 * Stand-in for `jsr:@cliffy/prompt` where JSR cannot be reached: the same names, options and meaning
 * for the part of the package that xvm uses, over npm's `@inquirer/prompts`, loaded when asked.
 *
 * @module
 */
const inquirer = () => import("@inquirer/prompts");

/** What every prompt may be told. */
export interface GenericPromptOptions<T> {
  /** The question. */
  message: string;
  /** The answer when only Enter is pressed. */
  default?: T;
}

/** A question answered with yes or no. */
export class Confirm {
  /** Asks, and resolves to the answer. */
  static async prompt(options: string | GenericPromptOptions<boolean>): Promise<boolean> {
    const { message, default: preset } = normal(options);
    return await (await inquirer()).confirm({ message, default: preset ?? false });
  }
}

/** A question answered with a line of text. */
export class Input {
  /** Asks, and resolves to the answer. */
  static async prompt(options: string | GenericPromptOptions<string>): Promise<string> {
    const { message, default: preset } = normal(options);
    return await (await inquirer()).input({ message, default: preset });
  }
}

/** One choice of a {@linkcode Select}. */
export interface SelectOption<T> {
  /** What is shown; the value when it is left out. */
  name?: string;
  value: T;
  disabled?: boolean;
}

/** What {@linkcode Select} may be told. */
export interface SelectOptions<T> extends GenericPromptOptions<T> {
  options: (T | SelectOption<T>)[];
  /** How many choices are shown at once. */
  maxRows?: number;
}

/** A choice of one from a list. */
export class Select {
  /** Asks, and resolves to the value chosen. */
  static async prompt<T extends string | number>(options: SelectOptions<T>): Promise<T> {
    const choices = options.options.map((it) =>
      typeof it === "object"
        ? { ...it, name: it.name ?? String(it.value) }
        : { value: it, name: String(it) }
    );
    const { message, default: preset, maxRows: pageSize } = options;
    return await (await inquirer()).select<T>({ message, default: preset, choices, pageSize });
  }
}

function normal<T>(options: string | GenericPromptOptions<T>): GenericPromptOptions<T> {
  return typeof options === "string" ? { message: options } : options;
}
