/**
 * Names that files of src give out: no two types have one name, and each is wanted somewhere.
 *
 * @module
 */
import { isTest, lineAt, type Source, type Violation } from "./source.ts";

/** Something that a file gives out: a type, a value, or a line of values, which is a table. */
interface Export {
  readonly file: string;
  readonly names: readonly string[];
  readonly line: number;
  readonly isType: boolean;
}

const EXPORT =
  /^export (?:declare |abstract |async )*(interface|type|class|enum|const|let|function\*?) (\w+)([^\n]*)/gm;

/** What a file declares and gives out at once. */
function exportsOf({ file, code }: Source): Export[] {
  return [...code.matchAll(EXPORT)].map((match) => {
    const [, what, name, rest] = match;
    const others = what === "const"
      ? [...rest.matchAll(/, (\w+) = /g)].map((other) => other[1])
      : [];
    const isType = /interface|type|class|enum/.test(what);
    return { file, names: [name, ...others], line: lineAt(code, match.index), isType };
  });
}

const inSrc = (sources: readonly Source[]) => sources.filter(({ file }) => file.startsWith("src/"));

/** Types whose name another file of src has already given away. */
export function checkTypeNames(sources: readonly Source[]): Violation[] {
  const first = new Map<string, string>();
  return inSrc(sources).filter(({ file }) => !isTest(file)).flatMap(exportsOf)
    .flatMap(({ file, names: [name], line, isType }) => {
      const other = first.get(name);
      if (!isType || other === undefined) {
        if (isType) first.set(name, file);
        return [];
      }
      return [{ file, line, message: `the type ${name} has the name of one in ${other}` }];
    });
}

/** What no other file imports; a type may stand in what its own file gives out. */
export function checkWanted(sources: readonly Source[]): Violation[] {
  const wanted = new Set<string>();
  for (const { imports } of sources) {
    for (const { target, names } of imports) {
      for (const name of names) wanted.add(`${target} ${name}`);
    }
  }
  return inSrc(sources).flatMap((source) => {
    const { file, code } = source;
    if (file.endsWith("_test.ts") || wanted.has(`${file} *`)) return [];
    const inside = (name: string) => code.match(new RegExp(`\\b${name}\\b`, "g"))!.length > 1;
    return exportsOf(source)
      .filter(({ names, isType }) =>
        !names.some((name) => wanted.has(`${file} ${name}`) || isType && inside(name))
      )
      .map(({ names, line }) => ({
        file,
        line,
        message: `${names.join(", ")} is exported and imported nowhere`,
      }));
  });
}

const PADDING = /[pP]ad\d?$/;
/** The names in a list of cells (wasm/cells.ts), where they stand as they are. */
const CELLS = /\bcells\((?:\{[^}]*\}|[^{]*?), \{\n([^]*?)\n\}\)/g;

/** Cells of memory 0 that nobody reads or writes. */
export function checkCells(sources: readonly Source[]): Violation[] {
  const machine = sources.filter(({ file }) => file.startsWith("src/"));
  const all = machine.map(({ code }) => code).join("\n");
  return machine.filter(({ file }) => !isTest(file)).flatMap(({ file, code }) =>
    [...code.matchAll(CELLS)].flatMap((list) =>
      [...list[1].matchAll(/^ {2}(\w+):/gm)].flatMap(({ 1: name, index }) => {
        const used = PADDING.test(name) ||
          new RegExp(`\\.${name}\\b|["'\`]${name}["'\`]`).test(all);
        const line = lineAt(code, list.index + list[0].indexOf(list[1]) + index);
        return used ? [] : [{ file, line, message: `nobody uses the cell ${name}` }];
      })
    )
  );
}
