/**
 * Every file of src says at its head what it is for.
 *
 * @module
 */
import type { Source, Violation } from "./source.ts";

/** The comment of a file, and not of its first declaration: so that is marked, or set apart. */
const HEAD =
  /^\/\*\*(?:(?!\*\/)[^])*?(?:@module\s*\*\/|\*\/\s*\n(?=\n|import\b|export [^\n]* from\b))/;

/** A file of src, other than a test, that does not say what it is for. */
export function checkHead({ file, text }: Source): Violation[] {
  if (!file.startsWith("src/") || file.endsWith("_test.ts") || HEAD.test(text)) return [];
  const message =
    "its head does not say what the file is for: a doc comment, apart from what follows";
  return [{ file, line: 1, message }];
}
