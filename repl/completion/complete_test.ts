import { assert, assertEquals } from "@std/assert";
import { Session } from "../session.ts";
import { FakeHost } from "../testing.ts";
import { complete } from "./complete.ts";
import { accessAt, inString, membersOf } from "./shapes.ts";
import { TypeCompleter } from "./types.ts";

Deno.test("accessAt() finds the object and the beginning of the name", () => {
  const at = (text: string) => accessAt(text, text.length);
  assertEquals(at("do"), { object: "", start: "do", from: 0 });
  assertEquals(at("1 + dom.vcpus[0].re"), { object: "dom.vcpus[0]", start: "re", from: 17 });
  assertEquals(at("f(a.get(5)."), { object: "a.get(5)", start: "", from: 11 });
  assertEquals(at("x?.y?."), { object: "x?.y", start: "", from: 6 });
  assertEquals(at("(await a.b())."), { object: "(await a.b())", start: "", from: 14 });
  assertEquals(at("[1, 2].le"), { object: "[1, 2]", start: "le", from: 7 });
  assertEquals(at(`"a.b`), null);
  assertEquals(at("..."), null);
});

Deno.test("inString() knows quotes, templates and comments", () => {
  for (const text of [`"a`, "`a ${", "x('", "a // b", "/* a"]) assert(inString(text), text);
  for (const text of [`"a"`, "a // b\n", "/* a */", `'it\\'s'`, ""]) assert(!inString(text), text);
});

Deno.test("membersOf() lists own members, then those of the classes", () => {
  class A {
    x = 1;
    get y() {
      return 2;
    }
    #z = 3;
    z() {
      return this.#z;
    }
  }
  assertEquals(membersOf(new A()), ["x", "y", "z"]);
  assertEquals(membersOf(null), []);
});

Deno.test("Tab completes commands, variables, members and kinds of exits", async () => {
  const session = new Session({ print: () => {} });
  session.use(new FakeHost());
  session.evaluator.define({ t_thing: { alpha: { beta: 1 }, make: () => ({ gamma: 1 }) } });
  const items = async (text: string) => (await complete(session, text, text.length)).items;
  try {
    assertEquals(await items("t_th"), ["t_thing"]);
    assertEquals(await items("t_thing."), ["alpha", "make"]);
    assertEquals(await items("1 + t_thing.alpha.b"), ["beta"]);
    assertEquals(await items("t_thing.make()."), ["gamma"]);
    assert((await items("unt")).includes("until"));
    assert(!(await items("1 + wh")).includes("why"));
    assertEquals(await items("until cp"), ["cpuid"]);
    assertEquals(await items("b hypercall xen_v"), ["xen_version"]);
    assertEquals(await items("trace hypercall xen_version sub=get_fe"), ["sub=get_features"]);
    assertEquals(await items("b event-send port=5 lo"), ["lost"]);
    assertEquals(await items(".lo"), [".load"]);
    assertEquals(await items(".help .sa"), [".save"]);
    assertEquals(await items(`.load ${Deno.cwd()}/deno.jso`), [`${Deno.cwd()}/deno.json`]);
    assert((await items("dom.vcpus[0].pageT")).includes("pageTables"));
  } finally {
    session.evaluator.close();
  }
});

Deno.test("types complete what has no value yet", async () => {
  // A machine that is busy with other tests may take its time.
  const types = new TypeCompleter(300_000);
  try {
    const earlier = [
      "interface Stop { value: bigint; regs: { rip: bigint } }",
      "declare function until(): Promise<Stop>",
    ];
    const text = "(await until()).regs.r";
    const { from, items } = await types.complete(earlier, text, text.length);
    assertEquals({ from, items }, { from: text.length - 1, items: ["rip"] });
    const literal = `const k: "cpuid" | "cr" = "c`;
    assertEquals((await types.complete([], literal, literal.length)).items.sort(), ["cpuid", "cr"]);
  } finally {
    types.stop();
  }
});
