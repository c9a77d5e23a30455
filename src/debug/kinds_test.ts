import { assert, assertEquals } from "@std/assert";
import type { Exit, ExitOf, Wide } from "../hvm/exit.ts";
import { exitKinds, interceptsOf } from "../hvm/exit_kinds.ts";
import { fieldNames } from "./events/filters.ts";
import { kindHelp, kindText } from "./kind_help.ts";
import {
  exitsFor,
  type Fields,
  type FieldsOf,
  fieldsOf,
  type Filters,
  type Kind,
  kinds,
  namesOf,
} from "./kinds.ts";

/** Compiles where two types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true
  : never;
const same = <A, B>(_: Same<A, B>): void => {};

Deno.test("types of filters, events and exits follow from the rows", () => {
  type Address = bigint | number | string;
  same<Filters["execute"]["address"], Address>(true);
  same<Filters["io"]["port"], number | readonly [first: number, last: number] | undefined>(true);
  same<Filters["msr"]["msr"], number | string | undefined>(true);
  same<Filters["cr"]["cr"], 0 | 3 | 4 | 8 | undefined>(true);
  same<keyof Filters["cr"], "cr" | "write" | "access" | "value" | "vcpu">(true);
  same<keyof Filters["exception"], "vector" | "errorCode" | "address" | "vcpu">(true);
  same<keyof Filters["hlt"], "vcpu">(true);
  same<Fields["cr"]["value"], bigint>(true);
  same<Fields["cr"]["access"], "mov" | "clts" | "lmsw">(true);
  same<Fields["cpuid"]["result"]["ecx"], number>(true);
  same<Fields["nested-page-fault"]["linear"], bigint | undefined>(true);
  same<FieldsOf<"exception">["errorCode"], number | undefined>(true);
  same<FieldsOf<"any">, Record<string, unknown>>(true);
  same<ExitOf<"io">["address"], Wide | undefined>(true);
  same<keyof ExitOf<"exception">, "kind" | "length" | "vectoring" | "event" | "qualification">(
    true,
  );
  same<keyof ExitOf<"msr">, "kind" | "length" | "vectoring" | "msr" | "write" | "value">(true);
  const kind: Kind = kinds[0];
  assertEquals(kind, "execute");
});

Deno.test("an exit goes by its own name, by those of which it is one, and last by any", () => {
  const guest = {
    cpuid: () => ({}),
    hypercall: () => ({}),
    isMemory: (gpa: number) => gpa < 0x1000_0000,
  };
  const fault = (gpa: number): Exit => ({
    kind: "nested-page-fault",
    gpa,
    linear: { low: 5, high: 0 },
    read: false,
    write: true,
    fetch: false,
    walk: false,
    rights: 0,
    misconfigured: false,
    length: 0,
  });
  const seen = (gpa: number) => namesOf(fault(gpa), guest).map(({ kind, shown }) => [kind, shown]);
  const own = ["nested-page-fault", "nested-page-fault"], any = ["any", "nested-page-fault"];
  assertEquals(seen(0xfee0_0000), [own, ["mmio", "mmio"], any]);
  assertEquals(seen(0x1000), [own, any]);
  const [, device] = namesOf(fault(0xfee0_0020), guest);
  assertEquals(device.fields, { address: 0xfee0_0020n, write: true, linear: 5n });
});

Deno.test("an exit's fields are seen as its row says: halves joined, names beside numbers", () => {
  const wide = (low: number) => ({ low, high: 1 });
  const length = 2;
  const guest = {
    cpuid: (leaf: number) => ({ leaf }),
    hypercall: () => ({ number: 7, width: 32, arguments: {} }),
    isMemory: () => false,
  };
  const seen: [Exit, object][] = [
    [{ kind: "invlpg", linear: wide(5), length }, { linear: 0x1_0000_0005n }],
    [{ kind: "shadow-write", gpa: 16, linear: wide(0), length }, {
      gpa: 16n,
      linear: 0x1_0000_0000n,
    }],
    [{ kind: "msr", msr: 0xc000_0080, write: false, value: wide(0), length }, {
      msr: 0xc000_0080,
      name: "efer",
      write: false,
      value: 0x1_0000_0000n,
    }],
    [{ kind: "hypercall", length }, { number: 7, width: 32, arguments: {} }],
    [{ kind: "cpuid", leaf: 1, subleaf: 2, length }, { leaf: 1, subleaf: 2, result: { leaf: 1 } }],
    [{
      kind: "exception",
      event: { type: "exception", vector: 14, errorCode: 2 },
      qualification: wide(0),
      length,
    }, { vector: 14, name: "#PF", errorCode: 2, address: 0x1_0000_0000n }],
    [
      {
        kind: "exception",
        event: { type: "exception", vector: 6 },
        qualification: wide(0),
        length,
      },
      { vector: 6, name: "#UD", errorCode: undefined },
    ],
  ];
  for (const [exit, fields] of seen) {
    assertEquals(fieldsOf(exit, guest), fields as Record<string, unknown>);
    const names = fieldNames(exit.kind);
    for (const name of Object.keys(fields)) assert(names.includes(name), `${exit.kind} ${name}`);
  }
});

Deno.test("the intercepts of kinds: their own, or as far as a filter says", () => {
  const of = (kind: Kind, filter = {}) => interceptsOf(exitsFor([{ kind, filter }]));
  assertEquals(of("any"), {});
  assertEquals(of("descriptor-table"), { "descriptor-table": true });
  assertEquals(of("msr", { msr: 16, write: true }), { msrWrites: [16] });
  assertEquals(of("cr", { cr: 3, write: false }), { crRead: 8 });
  assertEquals(of("exception", { vector: 6 }), { exceptions: 1 << 6 });
  assertEquals(of("any", { all: true }), interceptsOf(exitKinds.map((kind) => [kind, {}])));
});

Deno.test("`.help KIND` says of each kind what its row does", () => {
  for (const kind of kinds) {
    const text = kindText(kind), { example, filter } = kindHelp(kind);
    assert(text.startsWith(`${kind}: `) && text.includes(example), kind);
    for (const [key] of filter) assert(text.includes(`  ${key}`), `${kind} ${key}`);
  }
  const text = kindText("io");
  for (
    const part of [
      "port    0 to 0xffff; or a range",
      "size    1, 2, 4",
      "reply: { value }",
      "deny() injects #GP(0)",
    ]
  ) assert(text.includes(part), text);
  assert(
    kindText("tpr").endsWith(
      'who has it: domains of type "hvm" on hosts with cpu: "intel"\n  b tpr',
    ),
  );
});
