import { assertEquals } from "@std/assert";

/**
 * Run in a process of its own: where the engine reports a promise from within a garbage collection, Deno
 * aborts the process.
 */
const PROGRAM = `
  import { Evaluator } from ${
  JSON.stringify(import.meta.resolve("../../repl/evaluator/evaluator.ts"))
};
  const it = new Evaluator();
  const inputs = [
    "await new Promise((resolve) => setTimeout(resolve, 0))",
    "let x = { a: await 1 }",
    "const y = await new Promise(() => {})",
    "for await (const q of [1, 2]) await q",
    "Promise.reject(new Error('x')).catch(() => 1)",
    "await Promise.reject(1)",
    "import * as m from 'node:path'",
    "new Promise(() => {})",
  ];
  const kinds = {};
  for (let i = 0; i < 10_000; i++) {
    const input = inputs[i % inputs.length];
    if (input.startsWith("const y")) queueMicrotask(() => it.interrupt.raise());
    const running = it.evaluate(input);
    gc({ type: i % 10 ? "minor" : "major" });
    const { kind } = await running;
    kinds[kind] = (kinds[kind] ?? 0) + 1;
    if (i % 4 === 0) await it.peek("x.a");
  }
  console.log(JSON.stringify(kinds));
  Deno.exit(0);
`;

Deno.test("10,000 evaluations with garbage collected within each", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--v8-flags=--expose-gc", PROGRAM],
    cwd: new URL("../../", import.meta.url),
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals([code, text(stderr)], [0, ""]);
  assertEquals(JSON.parse(text(stdout)), { value: 7500, error: 2500 });
});
