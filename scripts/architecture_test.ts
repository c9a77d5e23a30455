import { assertEquals } from "@std/assert";
import { declares, wrongIn } from "./architecture.ts";

const root = new URL("../", import.meta.url);

async function read(path: string): Promise<string | null> {
  try {
    const url = new URL(path, root);
    return (await Deno.stat(url)).isDirectory ? "" : await Deno.readTextFile(url);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

for (const page of ["docs/architecture.md", "CONTRIBUTING.md"]) {
  Deno.test(`${page}: every path and name that it mentions is there`, async () => {
    assertEquals(await wrongIn((await read(page))!, read), []);
  });
}

Deno.test("wrongIn() names paths that are not there, and names that their files do not declare", async () => {
  const files: Record<string, string> = {
    "src/a.ts":
      "export class Uart {\n  write(port: number): void {\n    transmit(1);\n  }\n  #line = 0;\n}",
    "src/b.ts": "export const other = 1;",
  };
  const page = "`Uart.write`, `Uart.#line` and `Uart.read` (`src/a.ts`)\n\n" +
    "- `other` in `src/a.ts`\n- `other` in `src/b.ts`, `transmit`\n\n`src/c.ts`\n\n```ts\n`nothing`\n```\n";
  assertEquals(await wrongIn(page, (path) => Promise.resolve(files[path] ?? null)), [
    "there is no src/c.ts",
    "Uart.read: read is declared in none of src/a.ts",
    "other: other is declared in none of src/a.ts",
    "transmit: transmit is declared in none of src/b.ts",
  ]);
});

Deno.test("declares() knows functions that are generated, shorthands and generics", () => {
  assertEquals(declares('  m.func("leaveGuest", [], [], (f) => {', "leaveGuest"), true);
  assertEquals(declares("export const ops = {\n  enable,\n};", "enable"), true);
  assertEquals(declares("  static of<T>(x: T) {", "of"), true);
  assertEquals(declares("import { thing } from 'x';\n  thing(1);", "thing"), false);
});
