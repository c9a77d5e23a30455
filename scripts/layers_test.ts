import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { checkFile, checkFiles, readTree } from "./layers.ts";
import { checkCircles } from "./layers/circles.ts";
import { checkPlaces } from "./layers/floors.ts";
import { checkHead } from "./layers/heads.ts";
import { checkCells, checkTypeNames, checkWanted } from "./layers/names.ts";
import { type Source, sourceOf, type Violation, withoutComments } from "./layers/source.ts";
import { checkVendorList, checkVendors } from "./layers/vendors.ts";
import { checkWords } from "./layers/words.ts";

const messages = (file: string, text: string) =>
  [checkPlaces, checkVendors, checkWords].flatMap((rule) => rule(sourceOf(file, text))).map((v) =>
    v.message
  );

/** What a rule finds wrong with files together. */
const together = (
  rule: (sources: readonly Source[]) => Violation[],
  files: Readonly<Record<string, string>>,
) => rule(Object.entries(files).map(([file, text]) => sourceOf(file, text))).map((v) => v.message);

function assertViolation(file: string, text: string, part: string) {
  const found = messages(file, text);
  assertEquals(found.length, 1, `${file}: ${text}`);
  assertStringIncludes(found[0], part);
}

Deno.test("checkPlaces() refuses an import to the right", () => {
  assertViolation(
    "src/machine/mmu/walk.ts",
    `import { Exit } from "../../hvm/exit.ts";`,
    "src/abi",
  );
  assertViolation(
    "src/machine/run.ts",
    `import type {\n  Exit,\n} from "../hvm/exit.ts";`,
    "src/hvm",
  );
  assertViolation("src/abi/x86/msr.ts", `export * from "../../machine/x.ts";`, "nothing");
  assertViolation("src/xen/domain.ts", `await import("../builder/elf.ts");`, "src/builder");
  assertViolation("src/devices/uart.ts", `import { ioreq } from "../xen/ioreq.ts";`, "src/xen");
  assertViolation("src/devices/uart.ts", `import fs from "node:fs";`, "no package");
  assertViolation("src/afterburn/pad.ts", `import "../machine/run.ts";`, "src/machine/isa");
  assertViolation("src/debug/step.ts", `import { Hypervisor } from "xvm";`, "mod.ts");
  assertViolation("src/builder/hvm.ts", `import "../devices/a.ts"; import "../xen/b.ts";`, "board");
  assertViolation("src/elsewhere/a.ts", `import "../abi/a.ts";`, "no layer");
});

Deno.test("checkPlaces() lets imports to the left pass", () => {
  assertEquals(messages("src/xen/domain.ts", `import { ops } from "../hvm/ops.ts";`), []);
  assertEquals(messages("src/afterburn/pad.ts", `import "../machine/isa/decode.ts";`), []);
  assertEquals(messages("src/builder/board.ts", `import "../devices/a.ts";import "../xen/b";`), []);
  assertEquals(messages("repl/main.ts", `import { Hypervisor } from "xvm";`), []);
  assertEquals(messages("src/abi/a.ts", `// import "../machine/x.ts"`), []);
  assertEquals(checkFile(sourceOf("src/abi/a_test.ts", `import "../machine/x.ts";`)), []);
});

Deno.test("checkVendors() refuses a vendor's name in generic code", () => {
  assertViolation("src/xen/exits.ts", `const x = exit.vmcsField;`, "vmcs");
  assertViolation("src/builder/hvm.ts", `if (cpu === "svm") {}`, "svm");
  assertViolation("src/machine/mmu/walk.ts", `if (model === "amd") {}`, "amd");
  assertViolation("src/hvm/shadow.ts", `const at = TABLE.intel;`, "intel");
  assertEquals(messages("src/xen/exits.ts", `/* VMX reports this as reason 28 */ run();`), []);
  assertEquals(messages("src/hvm/vmx/ops.ts", `const vmcs = 1;`), []);
  assertEquals(messages("src/hvm/vendors.ts", `model === "intel" ? vmxOps : svmOps`), []);
});

Deno.test("checkVendorList() finds files that need not be on the list", () => {
  const file = "src/hvm/vendors.ts";
  const found = (text: string) =>
    checkVendorList([sourceOf(file, text)]).filter((violation) => violation.file === file);
  assertEquals(found("const ops = vmxOps;"), []);
  assertEquals(found("const ops = 1;").length, 1);
  assert(checkVendorList([]).some((violation) => violation.file === file));
});

Deno.test("checkWords() refuses the host's clock and randomness", () => {
  assertViolation("src/machine/run.ts", `const t = performance.now();`, "guest time");
  assertViolation("src/devices/rtc.ts", `const t = Date.now();`, "guest time");
  assertViolation("src/xen/time.ts", `setTimeout(f, 1);`, "setTimeout");
  assertEquals(messages("src/xen/world.ts", `Date.now()`), []);
  assertEquals(messages("repl/editor.ts", `Date.now()`), []);
});

Deno.test("checkWords() refuses the length of memory as an array has it", () => {
  assertViolation("src/xen/frames.ts", `const total = machine.ram.length / 4096;`, "machine.size");
  assertEquals(messages("src/xen/frames.ts", `const total = machine.size / 4096;`), []);
});

Deno.test("withoutComments() knows strings, templates and regular expressions", () => {
  assertEquals(withoutComments(`a("//x"); // y`), `a("//x");     `);
  assertEquals(withoutComments("a(`/* x */`)/* y\n*/b"), "a(`/* x */`)    \n  b");
  assertEquals(withoutComments(`x = /["/]/; // y`), `x = /["/]/;     `);
});

Deno.test("checkPlaces() knows the order of rooms on a floor", () => {
  assertViolation("src/machine/mmu/walk.ts", `import "../system/far.ts";`, "machine/mmu/");
  assertViolation("src/machine/isa/decode.ts", `import "../cpu.ts";`, "below it are wasm/");
  assertViolation("src/machine/vmx/entry.ts", `import "../svm/entry.ts";`, "machine/vmx/");
  assertViolation("src/machine/isa/a.ts", `import type { A } from "../interpreter/a.ts";`, "isa/");
  assertViolation("src/debug/views/why.ts", `import "../events/stop.ts";`, "debug/views/");
  assertViolation("src/debug/events/stop.ts", `import "../debugger.ts";`, "debug/events/");
  assertEquals(messages("src/debug/events/stop.ts", `import type { Vcpu } from "../vcpu.ts";`), []);
  assertViolation("src/hvm/vmx/ops.ts", `import "../vendors.ts";`, "hvm/vmx/");
  assertViolation("src/hvm/vmx/ops.ts", `import "../svm/ops.ts";`, "hvm/vmx/");
  assertEquals(
    messages("src/machine/cpu.ts", `import "./interpreter/hot.ts"; import "./x.ts";`),
    [],
  );
  assertEquals(messages("src/machine/vmx/testing.ts", `import "../machine.ts";`), []);
  assertEquals(messages("src/hvm/vmx/shadow.ts", `import "../shadow.ts"; import "./run.ts";`), []);
});

Deno.test("checkCircles() finds circles of imports by value", () => {
  const three = (last: string) =>
    together(checkCircles, {
      "src/xen/a.ts": `import { b } from "./b.ts";`,
      "src/xen/b.ts": `export { c } from "./c.ts";`,
      "src/xen/c.ts": last,
    });
  assertEquals(three(`import { a } from "./a.ts";`), [
    "a circle of imports by value: src/xen/a.ts -> src/xen/b.ts -> src/xen/c.ts -> src/xen/a.ts",
  ]);
  assertEquals(three(`await import("./b.ts");`), [
    "a circle of imports by value: src/xen/b.ts -> src/xen/c.ts -> src/xen/b.ts",
  ]);
  assertEquals(three(`import type { A } from "./a.ts";`), []);
});

Deno.test("sourceOf() reads imports of every form", () => {
  const names = (text: string) =>
    sourceOf("src/xen/a.ts", text).imports.map((i) => [i.target, i.typeOnly, ...i.names]);
  assertEquals(names(`import {\n  type A,\n  b as c,\n} from "./b.ts";`), [
    ["src/xen/b.ts", false, "A", "b"],
  ]);
  assertEquals(names(`export type { A } from "../abi/a.ts";`), [["src/abi/a.ts", true, "A"]]);
  assertEquals(names(`import * as a from "./b.ts";\nimport "./c.ts";`), [
    ["src/xen/b.ts", false, "*"],
    ["src/xen/c.ts", false, "*"],
  ]);
  assertEquals(names(`export const a = 1;\nimport a, { b } from "npm:a";`), [
    [null, false, "b", "default"],
  ]);
});

Deno.test("checkHead() wants a comment that is the file's", () => {
  const found = (text: string, file = "src/xen/a.ts") => checkHead(sourceOf(file, text)).length;
  assertEquals(found(`import { b } from "./b.ts";`), 1);
  assertEquals(found(`// What it is for.\nimport { b } from "./b.ts";`), 1);
  assertEquals(found(`/** A number. */\nexport const a = 1;`), 1);
  assertEquals(found(`/** What it is for. */\nimport { b } from "./b.ts";`), 0);
  assertEquals(found(`/** What it is for. */\n\n/** A number. */\nexport const a = 1;`), 0);
  assertEquals(found(`/**\n * What it is for.\n *\n * @module\n */\nconst a = 1;`), 0);
  assertEquals(found(`export const a = 1;`, "src/xen/a_test.ts"), 0);
});

Deno.test("checkWanted() finds what is exported for nobody", () => {
  const wrong = (a: string, user = "import {} from './a.ts';") =>
    together(checkWanted, { "src/xen/a.ts": a, "src/xen/b.ts": user, "mod.ts": "" });
  assertEquals(wrong(`export const a = 1;\nconst b = a;`), [
    "a is exported and imported nowhere",
  ]);
  assertEquals(wrong(`export function a() {}`, `import { a } from "./a.ts";`), []);
  assertEquals(wrong(`export function a() {}`, `import * as all from "./a.ts";`), []);
  assertEquals(wrong(`export class A {}`), ["A is exported and imported nowhere"]);
  assertEquals(
    wrong(`export class A {}\nexport const a = new A();`, `import { a } from "./a.ts";`),
    [],
  );
  assertEquals(wrong(`export const A = 1, B = 2;`), ["A, B is exported and imported nowhere"]);
  assertEquals(wrong(`export const A = 1, B = 2;`, `import { B } from "./a.ts";`), []);
});

Deno.test("checkTypeNames() finds two types of one name", () => {
  const files = (second: string, file = "src/xen/b.ts") =>
    together(checkTypeNames, { "src/hvm/a.ts": "export type A = 1;", [file]: second });
  assertEquals(files("export interface A {}"), ["the type A has the name of one in src/hvm/a.ts"]);
  assertEquals(files("interface A {}\nexport class B {}\nexport const A = 1;"), []);
  assertEquals(files("export interface A {}", "src/xen/testing.ts"), []);
});

Deno.test("checkCells() finds cells that nobody uses", () => {
  const list = `export const F = cells(areaOf(V, "f"), {\n  left: 4,\n  right: 8,\n  pad: 4,\n});`;
  const files = (user: string) =>
    together(checkCells, { "src/machine/a.ts": list, "src/machine/b.ts": user });
  assertEquals(files("cell(F.left);"), ["nobody uses the cell right"]);
  assertEquals(files(`cell(F.left); cell(F["right"]);`), []);
});

Deno.test("this repository keeps its layers", async () => {
  const sources = await readTree(new URL("../", import.meta.url));
  assertEquals(checkFiles(sources), []);
  assert(sources.length > 100, `only ${sources.length} files were looked at`);
});
