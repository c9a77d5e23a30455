// What hv.diff() names, and that it names nothing else.
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { type Plain, RecordError } from "../../machine/record.ts";
import { unpackState } from "../../xen/state_file.ts";
import { Hypervisor } from "../hypervisor.ts";
import { configurations, hostOf } from "../testing/hosts.ts";
import { everyExit } from "../testing/every_exit.ts";
import { advance } from "../lockstep.ts";

for (const c of configurations) {
  Deno.test(`diff() names what was changed, and nothing else (${c.cpu}, ${c.paging})`, async () => {
    await using host = await hostOf(c, everyExit(c.cpu));
    const { hv, dom } = host, [vcpu] = dom.vcpus;
    advance(dom, 9000);
    dom.console.write("ab");
    const bare = c.paging === "bare";
    const uart = () => dom.devices.get("com1").state as { scratch: number };
    const where = bare
      ? /^processor registers\./
      // It is looked at before it goes on.
      : /^domain 1 vcpu 0 (control structure |save area |hvm changed$)/;
    const row = (text: string) => new RegExp(`^${text}$`);
    const cases: [what: string, change: () => void, rows: RegExp[]][] = [
      ["memory", () => dom.memory.write(0x2a_0ffe, new Uint8Array([0xaa, 0xbb, 0xcc])), [
        row("world ordinal"),
        row("domain 1 memory guest frame 0x2a0 \\+ 0xffe"),
        row("domain 1 memory guest frame 0x2a1 \\+ 0x0"),
      ]],
      ["a register", () => vcpu.regs.rsi = 0x1234_5678n, [row("world ordinal"), where]],
      ["x87 and SSE", () => vcpu.regs.xmm5 = 1n << 100n, [row("world ordinal"), where]],
      ["a chip", () => uart().scratch = 77, [row("domain 1 com1 scratch")]],
      ["its share", () => dom.weight = 300, [
        row("world ordinal"),
        row("domain 1 allotment\\.weight"),
      ]],
      ["nothing", () => {}, []],
    ];
    for (const [what, change, expected] of cases) {
      const before = hv.save();
      change();
      const { differences, same } = hv.diff(before);
      const rows = differences.map(({ block, path }) => `${block} ${path}`);
      assertEquals(same, expected.length === 0, what);
      for (const wanted of expected) {
        assert(
          rows.some((r) => wanted.test(r)),
          `${what}: ${wanted} is not in\n${rows.join("\n")}`,
        );
      }
      const others = rows.filter((r) => !expected.some((wanted) => wanted.test(r)));
      assertEquals(others, [], what);
      // Between two states, the other way round, and from bytes alone.
      const other = hv.diff(hv.save(), before).differences;
      assertEquals(
        other.map(({ values: [a, b] }) => [b, a]),
        differences.map(({ values: [a, b] }) => [a, b]),
      );
      hv.load(before);
      assert(hv.diff(before).same, what);
    }
  });
}

Deno.test("diff() shows both values in a table; guests are compared by guest frames, wherever they lie", async () => {
  await using hv = await Hypervisor.demo();
  await using other = await Hypervisor.demo({ seed: 9 });
  const before = hv.save();
  hv.domains[0].memory.write(0x1008, new Uint8Array([1, 2]));
  const text = Deno.inspect(hv.diff(before));
  assertStringIncludes(text, "block            field");
  assertStringIncludes(
    text,
    "domain 1 memory  guest frame 0x1 + 0x8  00 00 00 00 00 00 00 00  01 02 00 00 00 00 00 00",
  );
  assertEquals(Deno.inspect(hv.diff(before, before)), "the states are the same");
  const seeds = hv.diff(before, other.save()).differences;
  assertEquals(
    seeds.find(({ block }) => block === "host"),
    { block: "host", path: "configuration.seed", values: ["1", "9"] },
  );
  assertEquals(seeds.filter(({ block }) => block === "domain 1 memory"), []);
  await using bare = await Hypervisor.demo({ type: "bare", cpu: "amd" });
  const kinds = hv.diff(before, bare.save()).differences.map(({ block, path }) =>
    `${block} ${path}`
  );
  for (
    const wanted of [
      "host configuration.cpu",
      "domain 1 configuration.type",
      "domain 1 vcpu 0 hvm ",
    ]
  ) {
    assert(kinds.includes(wanted), wanted);
  }
});

Deno.test("blocks are the records that are saved, and print as a table", async () => {
  await using hv = await Hypervisor.demo();
  const { blocks } = hv, saved = unpackState(hv.save()).record as Record<string, { record: Plain }>;
  assertEquals(Object.keys(blocks).sort(), Object.keys(saved).sort());
  for (const [name, record] of Object.entries(blocks)) {
    assertEquals(record, saved[name].record, name);
  }
  assertMatch(Deno.inspect(blocks), /^block +version +bytes\n[^]*\ndomain 1 pit +2 +\d/);
  // A copy: what is changed in it changes nothing.
  (blocks["domain 1 com1"] as Record<string, Plain>).scratch = 77;
  assertEquals((hv.blocks["domain 1 com1"] as Record<string, Plain>).scratch, 0);
});

Deno.test("diff() refuses what is no state, and a present one that runs", async () => {
  await using hv = await Hypervisor.demo();
  const state = hv.save(), [dom] = hv.domains;
  assertThrows(() => hv.diff("text" as never), TypeError, "the bytes of a saved host");
  assertThrows(() => hv.diff(state.slice(1)), RecordError, "no saved state of a host");
  assertThrows(() => hv.diff(state, state.slice(0, -1)), RecordError, "damaged");
  const running = dom.continue();
  assertThrows(() => hv.diff(state), Error, "diff: domain demo is running; pause it first");
  assert(hv.diff(state, state).same);
  dom.pause();
  await running;
});
