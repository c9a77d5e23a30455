/**
 * Checks what the house forbids (docs/architecture.md), one rule in each file of scripts/layers/.
 *
 * `deno run --allow-read scripts/layers.ts` prints one line per violation and exits 1 when there is
 * any. Tests (`*_test.ts`) may import what they like.
 *
 * @module
 */
import { walk } from "@std/fs";
import { checkCircles } from "./layers/circles.ts";
import { checkPlaces } from "./layers/floors.ts";
import { checkHead } from "./layers/heads.ts";
import { checkCells, checkTypeNames, checkWanted } from "./layers/names.ts";
import { type Source, sourceOf, type Violation } from "./layers/source.ts";
import { checkVendorList, checkVendors } from "./layers/vendors.ts";
import { checkWords } from "./layers/words.ts";

/** The violations in one file by itself. */
export function checkFile(source: Source): Violation[] {
  if (source.file.endsWith("_test.ts")) return [];
  return [checkPlaces, checkVendors, checkWords, checkHead].flatMap((rule) => rule(source));
}

/** The violations of files that make a program together. */
export function checkFiles(sources: readonly Source[]): Violation[] {
  const rules = [checkCircles, checkTypeNames, checkWanted, checkCells, checkVendorList];
  return [...sources.flatMap(checkFile), ...rules.flatMap((rule) => rule(sources))];
}

/** `mod.ts` and all TypeScript files of the folders beside it. */
export async function readTree(root: URL): Promise<Source[]> {
  const files = ["mod.ts"];
  for (const folder of ["src", "repl", "scripts", "tests", "compat"]) {
    for await (
      const { path } of walk(new URL(folder, root), { exts: [".ts"], includeDirs: false })
    ) {
      files.push(path.slice(decodeURIComponent(root.pathname).length));
    }
  }
  const read = async (file: string) => sourceOf(file, await Deno.readTextFile(new URL(file, root)));
  return await Promise.all(files.map(read));
}

if (import.meta.main) {
  const sources = await readTree(new URL("../", import.meta.url));
  const violations = checkFiles(sources);
  for (const { file, line, message } of violations) console.error(`${file}:${line}: ${message}`);
  console.log(`layers: ${sources.length} files, ${violations.length} violations`);
  Deno.exit(violations.length === 0 && sources.length > 0 ? 0 : 1);
}
