import { assertEquals, assertStringIncludes } from "@std/assert";
import { prepare } from "./source.ts";

/** What the input became, without what stands around every one. */
const js = (text: string) => {
  const it = prepare(text);
  if (it.kind !== "ready") return it.kind;
  return it.js.replace(/^\((?:async)?\(\)=>\{;let __xvm_value__=void 0;/, "")
    .replace(/\nreturn\{value:__xvm_value__\}\}\)\(\)$/, "").replaceAll("__xvm_value__", "V");
};

Deno.test("prepare() strips types, and transforms what has code", () => {
  assertEquals(js("const x: number = 1;"), ";x         = 1;");
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
});

Deno.test("prepare() says where an input is wrong, and marks the place", () => {
  const message = (text: string) => {
    const it = prepare(text);
    return it.kind === "wrong" && it.error.message;
  };
  assertEquals(message("x = = 1"), "Expression expected (line 1, column 5)\n  x = = 1\n      ^");
  // What only the parser after the transformer refuses, with types before it and in a later line.
  assertEquals(
    message("let a: number = 1;\n\tlet b: string, a = 2"),
    "Identifier 'a' has already been declared (line 2, column 17)\n" +
      "  \tlet b: string, a = 2\n  \t               ^",
  );
});

Deno.test("prepare() makes declarations assignments to variables that stay", () => {
  assertEquals(js("let a = 1, b"), ";a = 1, b=void 0;");
  assertEquals(js("foo()\nlet {a} = o"), "V=(0,foo());\n;({a} = o);");
  assertEquals(js("var a, b = 2"), ";void 0, b = 2;");
  assertEquals(
    js("for (var i = 0, n;;) x"),
    "V=void 0;for (i = 0, void 0;;) {__xvm__.check();V=(0,x);}",
  );
  assertEquals(js("for (var {a} of b);"), "V=void 0;for ({a} of b){__xvm__.check();;}");
  assertEquals(js("class A {}"), ";A=class A {};");
  assertEquals(
    js("function f() { var x }"),
    "__xvm__.define({f:f\u200c});function f\u200c() {__xvm__.check(); var x }",
  );
  assertEquals(js("{ let a; const b = 1; class C {} }"), "{ let a; const b = 1; class C {} }");
});

Deno.test("prepare() makes imports dynamic", () => {
  const load = `await __xvm__.await(__xvm__.import("m"))`;
  assertEquals(
    js(`import d, { A as b, q } from "m"; import type { x } from "n"`).trim(),
    `;({ default: d, A: b, q: q } = __xvm__.exports(${load},"m",["default","A","q"]));`,
  );
  assertEquals(js(`import * as m from "m"`), `m = ${load};`);
  assertEquals(js(`import "m"`), `${load};`);
  assertEquals(js(`import("m")`), `V=(0,__xvm__.import("m"));`);
  assertEquals(js(`export const a = 1`), `;a = 1;`);
});

Deno.test("prepare() puts interrupt checks into loops and functions", () => {
  const c = "__xvm__.check()";
  const value = "V=void 0;";
  assertEquals(
    js("while(1) while(2) x()"),
    `${value}while(1) {${c};while(2) {${c};V=(0,x());}}`,
  );
  assertEquals(js("for(;;) a = () => b"), `${value}for(;;) {${c};V=(0,a = () =>(${c}, b));}`);
  assertEquals(js("x => y => ({a: y})"), `V=(0,x =>(${c}, y =>(${c}, ({a: y}))));`);
  assertEquals(
    js(`(function () { "use strict"; 1 })`),
    `V=(0,(function () { "use strict";${c}; 1 }));`,
  );
  assertEquals(js("eval(a, b)"), "V=(0,eval(__xvm__.code(eval,a), b));");
  assertEquals(js("new Function(a)"), "V=(0,__xvm__.functionBy(Function)(a));");
});

Deno.test("prepare() lets ctrl-C reach every await", () => {
  assertEquals(js("await (a, b) + 1"), "V=(0,await __xvm__.await( (a, b)) + 1);");
  assertEquals(
    js("for await (const x of y) z"),
    "V=void 0;for await (const x of __xvm__.iterate(y)) {__xvm__.check();V=(0,z);}",
  );
});

Deno.test("prepare() takes braces for an object where they can be one", () => {
  assertEquals(js("{a: 1}"), "V=(0,({a: 1}\n));");
  assertEquals(js("{ let x = 1 }"), "{ let x = 1 }");
});

Deno.test("prepare() keeps what a script would dispose of, at the top level only", () => {
  assertEquals(
    js("  await using host = f();\nusing x = 1"),
    "        ;host = f();\n;x = 1;",
  );
  assertEquals(js("{ using x = 1 }"), "{ using x = 1 }");
  assertEquals(js("`\nusing x = 1`"), "V=(0,`\nusing x = 1`);");
});
