import { assert, assertEquals, assertInstanceOf, assertStringIncludes } from "@std/assert";
import { Evaluator, type Outcome, resolveSpecifier } from "./evaluator.ts";
import { Interrupted } from "./interrupt.ts";
import { show, showError } from "./show.ts";

async function withEvaluator(fn: (it: Evaluator) => Promise<void>) {
  const evaluator = new Evaluator();
  try {
    await fn(evaluator);
  } finally {
    evaluator.close();
  }
}

const value = (outcome: Outcome) => {
  if (outcome.kind === "error") throw outcome.error;
  return outcome.kind === "value" ? outcome.value : outcome.kind;
};

Deno.test("Evaluator keeps declarations, allows them again, and awaits at the top", () =>
  withEvaluator(async (it) => {
    assertEquals(value(await it.evaluate("const t_a: bigint = 1n; t_a")), 1n);
    assertEquals(
      value(await it.evaluate("const t_a = 2n; t_a + 0xffff_ffff_ffff_fff0n")),
      2n ** 64n - 14n,
    );
    assertEquals(value(await it.evaluate("await Promise.resolve({ x: [1] })")), { x: [1] });
    assertInstanceOf(value(await it.evaluate("Promise.resolve(5)")), Promise);
    assertEquals(value(await it.evaluate("{a: 1}")), { a: 1 });
    assertEquals(value(await it.evaluate("let t_b; undefined")), undefined);
    assert(it.variables.has("t_a") && !it.variables.has("t_nothing"));
  }));

Deno.test("Evaluator gives the very object, and keeps it in _", () =>
  withEvaluator(async (it) => {
    const object = { self: 1 };
    it.define({ t_object: object });
    assert(value(await it.evaluate("t_object")) === object);
    assert(value(await it.evaluate("_")) === object);
    assertEquals(value(await it.evaluate("t_object.self = 5; _.self")), 5);
  }));

Deno.test("Evaluator gives errors as they were thrown", () =>
  withEvaluator(async (it) => {
    const thrown = await it.evaluate("function t_f() { throw new RangeError('no') }\nt_f()");
    assert(thrown.kind === "error" && thrown.error instanceof RangeError);
    assertEquals(
      showError(thrown.error),
      "Uncaught RangeError: no\n    at t_f (prompt:1)\n    at prompt:2",
    );
    const wrong = await it.evaluate("x = = 1");
    assert(wrong.kind === "error");
    assertStringIncludes(
      showError(wrong.error),
      "SyntaxError: Expression expected (line 1, column 5)",
    );
    const rejected = await it.evaluate("await Promise.reject(7)");
    assert(rejected.kind === "error");
    assertEquals(showError(rejected.error), "Uncaught 7");
    assertEquals((await it.evaluate("t_f(")).kind, "incomplete");
  }));

Deno.test("Evaluator imports by the import map and by path", () =>
  withEvaluator(async (it) => {
    assertEquals(
      value(await it.evaluate(`import { assertEquals as t_e } from "@std/assert"; t_e.name`)),
      "assertEquals",
    );
    assert(resolveSpecifier("./a.ts").startsWith("file:///"));
    assertEquals(resolveSpecifier("node:fs"), "node:fs");
  }));

Deno.test("ctrl-C ends a loop and an await", () =>
  withEvaluator(async (it) => {
    it.define({ t_interrupt: it.interrupt });
    const loop = await it.evaluate("let t_n = 0; for (;;) if (++t_n === 10) t_interrupt.raise()");
    assert(loop.kind === "error" && loop.error instanceof Interrupted);
    assertEquals(value(await it.evaluate("t_n")), 10);
    queueMicrotask(() => it.interrupt.raise());
    const waiting = await it.evaluate("await new Promise(() => {})");
    assert(waiting.kind === "error" && waiting.error instanceof Interrupted);
    assertEquals(value(await it.evaluate("(() => 1)()")), 1, "the interrupt is spent");
  }));

Deno.test("peek() evaluates without side effects only", () =>
  withEvaluator(async (it) => {
    it.define({
      t_o: {
        a: 1,
        get b() {
          return 2;
        },
        f: () => ({ c: 3 }),
      },
    });
    assertEquals(await it.peek("t_o.f()"), { value: { c: 3 } });
    assertEquals(await it.peek("t_o.b"), { value: 2 });
    assertEquals(await it.peek("t_o.a = 5"), null);
    assertEquals(await it.peek("t_o.a"), { value: 1 });
    assertEquals(await it.peek("(() => { for (;;); })()"), null);
  }));

Deno.test("show() prints a bigint in hexadecimal", () => {
  assertEquals(show(0xc0100000n), "0xc0100000n");
  assertEquals(show(-16n), "-0x10n");
  assertEquals(show("a\n"), `"a\\n"`);
});

Deno.test("showError() prints causes and all frames when told", () => {
  const error = new Error("outer", { cause: new TypeError("inner") });
  assertStringIncludes(showError(error), "Uncaught Error: outer\nCaused by: TypeError: inner");
  assertStringIncludes(showError(error, { frames: "all" }), "evaluator_test.ts");
});

Deno.test("ctrl-C leaves for await, and closes its source", () =>
  withEvaluator(async (it) => {
    const source = {
      closed: false,
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: () => Promise.resolve({ done: source.closed = true, value: undefined }),
      }),
    };
    it.define({ t_source: source });
    setTimeout(() => it.interrupt.raise(), 1);
    const outcome = await it.evaluate("for await (const x of t_source) x");
    assert(outcome.kind === "error" && outcome.error instanceof Interrupted);
    await new Promise((resolve) => setTimeout(resolve, 0));
    assert(source.closed);
    assertEquals(
      value(await it.evaluate("let t_s = 0; for await (const x of [1, 2]) t_s += x; t_s")),
      3,
    );
  }));

Deno.test("an await that can never end survives garbage collection", async () => {
  const code = `
    import { Evaluator } from ${JSON.stringify(import.meta.resolve("./evaluator.ts"))};
    const it = new Evaluator();
    setTimeout(() => it.interrupt.raise(), 1);
    await it.evaluate("await new Promise(() => {})");
    for (let i = 0; i < 5; i++) { gc(); await new Promise((done) => setTimeout(done, 1)); }
    console.log("alive");
    Deno.exit(0);
  `;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--v8-flags=--expose-gc", code],
    cwd: new URL("../../", import.meta.url),
  }).output();
  assertEquals(new TextDecoder().decode(stdout), "alive\n");
});
