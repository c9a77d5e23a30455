import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { compare, configurationOf, ExitPairs } from "./compare.ts";
import { GuestDigest } from "./digest.ts";
import { Hypervisor } from "./hypervisor.ts";
import { kernel } from "./testing/hosts.ts";
import { subjectOf } from "./domain.ts";

Deno.test("compare() of two hosts with other machine frames finds nothing that differs", async () => {
  const result = await compare({ host: { seed: 1 } }, { host: { seed: 99 } }, {
    until: "power off",
  });
  assertEquals([result.equal, result.first, result.state], [true, undefined, []]);
  const [a, b] = result.runs;
  assertEquals([a.name, b.name, a.end], ["seed 1", "seed 99", "until"]);
  assertEquals([b.exits, b.instructions, b.console], [a.exits, a.instructions, a.console]);
  assert(result.same > 100, `${result.same} exits`);
  assertStringIncludes(Deno.inspect(result), "the guest's state is the same");
});

Deno.test("compare() shows the first exit that differs, with both records", async () => {
  const result = await compare(
    { domain: { cpuid: "common" } },
    { domain: { cpuid: "intel" } },
    { until: "power off" },
  );
  const [a, b] = result.first!;
  // The demo guest prints the vendor's name: the first letter that differs goes to the console.
  assertEquals([a!.kind, b!.kind, a!.count], ["io", "io", b!.count]);
  assert(a!.text !== b!.text, a!.text);
  assertEquals(a!.raw!.exitReason, 30n);
  assertStringIncludes(a!.instruction!, "out");
  assertEquals(result.equal, false);
  assertEquals(result.runs[0].console.slice(0, result.consoleDifference!).at(-1), " ");
  const text = Deno.inspect(result);
  for (const part of ["cpuid common", "cpuid intel", " the same on both:", "console's text"]) {
    assertStringIncludes(text, part);
  }
});

Deno.test("compare() of two vendors shows of either record why the guest left", async () => {
  const text = Deno.inspect(
    await compare({ host: { cpu: "intel" } }, { host: { cpu: "amd" } }, { until: "power off" }),
  );
  for (const part of ["  intel: exitReason 0x1e", "  amd: exitCode 0x7b"]) {
    assertStringIncludes(text, part);
  }
  assert(!text.includes("tscOffset"), text);
});

Deno.test("compare() says which configuration cannot be made, and ends at a signal", async () => {
  const signal = AbortSignal.abort();
  await assertRejects(() => compare({}, {}, { until: 1000, signal }));
  await assertRejects(
    () => compare({}, { name: "small", host: { memory: "4M" } }, { until: 1000 }),
    Error,
    "small: ",
  );
  assertThrows(() => configurationOf("intel+sahdow"), TypeError, "sahdow");
});

Deno.test("a digest shows lines and frames that differ, and survives JSON", async () => {
  const digest = async (change: (hv: Hypervisor) => void) => {
    await using hv = await Hypervisor.demo();
    const [dom] = hv.domains;
    await dom.until("execute", { address: "main" });
    change(hv);
    return GuestDigest.of(dom);
  };
  const plain = await digest(() => {});
  const same = GuestDigest.from(JSON.parse(JSON.stringify(await digest(() => {}))));
  assertEquals([same.hash, same.differences(plain)], [plain.hash, []]);
  const other = await digest(({ domains: [dom] }) => {
    dom.vcpus[0].regs.rbx = 0x1234n;
    dom.memory.write(0x5000, Uint8Array.of(1));
    subjectOf(dom).inner.platform!.ioWrite(0x21, 1, 0x5a);
  });
  const blocks = new Set(plain.differences(other).map((d) => d.block));
  assertEquals([...blocks].sort(), ["memory", "pic", "registers"]);
  assertEquals(plain.differingFrames(other), [5]);
  assert(plain.hash !== other.hash);
});

Deno.test("compare() of guests that leave without end keeps only what the other has not come to", async () => {
  let most = 0;
  const add = ExitPairs.prototype.add;
  ExitPairs.prototype.add = function (...args) {
    add.apply(this, args);
    most = Math.max(most, this.kept);
  };
  try {
    const guest = { kernel: kernel("again: out 0x80, al\n jmp again"), memory: "4M" };
    const until = 200_000;
    const { same, first, equal, runs } = await compare(
      { name: "one", domain: guest },
      { name: "other", domain: guest },
      { until },
    );
    assertEquals([same, first, equal], [100_000, undefined, true]);
    assertEquals(runs.map((r) => r.exits.io), [100_000, 100_000]);
    assert(most > 1000 && most <= 50_000, `${most} kept`);
  } finally {
    ExitPairs.prototype.add = add;
  }
});

Deno.test("ExitPairs finds the first exits that differ, whichever run is ahead, and keeps no more", () => {
  const exit = (count: number, text = "") => () => ({ kind: "io", count, time: 0, text });
  for (const ahead of [0, 1] as const) {
    const behind = ahead ? 0 : 1, both = [ahead, behind] as const;
    const pairs = new ExitPairs();
    for (let n = 0; n < 5000; n++) pairs.add(ahead, exit(n));
    for (let n = 0; n < 4500; n++) pairs.add(behind, exit(n));
    assert(pairs.kept <= 1500, `${pairs.kept} kept`);
    for (let n = 4500; n < 6000; n++) pairs.add(behind, exit(n));
    assertEquals([pairs.same, pairs.kept], [5000, 1000]);
    pairs.add(ahead, exit(5000, "other"));
    assertEquals(pairs.first?.map((e) => e?.text), ahead ? ["", "other"] : ["other", ""]);
    pairs.add(ahead, () => {
      throw new Error("nobody wants it");
    });
    assertEquals([pairs.same, pairs.kept], [5000, 0]);
    // One has no more, before or after the other's next.
    for (const early of [true, false]) {
      const ending = new ExitPairs();
      for (const run of both) ending.add(run, exit(1));
      if (early) ending.end(behind);
      ending.add(ahead, exit(2));
      if (!early) ending.end(behind);
      assertEquals(ending.first?.map((e) => e?.count), ahead ? [undefined, 2] : [2, undefined]);
    }
    const equal = new ExitPairs();
    for (const run of both) equal.add(run, exit(1));
    equal.end(ahead);
    equal.end(behind);
    assertEquals([equal.same, equal.first], [1, undefined]);
  }
});
