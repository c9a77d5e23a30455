/**
 * Files that import each other in a circle when the program runs: what one of them makes at its start may
 * not be there yet. Imports of types alone make no circle.
 *
 * @module
 */
import type { Source, Violation } from "./source.ts";

/** Each circle once, at its first file by name. */
export function checkCircles(sources: readonly Source[]): Violation[] {
  const byFile = new Map(sources.map((source) => [source.file, source]));
  const next = (file: string) =>
    byFile.get(file)!.imports.filter(({ target, typeOnly }) =>
      !typeOnly && target !== null && byFile.has(target)
    );
  const done = new Set<string>(), found: Violation[] = [];
  const follow = (path: readonly string[]) => {
    const file = path[path.length - 1];
    for (const { target, line } of next(file)) {
      const start = path.indexOf(target!);
      if (start >= 0) {
        const circle = [...path.slice(start), target!].join(" -> ");
        found.push({ file, line, message: `a circle of imports by value: ${circle}` });
      } else if (!done.has(target!)) follow([...path, target!]);
    }
    done.add(file);
  };
  for (const file of [...byFile.keys()].sort()) if (!done.has(file)) follow([file]);
  return found;
}
