import { assert, assertEquals } from "@std/assert";
import { mutated } from "./mutations/mutation.ts";
import { MUTATIONS } from "./mutations/table.ts";

const root = new URL("../", import.meta.url);

Deno.test("every mutation's source text occurs exactly once in its file, and changes it", async () => {
  const wrong: string[] = [];
  for (const mutation of MUTATIONS) {
    const text = await Deno.readTextFile(new URL(mutation.file, root));
    try {
      assert(mutated(text, mutation) !== text, `mutation "${mutation.name}" changes nothing`);
    } catch (error) {
      wrong.push((error as Error).message);
    }
  }
  assertEquals(wrong, []);
  assert(MUTATIONS.length >= 200, `${MUTATIONS.length} mutations`);
});

Deno.test("mutations have names of their own, and tests that are there", async () => {
  const names = MUTATIONS.map((m) => m.name);
  assertEquals(names.filter((name, i) => names.indexOf(name) !== i), []);
  const files = new Set(MUTATIONS.map((m) => m.test[0]));
  for (const file of files) assert((await Deno.stat(new URL(file, root))).isFile, file);
});
