import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { checkFile, checkFiles, readTree } from "./layers.ts";
import { sourceOf, withoutComments } from "./layers/source.ts";

const messages = (file: string, text: string) =>
  checkFile(sourceOf(file, text)).map((v) => v.message);
/** What is wrong with files together, of which some may say what they must. */
const together = (files: Readonly<Record<string, string>>) =>
  checkFiles(Object.entries(files).map(([file, text]) => sourceOf(file, text))).map((v) =>
    v.message
  );

function assertViolation(file: string, text: string, part: string) {
  const found = messages(file, text);
  assertEquals(found.length, 1, `${file}: ${text}`);
  assertStringIncludes(found[0], part);
}

Deno.test("checkFile() refuses an import to the right", () => {
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

Deno.test("checkFile() lets imports to the left pass", () => {
  assertEquals(messages("src/xen/domain.ts", `import { ops } from "../hvm/ops.ts";`), []);
  assertEquals(messages("src/afterburn/pad.ts", `import "../machine/isa/decode.ts";`), []);
  assertEquals(messages("src/builder/board.ts", `import "../devices/a.ts";import "../xen/b";`), []);
  assertEquals(messages("repl/main.ts", `import { Hypervisor } from "xvm";`), []);
  assertEquals(messages("src/abi/a.ts", `// import "../machine/x.ts"`), []);
  assertEquals(messages("src/abi/a_test.ts", `import "../machine/x.ts";`), []);
});

Deno.test("checkFile() refuses a vendor's name in generic code", () => {
  assertViolation("src/xen/exits.ts", `const x = exit.vmcsField;`, "vmcs");
  assertViolation("src/builder/hvm.ts", `if (cpu === "svm") {}`, "svm");
  assertEquals(messages("src/xen/exits.ts", `/* VMX reports this as reason 28 */ run();`), []);
  assertEquals(messages("src/hvm/vmx/ops.ts", `const vmcs = 1;`), []);
});

Deno.test("checkFile() refuses the host's clock and randomness", () => {
  assertViolation("src/machine/run.ts", `const t = performance.now();`, "guest time");
  assertViolation("src/devices/rtc.ts", `const t = Date.now();`, "guest time");
  assertViolation("src/xen/time.ts", `setTimeout(f, 1);`, "setTimeout");
  assertEquals(messages("src/xen/world.ts", `Date.now()`), []);
  assertEquals(messages("repl/editor.ts", `Date.now()`), []);
});

Deno.test("checkFile() refuses the length of memory as an array has it", () => {
  assertViolation("src/xen/frames.ts", `const total = machine.ram.length / 4096;`, "machine.size");
  assertEquals(messages("src/xen/frames.ts", `const total = machine.size / 4096;`), []);
});

Deno.test("withoutComments() knows strings, templates and regular expressions", () => {
  assertEquals(withoutComments(`a("//x"); // y`), `a("//x");     `);
  assertEquals(withoutComments("a(`/* x */`)/* y\n*/b"), "a(`/* x */`)    \n  b");
  assertEquals(withoutComments(`x = /["/]/; // y`), `x = /["/]/;     `);
});

Deno.test("checkFile() knows the order of rooms on a floor", () => {
  assertViolation("src/machine/mmu/walk.ts", `import "../system/far.ts";`, "machine/mmu/");
  assertViolation("src/machine/isa/decode.ts", `import "../cpu.ts";`, "below it are wasm/");
  assertViolation("src/machine/vmx/entry.ts", `import "../svm/entry.ts";`, "machine/vmx/");
  assertViolation("src/machine/isa/a.ts", `import type { A } from "../interpreter/a.ts";`, "isa/");
  assertViolation("src/hvm/shadow.ts", `import "./vmx/shadow.ts";`, "below it are nothing");
  assertEquals(
    messages("src/machine/cpu.ts", `import "./interpreter/hot.ts"; import "./x.ts";`),
    [],
  );
  assertEquals(messages("src/machine/vmx/testing.ts", `import "../machine.ts";`), []);
  assertEquals(messages("src/hvm/vmx/shadow.ts", `import "../shadow.ts"; import "./run.ts";`), []);
});

Deno.test("checkFiles() finds circles of imports by value", () => {
  const three = (last: string) =>
    together({
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

Deno.test("this repository keeps its layers", async () => {
  const sources = await readTree(new URL("../", import.meta.url));
  assertEquals(checkFiles(sources), []);
  assert(sources.length > 100, `only ${sources.length} files were looked at`);
});
