/**
 * Types of a mutated file: a mutation that the compiler sees is caught by no test. One language
 * service for all of them; only what a mutation adds to a file's errors counts, so that what this
 * service does not know of Deno does not matter.
 *
 * @module
 */
import ts from "typescript";

const OPTIONS: ts.CompilerOptions = {
  noEmit: true,
  strict: true,
  allowImportingTsExtensions: true,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  target: ts.ScriptTarget.ESNext,
  lib: ["lib.esnext.d.ts", "lib.dom.d.ts"],
  types: [],
};

/** Where TypeScript's own declarations lie. */
const libraries = new URL("./", import.meta.resolve("typescript")).pathname;

export class TypeCheck {
  readonly #texts = new Map<string, { text: string; version: number }>();
  readonly #service: ts.LanguageService;

  /** @param files paths of all files that will be asked about */
  constructor(root: string, files: readonly string[]) {
    const text = (path: string) => {
      const own = this.#texts.get(path);
      if (own) return own.text;
      try {
        return Deno.readTextFileSync(path);
      } catch {
        return undefined;
      }
    };
    this.#service = ts.createLanguageService({
      getCompilationSettings: () => OPTIONS,
      getScriptFileNames: () => [...files],
      getScriptVersion: (path) => String(this.#texts.get(path)?.version ?? 0),
      getScriptSnapshot: (path) => {
        const found = text(path);
        return found === undefined ? undefined : ts.ScriptSnapshot.fromString(found);
      },
      getCurrentDirectory: () => root,
      getDefaultLibFileName: () => `${libraries}lib.esnext.d.ts`,
      fileExists: (path) => text(path) !== undefined,
      readFile: text,
    });
  }

  #errors(path: string): string[] {
    return [
      ...this.#service.getSyntacticDiagnostics(path),
      ...this.#service.getSemanticDiagnostics(path),
    ].map((d) => ts.flattenDiagnosticMessageText(d.messageText, " "));
  }

  /** Errors that `path` has with this text and has not with its own. */
  added(path: string, text: string): string[] {
    const before = new Map<string, number>();
    for (const e of this.#errors(path)) before.set(e, (before.get(e) ?? 0) + 1);
    const version = (this.#texts.get(path)?.version ?? 0) + 1;
    this.#texts.set(path, { text, version });
    const after = this.#errors(path);
    this.#texts.set(path, { text: Deno.readTextFileSync(path), version: version + 1 });
    return after.filter((e) => {
      const n = before.get(e) ?? 0;
      before.set(e, n - 1);
      return n <= 0;
    });
  }
}
