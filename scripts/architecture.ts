/**
 * What docs/architecture.md and CONTRIBUTING.md say of the sources, to be held against them: paths,
 * and names that are declared in the files named beside them.
 *
 * A block is a paragraph, an item of a list or a row of a table; in it `Name`, `Class.member` and
 * `Class.#member` have to be declared in a file that the block names; where it names none, in one that
 * the page names.
 *
 * @module
 */

/** What a page mentions in one block. */
export interface Block {
  /** Files and folders (with `/` at the end), from the repository's root. */
  readonly paths: readonly string[];
  /** Identifiers, with dots between class and member. */
  readonly names: readonly string[];
}

const PATH = /^(?:src|repl|scripts|tests|docs)\/[\w./-]*$/;
const NAME = /^[A-Za-z_$][\w$]*(?:\.#?[A-Za-z_$][\w$]*)*$/;

/** The blocks of a Markdown page that mention something; fenced code is none. */
export function blocksOf(page: string): Block[] {
  const prose = page.replace(/^ *```[^]*?^ *```$/gm, "");
  return prose.split(/\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\|)/).map((text) => {
    const spans = [...text.matchAll(/`([^`\n]+)`/g)].map(([, span]) => span);
    return {
      paths: spans.filter((span) => PATH.test(span)),
      names: spans.filter((span) => NAME.test(span) && !span.endsWith(".ts")),
    };
  }).filter(({ paths, names }) => paths.length + names.length > 0);
}

const MODIFIERS = "(?:(?:static|protected|private|readonly|abstract|async|override|get|set)\\s+)*";

/** Whether a source declares a name: of a module, of a member, or of a function that it generates. */
export function declares(source: string, name: string): boolean {
  const word = name.replaceAll("$", "\\$");
  return [
    `\\b(?:class|function|const|interface|type)\\s+${word}\\b`,
    // A member; what ends with a parenthesis and a semicolon is a call.
    `^\\s+${MODIFIERS}\\*?${word}[?!]?(?:[:;<]|\\s=|\\((?![^\\n]*\\);$))`,
    `^\\s+${word},$`,
    `\\b(?:func|declareLater)\\("${word}"`,
  ].some((pattern) => new RegExp(pattern, "m").test(source));
}

/** What a page says that is not so; `read` gives a file's text, null if there is none. */
export async function wrongIn(
  page: string,
  read: (path: string) => Promise<string | null>,
): Promise<string[]> {
  const blocks = blocksOf(page), wrong: string[] = [];
  const sources = new Map<string, string>();
  for (const path of new Set(blocks.flatMap((block) => block.paths))) {
    const text = await read(path);
    if (text === null) wrong.push(`there is no ${path}`);
    else sources.set(path, text);
  }
  for (const { paths, names } of blocks) {
    const files = paths.some((path) => path.endsWith(".ts")) ? paths : [...sources.keys()];
    for (const name of names) {
      const missing = name.split(".").find((part) =>
        !files.some((file) => declares(sources.get(file) ?? "", part))
      );
      if (missing) {
        wrong.push(`${name}: ${missing} is declared in none of ${files.slice(0, 4).join(" ")}`);
      }
    }
  }
  return wrong;
}
