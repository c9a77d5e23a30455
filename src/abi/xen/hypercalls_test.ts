import { assertEquals, assertStrictEquals } from "@std/assert";
import { layoutOf, type StructOf, View } from "../layout.ts";
import { errnoName, XEN_ERRNO, XEN_ERRNO_MEANING } from "./errno.ts";
import { EVTCHNOP } from "./event_channel.ts";
import {
  argumentsIn,
  type Hypercall,
  HYPERCALL_REGISTERS,
  hypercallOf,
  HYPERCALLS,
  NR_HYPERCALLS,
} from "./hypercalls.ts";
import { operationOf } from "./operation.ts";
import { SHARED_INFO } from "./xen.ts";

const rows: [string, Hypercall][] = Object.entries(HYPERCALLS);

Deno.test("a hypercall and its operation are found by number, with the layout of the argument", () => {
  const [name, row] = hypercallOf(32)!;
  assertEquals(name, "event_channel_op");
  const [cmd, arg] = argumentsIn(row, 32, [4n, 0xffff_ffff_c010_0000n, 0n, 0n, 0n, 0n]);
  assertEquals([cmd, arg], [4n, 0xc010_0000n]);
  const [sub, operation] = operationOf(row.operations!, Number(cmd))!;
  assertEquals(sub, "send");
  assertStrictEquals(operation, EVTCHNOP.send);
  assertEquals(new View(EVTCHNOP.send.arg, 32, Uint8Array.of(5, 0, 0, 0)).get("port"), 5);
  assertEquals(operationOf(row.operations!, 14), undefined);
});

Deno.test("arguments of 64 bits take two registers of 32-bit code, the lower half first", () => {
  const call = HYPERCALLS.update_va_mapping;
  const registers = [0x1000n, 0x8000_0063n, 0x1n, 2n, 9n, 9n];
  assertEquals(argumentsIn(call, 32, registers), [0x1000n, 0x1_8000_0063n, 2n]);
  assertEquals(argumentsIn(call, 64, registers), [0x1000n, 0x8000_0063n, 1n]);
  assertEquals(argumentsIn(HYPERCALLS.set_timer_op, 32, [1n, 2n]), [0x2_0000_0001n]);
  assertEquals(argumentsIn(HYPERCALLS.set_callbacks, 32, [1n, 2n, 3n, 4n]).length, 4);
  assertEquals(argumentsIn(HYPERCALLS.set_callbacks, 64, [1n, 2n, 3n, 4n]).length, 3);
  const cut = argumentsIn(HYPERCALLS.vcpu_op, 64, [0xffff_ffffn, 0x1_0000_0002n, 3n]);
  assertEquals(cut, [-1n, 2n, 3n]);
});

Deno.test("the table is whole: numbers once, registers enough, counts and paths that exist", () => {
  assertEquals(new Set(rows.map(([, row]) => row.number)).size, rows.length);
  for (const [name, row] of rows) {
    assertEquals(hypercallOf(row.number)?.[0] as string, name);
    assertEquals(row.number < NR_HYPERCALLS, true);
    for (const width of [32, 64] as const) {
      const args = row.args[width];
      const words = args.map(({ type }) => type === "u64" && width === 32 ? 2 : 1);
      const used = words.reduce((sum, n) => sum + n, 0);
      // The sixth register is no argument of any call of today.
      assertEquals(used < HYPERCALL_REGISTERS[width].length, true, name);
      for (const { count } of args) {
        if (count) assertEquals(args.some((other) => other.name === count), true, name);
      }
      assertEquals(
        args.some(({ to }) => to === "operation"),
        row.operations !== undefined,
        name,
      );
    }
    const operations = Object.entries(row.operations ?? {});
    assertEquals(new Set(operations.map(([, { number }]) => number)).size, operations.length);
    for (const [sub, { arg, out, inout, lists, number }] of operations) {
      if (row.operationMask) assertEquals(number & row.operationMask, number);
      const paths = [
        ...out,
        ...inout,
        ...lists.flatMap(({ handle, count }) =>
          typeof count === "string" ? [handle, count] : [handle]
        ),
      ];
      const { places } = paths.length > 0 ? layoutOf(arg as StructOf, 32) : { places: new Map() };
      for (const path of paths) assertEquals(places.has(path), true, `${name} ${sub} ${path}`);
    }
  }
});

Deno.test("errors have their names, and each a meaning", () => {
  assertEquals([errnoName(-107), errnoName(-38n), errnoName(0), errnoName(107)], [
    "ENOTCONN",
    "ENOSYS",
    undefined,
    undefined,
  ]);
  assertEquals(Object.keys(XEN_ERRNO), Object.keys(XEN_ERRNO_MEANING));
});

Deno.test("shared_info is written alike for both widths, each in its own layout", () => {
  const page = new Uint8Array(4096);
  for (const [width, pending, version] of [[32, 2052, 2304], [64, 2056, 3072]] as const) {
    const shared = new View(SHARED_INFO, width, page);
    shared.at("vcpu_info", 1).set("evtchn_upcall_pending", 1).set("time.version", 2);
    shared.set("evtchn_pending", 1n << 5n, 1).set("wc_version", 7);
    assertEquals([page[64], page[96]], [1, 2]);
    assertEquals([page[pending], page[version]], [0x20, 7]);
    page.fill(0);
  }
});
