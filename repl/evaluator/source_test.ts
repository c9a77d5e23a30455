import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { prepare } from "./source.ts";

const js = (text: string) => {
  const it = prepare(text);
  return it.kind === "ready" ? it.js : it.kind;
};

Deno.test("prepare() strips types, and transforms what has code", () => {
  assertEquals(js("const x: number = 1;"), "const x         = 1;");
  assertStringIncludes(js("enum A { B }"), `A["B"]`);
  assertStringIncludes(js("class A { constructor(private y: string) {} }"), "this.y = y");
});

Deno.test("prepare() tells what is unfinished from what is wrong", () => {
  const unfinished = [
    "function f(x: number) {",
    "let s = `abc",
    "`${a",
    "foo(",
    "[1,2",
    "if (a) {",
    "/* abc",
    "a.b.",
    "1 +",
    "type X = {",
    "x as any as {",
    "if (x) 1; else",
    "let a = (b",
    "for (const s of dom.stops(\n",
  ];
  for (const text of unfinished) assertEquals(prepare(text).kind, "incomplete", text);
  const wrong = ["x = = 1", "'abc", "foo)", "dom 1", "return 5", "let 1", "x/16xg 0x100", "a b c"];
  for (const text of wrong) assertEquals(prepare(text).kind, "wrong", text);
  const it = prepare("x = = 1");
  assertEquals(
    it.kind === "wrong" && it.error.message,
    "Expression expected (line 1, column 5)",
  );
});

Deno.test("prepare() makes imports dynamic", () => {
  assertEquals(
    js(`import d, { A as b, q } from "m"; import type { x } from "n"`).trim(),
    `const { default: d, A: b, q } = await __xvm__.await(__xvm__.import("m"));`,
  );
  assertEquals(js(`import * as m from "m"`), `const m = await __xvm__.await(__xvm__.import("m"));`);
  assertEquals(js(`import "m"`), `await __xvm__.await(__xvm__.import("m"));`);
  assertEquals(js(`import("m")`), `__xvm__.import("m")`);
  assertEquals(js(`export const a = 1`), `const a = 1`);
});

Deno.test("prepare() puts interrupt checks into loops and functions", () => {
  const c = "__xvm__.check()";
  assertEquals(js("while(1) while(2) x()"), `while(1) {${c};while(2) {${c};x()}}`);
  assertEquals(js("for(;;) a = () => b"), `for(;;) {${c};a = () =>(${c}, b)}`);
  assertEquals(js("x => y => ({a: y})"), `x =>(${c}, y =>(${c}, ({a: y})))`);
  assertEquals(js(`function f() { "use strict"; 1 }`), `function f() { "use strict";${c}; 1 }`);
});

Deno.test("prepare() lets ctrl-C reach every await", () => {
  assertEquals(js("await (a, b) + 1"), "await __xvm__.await( (a, b)) + 1");
  assertEquals(
    js("for await (const x of y) z"),
    "for await (const x of __xvm__.iterate(y)) {__xvm__.check();z}",
  );
});

Deno.test("prepare() takes braces for an object where they can be one", () => {
  assertEquals(js("{a: 1}"), "({a: 1}\n)");
  assertEquals(js("{ let x = 1 }"), "{ let x = 1 }");
});

Deno.test("prepare() keeps what a script would dispose of", () => {
  const prepared = prepare("await using host = await start();\nusing x = 1;");
  assert(prepared.kind === "ready" && !/using/.test(prepared.js), JSON.stringify(prepared));
});
