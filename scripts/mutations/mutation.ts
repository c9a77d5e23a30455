/**
 * One mutation of the sources: a mistake that somebody could make, and the test that must see it.
 *
 * @module
 */
export interface Mutation {
  /** A few words; `--only` chooses by them. */
  readonly name: string;
  /** The file that is changed, from the repository's root. */
  readonly file: string;
  /** Text that occurs in it exactly once… */
  readonly source: string;
  /** …and what stands in its place. */
  readonly replacement: string;
  /** The test that must fail: its file from the root, and its name. */
  readonly test: readonly [file: string, name: string];
}

/** A row of a group whose mutations share the file they change, or the file of their tests. */
export type Row = readonly [name: string, source: string, replacement: string, test: string];

/** Mutations of one file, caught by tests of one file. */
export function mutationsOf(file: string, testFile: string, rows: readonly Row[]): Mutation[] {
  return rows.map(([name, source, replacement, test]) => ({
    name,
    file,
    source,
    replacement,
    test: [testFile, test],
  }));
}

/** The mutated text. @throws {Error} unless the source text occurs exactly once */
export function mutated(text: string, { name, file, source, replacement }: Mutation): string {
  const parts = text.split(source);
  if (parts.length !== 2) {
    throw new Error(
      `mutation "${name}": its source text occurs ${parts.length - 1} times in ${file}, once was ` +
        `expected: ${source}`,
    );
  }
  return parts.join(replacement);
}
