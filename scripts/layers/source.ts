/**
 * What the rules look at: a file's text without comments, and what it imports.
 *
 * @module
 */

/** One broken rule. */
export interface Violation {
  /** Path from the repository's root. */
  file: string;
  /** Line, from 1. */
  line: number;
  /** What is wrong, and what would be right. */
  message: string;
}

/** One import or re-export. */
export interface Import {
  /** As it is written. */
  readonly specifier: string;
  /** The root-relative path that is meant, or null for a package. */
  readonly target: string | null;
  /** What is taken, in the words of the file; "*" for all. */
  readonly names: readonly string[];
  /** `import type` and `export type`: nothing of it is there when the program runs. */
  readonly typeOnly: boolean;
  /** Line, from 1. */
  readonly line: number;
}

/** A file as rules see it. */
export interface Source {
  /** Path from the repository's root, with `/`. */
  readonly file: string;
  readonly text: string;
  /** The text with comments blanked, so that lines and columns stay where they are. */
  readonly code: string;
  readonly imports: readonly Import[];
}

/** Tests, and what only they use: these stand beside what they test and may look up. */
export const isTest = (file: string): boolean => /_test\.ts$|\/testing[^/]*(\/|\.ts$)/.test(file);

export const within = (path: string, folder: string): boolean =>
  path === folder || path.startsWith(`${folder}/`);

/** The text with comments blanked, so that lines and columns stay where they are. */
export function withoutComments(text: string): string {
  const token =
    /\/\/[^\n]*|\/\*[^]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[^])*`|(?<=[(,=:[!&|?{};\n]\s*)\/(?![/*])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\//g;
  return text.replace(
    token,
    (part) => /^\/[/*]/.test(part) ? part.replace(/[^\n]/g, " ") : part,
  );
}

/** The line of a place in a text, from 1. */
export const lineAt = (text: string, index: number): number =>
  text.slice(0, index).split("\n").length;

function resolve(file: string, specifier: string): string | null {
  if (specifier === "xvm") return "mod.ts";
  if (!specifier.startsWith(".")) return null;
  return new URL(specifier, `file:///${file}`).pathname.slice(1);
}

const IMPORT =
  /\b(?:(import|export)\s+(type\s+)?([^"'`;()]*?)\bfrom|import\s*\(?)\s*["']([^"']+)["']/g;

/** Names in `a, type B, c as d` between braces, or "*". */
function namesOf(clause: string): string[] {
  if (clause.includes("*")) return ["*"];
  const [whole, inner = ""] = clause.match(/\{([^}]*)\}/) ?? [clause];
  const named = inner.split(",").map((part) =>
    part.trim().replace(/^type\s+/, "").split(/\s+as\s+/)[0]
  );
  const isDefault = clause.replace(whole, "").trim() !== "";
  return [...named.filter((name) => name !== ""), ...isDefault ? ["default"] : []];
}

/** Reads a file; `file` is its path from the root, with `/`. */
export function sourceOf(file: string, text: string): Source {
  const code = withoutComments(text);
  const imports = [...code.matchAll(IMPORT)].map((match): Import => ({
    specifier: match[4],
    target: resolve(file, match[4]),
    names: match[1] ? namesOf(match[3]) : ["*"],
    typeOnly: match[2] !== undefined,
    line: lineAt(code, match.index),
  }));
  return { file, text, code, imports };
}
