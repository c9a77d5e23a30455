import { assert, assertEquals, assertThrows } from "@std/assert";
import { fieldNames, toFilter, toKind } from "./filters.ts";
import { Hypervisor } from "../hypervisor.ts";
import { type Kind, kinds } from "../kinds.ts";

Deno.test("toFilter() resolves names, and gives values as events have them", () => {
  assertEquals({ ...toFilter("exception", { vector: "#pf" }) }, { vector: 14 });
  assertEquals({ ...toFilter("exception", { vector: "GP" }) }, { vector: 13 });
  assertEquals({ ...toFilter("msr", { msr: "LSTAR" }) }, { msr: 0xc000_0082 });
  assertEquals({ ...toFilter("io", { port: [0x3f8, 0x3ff] }) }, { port: [0x3f8, 0x3ff] });
  assertEquals({ ...toFilter("cr", { cr: 3, value: 0x1000 }) }, { cr: 3, value: 0x1000n });
  assertEquals(toFilter("mmio", { address: 0xfee0_0000 }).address, 0xfee0_0000n);
  assertEquals({ ...toFilter("watch", { address: 16 }) }, {
    address: 16n,
    length: 1,
    read: false,
    write: true,
  });
});

Deno.test("a filter that no event can match is refused", () => {
  const never: [Kind, object][] = [
    ["cr", { cr: 33 }],
    ["cr", { cr: 3, access: "clts" }],
    ["cr", { write: false, value: 1n }],
    ["cr", { access: "lmsw", write: false }],
    ["dr", { dr: 8 }],
    ["io", { port: -1 }],
    ["io", { port: 0x10000 }],
    ["io", { port: [0x3ff, 0x3f8] }],
    ["io", { size: 3 }],
    ["io", { size: 1, value: 0x100 }],
    ["io", { write: false, value: 1 }],
    ["io", { string: true, value: 1 }],
    ["msr", { msr: 2 ** 32 }],
    ["msr", { write: false, value: 1n }],
    ["cpuid", { leaf: -1 }],
    ["mmio", { address: 1n << 52n }],
    ["nested-page-fault", { gpa: -1 }],
    ["nested-page-fault", { read: false, write: false, fetch: false }],
    ["execute", { address: 1n << 47n }],
    ["watch", { address: 0, read: false, write: false }],
    ["watch", { address: 1n << 52n, physical: true }],
    ["watch", { address: -1, length: 2 }],
    ["exception", { vector: 32 }],
    ["exception", { vector: 2 }],
    ["exception", { vector: "#UD", errorCode: 1 }],
    ["exception", { vector: "#GP", address: 5 }],
    ["external-interrupt", { vector: 256 }],
    ["task-switch", { selector: 0x10000 }],
    ["task-switch", { source: "ret" }],
    ["descriptor-table", { instruction: "lgdtt" }],
    ["virtualization-instruction", { instruction: "vmcall" }],
    ["entry-failure", { what: "nothing" }],
    ["hypercall", { number: -1 }],
  ];
  for (const [kind, filter] of never) {
    assertThrows(() => toFilter(kind, filter), RangeError, kind, Deno.inspect([kind, filter]));
  }
});

Deno.test("wrong types and unknown keys are named", () => {
  assertThrows(() => toFilter("io", { prot: 5 }), TypeError, 'did you mean "port"?');
  assertThrows(() => toFilter("nmi", { x: 1 }), TypeError, "it has: vcpu");
  assertThrows(() => toFilter("exception", { vector: "#PX" }), TypeError, 'did you mean "#PF"?');
  assertThrows(() => toFilter("msr", { msr: "efre" }), TypeError, 'did you mean "efer"?');
  assertThrows(() => toFilter("execute", {}), TypeError, '"execute" needs an address');
  assertThrows(() => toFilter("cr", null), TypeError, "an object was expected, null");
  assertThrows(() => toKind("crr"), TypeError, 'did you mean "cr"?');
  assertThrows(() => toKind("constructor"), TypeError, "there is no kind");
  assertThrows(() => toKind(5), TypeError, "the name of a kind was expected, 5");
});

Deno.test("every kind says what its events have", () => {
  for (const kind of kinds) assert(Array.isArray(fieldNames(kind)), kind);
  assertEquals(fieldNames("cpuid"), ["leaf", "subleaf", "result"]);
  assert(fieldNames("any").includes("port") && fieldNames("any").includes("gpa"));
});

Deno.test("an exception's name is looked up in one way, for filters and for inject()", async () => {
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains;
  const stop = await dom.until("cpuid");
  for (const [wrong, near] of [["#GQ", "#GP"], ["page", ""], ["#Pf!", "#PF"]]) {
    const asked = [
      () => dom.break("exception", { vector: wrong }),
      () => stop.inject(wrong),
    ];
    for (const ask of asked) {
      const { message } = assertThrows(ask, TypeError);
      assertEquals(message.includes(`did you mean "${near}"?`), near !== "", message);
    }
  }
  assertThrows(() => stop.inject(256), RangeError, "inject: a whole number from 0 to 0xff");
  const answer = stop.inject("gp", 8);
  assertEquals(answer.kind === "inject" && answer.event, {
    type: "exception",
    vector: 13,
    errorCode: 8,
  });
});
