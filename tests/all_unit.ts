/**
 * The one entry of all unit tests: imports every `*_test.ts` that stands beside a source file.
 * A file of its own costs `deno test` 55 to 100 ms, so they share this one.
 *
 * Words after `--` choose files: `deno task unit -- src/devices uart`.
 *
 * @module
 */
import { walk } from "@std/fs";

const root = new URL("../", import.meta.url);
const wanted = Deno.args.filter((word) => !word.startsWith("-"));
const files: string[] = [];
for (const folder of ["compat", "repl", "scripts", "src"]) {
  for await (const entry of walk(new URL(folder, root), { match: [/_test\.ts$/] })) {
    if (wanted.length === 0 || wanted.some((word) => entry.path.includes(word))) {
      files.push(entry.path);
    }
  }
}
for (const path of files.sort()) await import(`file://${path}`);
