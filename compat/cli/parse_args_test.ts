import { parseArgs } from "@std/cli";
import { assertEquals } from "@std/assert";

Deno.test("parseArgs() reads declared options", () => {
  const args = parseArgs([
    "--seed=7",
    "--fast",
    "-n",
    "3",
    "a",
    "--no-color",
    "--x",
    "1",
    "--x",
    "2",
  ], {
    boolean: ["fast", "color", "quiet"],
    string: ["seed", "x"],
    collect: ["x"],
    alias: { n: "count" },
    default: { color: true, count: 1 },
  });
  assertEquals(
    { ...args },
    {
      _: ["a"],
      seed: "7",
      fast: true,
      n: 3,
      count: 3,
      color: false,
      quiet: false,
      x: ["1", "2"],
    } as typeof args,
  );
});

Deno.test("parseArgs() ends at -- and, when told, at the first word", () => {
  assertEquals(parseArgs(["a", "--", "--b"])._, ["a", "--b"]);
  assertEquals(parseArgs(["a", "--", "--b"], { "--": true })["--"], ["--b"]);
  assertEquals(parseArgs(["--x", "1", "f.ts", "--y"], { stopEarly: true })._, ["f.ts", "--y"]);
});

Deno.test("parseArgs() asks about what was not declared", () => {
  const unknown: string[] = [];
  parseArgs(["--what", "--seed", "1"], { string: ["seed"], unknown: (arg) => unknown.push(arg) });
  assertEquals(unknown, ["--what"]);
});
