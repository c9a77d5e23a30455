/**
 * Prints the tests that mutations name and that are not there, one a line. A program of its own: the
 * test files are loaded with another `Deno.test`, which runs nothing.
 *
 * @module
 */
import { MUTATIONS } from "./table.ts";

const root = new URL("../../", import.meta.url), there = new Set<string>();
let file = "";
Object.defineProperty(Deno, "test", {
  value: (first: string | { name: string }) =>
    void there.add(`${file}: ${typeof first === "string" ? first : first.name}`),
});
for (file of new Set(MUTATIONS.map((m) => m.test[0]))) await import(new URL(file, root).href);
for (const name of new Set(MUTATIONS.map((m) => m.test.join(": ")))) {
  if (!there.has(name)) console.log(name);
}
Deno.exit(0);
