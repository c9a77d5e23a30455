/** What {@linkcode parseArgs} is told about the options. */
export interface ParseOptions<
  B extends string = string,
  S extends string = string,
  C extends string = string,
> {
  /** Options that take no value. */
  boolean?: readonly B[];
  /** Options whose value stays text. */
  string?: readonly S[];
  /** Options that may be repeated; their value is an array. */
  collect?: readonly C[];
  /** Values where an option is not given. */
  default?: Record<string, unknown>;
  /** Short names and other names: `{ h: "help" }`. */
  alias?: Record<string, string | readonly string[]>;
  /** Whether what follows `--` is kept apart, in `"--"`. */
  "--"?: boolean;
  /** Whether the first argument that is no option ends the options. */
  stopEarly?: boolean;
  /** Called for an option that was not declared; false drops it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** The options, and under `_` what is none. */
export type Args<B extends string, S extends string, C extends string> =
  & { [K in B]: boolean }
  & { [K in Exclude<S, C>]?: string }
  & { [K in C]: K extends S ? string[] : unknown[] }
  & {
    _: (string | number)[];
    // deno-lint-ignore no-explicit-any
    [name: string]: any;
  };

const looksNumeric = (text: string) =>
  /^0x[0-9a-f]+$/i.test(text) || /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?$/i.test(text);
const natural = (text: string) => looksNumeric(text) ? Number(text) : text;

/** The option's name, its value where it was written with `=`, and whether `no-` stood before it. */
function split(word: string): { name: string; value?: string } {
  const body = word.replace(/^--?/, "");
  const at = body.indexOf("=");
  return at < 0 ? { name: body } : { name: body.slice(0, at), value: body.slice(at + 1) };
}

/**
 * Reads command-line arguments: `--name value`, `--name=value`, `--flag`, `--no-flag` for a declared
 * boolean, `-n value`.
 *
 * @example
 * ```ts
 * const args = parseArgs(["--seed", "7", "a.ts"], { string: ["seed"] });
 * if (args.seed !== "7" || args._[0] !== "a.ts") throw new Error("unexpected");
 * ```
 */
export function parseArgs<
  const B extends string = never,
  const S extends string = never,
  const C extends string = never,
>(args: readonly string[], options: ParseOptions<B, S, C> = {}): Args<B, S, C> {
  const booleans = new Set<string>(options.boolean);
  const strings = new Set<string>(options.string);
  const collected = new Set<string>(options.collect);
  const canonical = new Map<string, string>();
  for (const [a, others] of Object.entries(options.alias ?? {})) {
    const names = [a, ...[others].flat() as string[]];
    const main = names.find((n) => booleans.has(n) || strings.has(n) || collected.has(n)) ??
      names.toSorted((x, y) => y.length - x.length)[0];
    for (const name of names) canonical.set(name, main);
  }
  const known = (name: string) =>
    booleans.has(name) || strings.has(name) || collected.has(name) ||
    name in (options.default ?? {});

  const result: Record<string, unknown> = { _: [] };
  const rest = result._ as (string | number)[];
  const set = (name: string, value: unknown, word: string) => {
    if (!known(name) && options.unknown?.(word, name, value) === false) return;
    if (collected.has(name)) {
      (result[name] ??= [] as unknown[]) && (result[name] as unknown[]).push(value);
    } else result[name] = value;
  };

  for (let i = 0; i < args.length; i++) {
    const word = args[i];
    if (word === "--") {
      const tail = args.slice(i + 1);
      if (options["--"]) result["--"] = tail;
      else rest.push(...tail);
      break;
    }
    if (!/^-[^0-9]|^--./.test(word)) {
      if (options.unknown?.(word) !== false) rest.push(natural(word));
      if (!options.stopEarly) continue;
      rest.push(...args.slice(i + 1));
      break;
    }
    const { name: written, value } = split(word);
    const negated = written.startsWith("no-") && value === undefined &&
      booleans.has(written.slice(3));
    const plain = negated ? written.slice(3) : written;
    const name = canonical.get(plain) ?? plain;
    if (booleans.has(name)) {
      set(name, !negated && value !== "false", word);
    } else {
      const next = args[i + 1];
      const takes = value === undefined && next !== undefined && !/^-[^0-9]|^--/.test(next);
      const text = value ?? (takes ? args[++i] : undefined);
      set(
        name,
        text === undefined
          ? (strings.has(name) ? "" : true)
          : strings.has(name)
          ? text
          : natural(text),
        word,
      );
    }
  }

  for (const name of booleans) result[name] ??= options.default?.[name] ?? false;
  for (const name of collected) result[name] ??= options.default?.[name] ?? [];
  for (const [name, value] of Object.entries(options.default ?? {})) result[name] ??= value;
  for (const [other, main] of canonical) if (main in result) result[other] = result[main];
  return result as Args<B, S, C>;
}
