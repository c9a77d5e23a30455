import { Argument, Command as Commander, CommanderError, Option } from "commander";
import type { ArgumentsOf, OptionOf } from "./infer.ts";
import { BUILT_IN, type BuiltIn, type Type, ValidationError } from "./types.ts";

/** What {@linkcode Command.option} may be told. */
export interface OptionSettings {
  /** The value where the option is not given. */
  default?: unknown;
  /** Whether leaving it out is an error. */
  required?: boolean;
  /** Whether it may be repeated; the value is then an array. */
  collect?: boolean;
  /** Names of options (camel case) that cannot be given together with this one. */
  conflicts?: string[];
  /** Whether help leaves it out. */
  hidden?: boolean;
}

/** What {@linkcode Command.parse} found. */
export interface CommandResult<O, A> {
  options: O;
  args: A;
  cmd: Command<O, unknown[]>;
}

// deno-lint-ignore no-explicit-any
type AnyCommand = Command<any, any, any>;

/**
 * A command: options, arguments, an action, and commands of its own.
 *
 * @example
 * ```ts
 * const { options } = await new Command()
 *   .name("demo")
 *   .option("-n, --count <n:integer>", "How many.", { default: 1 })
 *   .parse(["-n", "3"]);
 * if (options.count !== 3) throw new Error("unexpected");
 * ```
 */
export class Command<
  O = Record<never, never>,
  A extends unknown[] = [],
  T extends object = BuiltIn,
> {
  readonly #inner = new Commander();
  readonly #types: Record<string, Type<unknown>> = { ...BUILT_IN };
  readonly #examples: { name: string; text: string }[] = [];
  #throws = false;
  #exits = true;
  #action?: (options: O, ...args: A) => unknown;

  constructor() {
    this.#inner.exitOverride().configureOutput({ writeErr: () => {} }).allowExcessArguments(false);
    this.#inner.helpOption("-h, --help", "Show this help.").helpCommand(false);
    this.#inner.addHelpText("after", () => this.#exampleText());
  }

  /** Its name, in usage and errors. */
  name(name: string): this {
    this.#inner.name(name);
    return this;
  }

  /** Adds `-V, --version`. */
  version(version: string): this {
    this.#inner.version(version, "-V, --version", "Show the version number for this program.");
    return this;
  }

  /** What it does. */
  description(text: string): this {
    this.#inner.description(text);
    return this;
  }

  /** Names a type that options and arguments declared after it may use. */
  type<N extends string, V>(name: N, type: Type<V>): Command<O, A, T & { [K in N]: V }> {
    this.#types[name] = type;
    return this as unknown as Command<O, A, T & { [K in N]: V }>;
  }

  /** Declares an option: `"-m, --memory <size:string>"`, `"--stats"`, `"--log [file]"`. */
  option<F extends string, const S extends OptionSettings = Record<never, never>>(
    flags: F,
    description: string,
    settings?: S,
  ): Command<O & OptionOf<F, S, T>, A, T> {
    const { text, type } = plain(flags);
    const option = new Option(text, description);
    if (option.required || option.optional) {
      option.argParser((value: string, before: unknown) => {
        const parsed = this.#parse("Option", `--${option.name()}`, type, value);
        const many = option.variadic || settings?.collect;
        return many ? [...(Array.isArray(before) ? before : []), parsed] : parsed;
      });
    }
    if (settings?.default !== undefined) option.default(settings.default);
    if (settings?.required) option.makeOptionMandatory();
    if (settings?.hidden) option.hideHelp();
    if (settings?.conflicts) option.conflicts(settings.conflicts);
    this.#inner.addOption(option);
    return this as unknown as Command<O & OptionOf<F, S, T>, A, T>;
  }

  /** Declares the arguments: `"<file:string> [args...:string]"`. */
  arguments<const S extends string>(spec: S): Command<O, ArgumentsOf<S, T>, T> {
    for (const word of spec.split(" ")) {
      const { text, type } = plain(word);
      const argument = new Argument(text);
      argument.argParser((value: string, before: unknown) => {
        const parsed = this.#parse("Argument", argument.name(), type, value);
        return argument.variadic ? [...(Array.isArray(before) ? before : []), parsed] : parsed;
      });
      this.#inner.addArgument(argument);
    }
    return this as unknown as Command<O, ArgumentsOf<S, T>, T>;
  }

  /** What is done with them. */
  action(fn: (options: O, ...args: A) => unknown): this {
    this.#action = fn;
    this.#inner.action(async (...given: unknown[]) => {
      const args = given.slice(0, this.#inner.registeredArguments.length)
        .flatMap((it, i) => this.#inner.registeredArguments[i].variadic ? it ?? [] : [it]);
      await fn(this.#inner.opts() as O, ...args as A);
    });
    return this;
  }

  /** Adds a command of its own under `name`. */
  command(name: string, cmd: AnyCommand): this {
    cmd.#inner.name(name);
    this.#inner.enablePositionalOptions().addCommand(cmd.#inner);
    return this;
  }

  /** An example, shown at the end of the help. */
  example(name: string, text: string): this {
    this.#examples.push({ name, text });
    return this;
  }

  /** From the first argument on, nothing is an option. */
  stopEarly(): this {
    this.#inner.passThroughOptions();
    return this;
  }

  /** Wrong use is thrown as a ValidationError instead of being printed. */
  throwErrors(): this {
    this.#throws = true;
    return this;
  }

  /** As {@linkcode throwErrors}; and help and version do not end the process. */
  noExit(): this {
    this.#exits = false;
    return this.throwErrors();
  }

  /** The help, as text. */
  getHelp(): string {
    return this.#inner.helpInformation() + this.#exampleText();
  }

  /** Prints the help. */
  showHelp(): void {
    console.log(this.getHelp());
  }

  /** Reads the arguments and runs the action of the command they name. */
  async parse(args: string[] = Deno.args): Promise<CommandResult<O, A>> {
    try {
      await this.#inner.parseAsync(args, { from: "user" });
    } catch (error) {
      this.#fail(error);
    }
    const result = { options: this.#inner.opts() as O, args: this.#inner.processedArgs as A };
    return { ...result, cmd: this as unknown as Command<O, unknown[]> };
  }

  #parse(label: string, name: string, type: string, value: string): unknown {
    const handler = this.#types[type];
    if (!handler) throw new Error(`${label} "${name}" has the unknown type "${type}"`);
    return handler.parse({ label, name, type, value });
  }

  #fail(error: unknown): void {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) {
        if (this.#exits) Deno.exit(0);
        return;
      }
      const text = error.message.replace(/^error: /, "");
      error = new ValidationError(text.charAt(0).toUpperCase() + text.slice(1));
    }
    if (this.#throws || !(error instanceof ValidationError)) throw error;
    this.showHelp();
    console.error(`  error: ${error.message}`);
    Deno.exit(error.exitCode);
  }

  #exampleText(): string {
    if (this.#examples.length === 0) return "";
    const shown = this.#examples.map(({ name, text }) =>
      `  ${name}\n    ${text.replaceAll("\n", "\n    ")}`
    );
    return `\nExamples:\n${shown.join("\n")}\n`;
  }
}

/** A declaration without its type, and the type: `<n:integer>` is `<n>` and "integer". */
function plain(declaration: string): { text: string; type: string } {
  const type = declaration.match(/[<[][^:>\]]+:([\w-]+)[>\]]/)?.[1] ?? "string";
  return { text: declaration.replace(/:[\w-]+([>\]])/, "$1"), type };
}
