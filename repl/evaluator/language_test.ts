import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { Evaluator } from "./evaluator.ts";
import { Interrupted } from "./interrupt.ts";
import { show, showError } from "./show.ts";

/** Evaluates one input after another; each is beside what the prompt shows of it. */
async function session(steps: Record<string, string>, names: Record<string, unknown> = {}) {
  const evaluator = new Evaluator();
  evaluator.define({ t_interrupt: evaluator.interrupt, ...names });
  try {
    for (const [input, shown] of Object.entries(steps)) {
      const outcome = await evaluator.evaluate(input);
      const text = outcome.kind === "value"
        ? show(outcome.value)
        : outcome.kind === "error"
        ? showError(outcome.error).split("\n")[0]
        : outcome.kind;
      assertEquals(text, shown, input);
    }
  } finally {
    evaluator.close();
  }
}

const UNCAUGHT = "Uncaught ReferenceError: ";

Deno.test("closures of earlier inputs see what later ones assign and declare again", () =>
  session({
    "let v_a = 1; const v_f = () => v_a": "undefined",
    "v_a = 2; v_f()": "2",
    "let v_a = 3; v_f()": "3",
    "const v_a = 4; v_f()": "4",
    "function v_g() { return v_later }": "undefined",
    "let v_later = 5; v_g()": "5",
    "function v_h() { return v_g() + 1 }; v_h()": "6",
    "function v_g() { return 10 }": "undefined",
    " v_h()": "11",
    "class V_A { x = 1 }; const v_make = () => new V_A().x; v_make()": "1",
    "class V_A { x = 2 }; v_make()": "2",
  }));

Deno.test("const stays constant, until it is declared again", () =>
  session({
    "const v_c = 1": "undefined",
    "v_c = 2": "Uncaught TypeError: Assignment to constant variable 'v_c'.",
    "v_c": "1",
    "let v_c = 3; v_c = 4": "4",
    "import { basename as v_c } from 'node:path'; typeof v_c": `"function"`,
    "v_c++": "Uncaught TypeError: Assignment to constant variable 'v_c'.",
  }));

Deno.test("a declaration whose initializer throws leaves its name as it was", () =>
  session({
    "let v_d = v_nothing()": `${UNCAUGHT}v_nothing is not defined`,
    "v_d": `${UNCAUGHT}v_d is not defined`,
    "const v_d = await Promise.reject(7)": "Uncaught 7",
    " v_d": `${UNCAUGHT}v_d is not defined`,
    "let v_d = 1; v_d": "1",
    "const v_d = (() => { throw 2 })()": "Uncaught 2",
    "v_d = v_d + 1": "2",
    "v_e; let v_e = 1": `${UNCAUGHT}Cannot access 'v_e' before initialization`,
    "let { v_x } = null":
      "Uncaught TypeError: Cannot destructure property 'v_x' of 'null' as it is null.",
    "const v_x = 5; v_x": "5",
    "const v_d2 = v_d; const v_d = v_d2 * 10; v_d": "20",
  }));

Deno.test("every form of declaration stays", () =>
  session({
    "const { v_p, q: [v_q, ...v_r] = [1, 2, 3] } = { v_p: 0 }; [v_p, v_q, v_r]":
      "[ 0, 1, [ 2, 3 ] ]",
    "[v_p, v_q, v_r]": "[ 0, 1, [ 2, 3 ] ]",
    "if (true) { var v_s = 1; function v_t() { return 2 } }": "undefined",
    "v_s + v_t()": "3",
    "for (var v_i = 0; v_i < 3; v_i++); v_i": "3",
    "for (var v_k in { key: 1 }); v_k": `"key"`,
    "try { throw 1 } catch (e) { var v_u = e }": "undefined",
    "v_u": "1",
    "var v_u; v_u": "1",
    "let v_n1 = 1\nlet v_n2\n(v_n1)": "1",
    "const v_name = () => {}; v_name.name": `"v_name"`,
    "let [v_fn = class {}] = []; v_fn.name": `"v_fn"`,
    "function v_own() {}; `${v_own.name} ${v_own}`.replaceAll(/__xvm__.check\\(\\);|\\u200c/g, '')":
      `"v_own function v_own() {}"`,
    "enum V_E { A = 3 }": "undefined",
    "V_E.A as number": "3",
    "export const v_ex = 1; const v_ey = 2; export { v_ey }; v_ex": "1",
    "export default function v_def() { return 4 }": "undefined",
    "v_def()": "4",
    "import v_cfg from './deno.json' with { type: 'json' }; v_cfg.license": `"MIT"`,
    "import { nothing } from 'node:path'": "Uncaught SyntaxError: node:path has no export nothing",
    "v_l: for (;;) { 3; break v_l }": "3",
    "using v_using = { [Symbol.dispose]() { throw 1 } }; typeof v_using": `"object"`,
    "typeof v_using": `"object"`,
    "v_implicit = 5; delete globalThis.v_implicit": "true",
    "delete v_using; typeof v_using": `"undefined"`,
  }));

Deno.test("a name of the global object is the prompt's own, and nobody else's", async () => {
  const { fetch } = globalThis;
  await session({
    "let name = 'me'; name": `"me"`,
    "const Map = 5, fetch = 6; () => Map": "[Function (anonymous)]",
    "Map + fetch + _()": "16",
    "let undefined = 3; undefined": "3",
    "eval('Map')": "5",
    "new Function('return fetch')()": "6",
  });
  assertEquals(new Map([[1, 2]]).get(1), 2);
  assert(globalThis.fetch === fetch);
});

Deno.test("the value of an input is that of its last statement that has one", () =>
  session({
    "1; let v_v1 = 2": "1",
    "1; if (false) 2": "undefined",
    "try { 1 } finally { 2 }": "1",
    "switch (1) { case 1: 7; break }": "7",
    "for (const x of [1, 2]) x * 2": "4",
    "do 8\nwhile (0)": "8",
    "{a: 1}": "{ a: 1 }",
    "{a: 1}.a": "1",
    "{ let b = 1; b + 1 }": "2",
    "'use strict'": `"use strict"`,
    "'use strict'; v_undeclared = 1": `${UNCAUGHT}v_undeclared is not defined`,
    "() => 1": "[Function (anonymous)]",
    "await 1; 2": "2",
    "for await (const x of [1, 2]) await x": "2",
    "this === globalThis": "true",
    "async () => await v_nothing": "[AsyncFunction (anonymous)]",
    "return 1": "Uncaught SyntaxError: 'return' outside of function (line 1, column 1)",
    "#!/usr/bin/env xvm\n5": "5",
  }));

Deno.test("eval and Function see the prompt's variables, and ctrl-C ends their loops", () =>
  session({
    "let v_n = 0; const v_stop = () => ++v_n % 10 === 0 && t_interrupt.raise()": "undefined",
    "eval('v_n + 1')": "1",
    "new Function('a', 'b', 'return a + b + v_n')(1, 2)": "3",
    "eval('for (;;) v_stop()')": "Interrupted",
    "new Function('while (true) v_stop()')()": "Interrupted",
    "Function('f', 'do f(); while (true)')(v_stop)": "Interrupted",
    "v_n": "30",
    "eval('1 +')": "Uncaught SyntaxError: Unexpected end of input",
    "new Function('1 +')": "Uncaught SyntaxError: Unexpected token '}'",
    "(function () { return eval('arguments.length') })(1, 2)": "2",
    "{ const eval = (x) => x; eval('v_n') }": `"v_n"`,
  }));

Deno.test("a name that is being assigned means what it did before", async () => {
  const evaluator = new Evaluator();
  try {
    evaluator.define({ t_hv: "old" });
    const { promise, resolve } = Promise.withResolvers<string>();
    evaluator.define({ t_promise: promise });
    const running = evaluator.evaluate("const t_hv = await t_promise");
    const meanwhile = await evaluator.evaluate("t_hv");
    assertEquals(meanwhile, { kind: "value", value: "old" });
    assertEquals(evaluator.variables.get("t_hv"), "old");
    resolve("new");
    await running;
    assertEquals(evaluator.variables.get("t_hv"), "new");
    evaluator.define({ t_hv: "ours" });
    assertEquals(evaluator.variables.get("t_hv"), "new", "what was declared stays");
  } finally {
    evaluator.close();
  }
});

Deno.test("an input that ctrl-C left does not take its names away from the next", async () => {
  const evaluator = new Evaluator();
  try {
    queueMicrotask(() => evaluator.interrupt.raise());
    const left = await evaluator.evaluate("let t_left = await new Promise(() => {})");
    assert(left.kind === "error");
    assertInstanceOf(left.error, Interrupted);
    assert(!evaluator.variables.has("t_left"));
    assertEquals(await evaluator.evaluate("let t_left = 1; t_left"), { kind: "value", value: 1 });
  } finally {
    evaluator.close();
  }
});

Deno.test("stack traces have the user's lines, and the file's name", async () => {
  const evaluator = new Evaluator();
  try {
    const failed = async (code: string, source?: string) => {
      const outcome = await evaluator.evaluate(code, source);
      return outcome.kind === "error" ? showError(outcome.error) : "";
    };
    assertEquals(
      await failed("function t_deep() {\n  throw new RangeError('no')\n}\n\nt_deep()"),
      "Uncaught RangeError: no\n    at t_deep (prompt:2)\n    at prompt:5",
    );
    assertEquals(
      await failed(
        "const t_o = {\n  m: async () => {\n    await 1;\n    nosuch }\n}\nawait t_o.m()",
        "a.ts",
      ),
      "Uncaught ReferenceError: nosuch is not defined\n    at Object.m (a.ts:4)",
    );
    assertEquals(await failed("nosuch"), "Uncaught ReferenceError: nosuch is not defined");
  } finally {
    evaluator.close();
  }
});
