import { assert, assertEquals } from "@std/assert";
import { hostUnder, Hypervisor } from "./hypervisor.ts";
import { lockstep, sideOf } from "./lockstep.ts";

async function two(change: (hv: Hypervisor) => void = () => {}) {
  const a = await Hypervisor.demo({ type: "bare" }), b = await Hypervisor.demo({ type: "bare" });
  // One uses the hot handlers, the other goes the general way throughout.
  hostUnder(b).machine.cpu.hot = false;
  change(b);
  return { a, b, close: () => Promise.all([a.close(), b.close()]) };
}

Deno.test("lockstep() of two ways of execution finds no difference", async () => {
  const { a, b, close } = await two();
  for (const hv of [a, b]) hv.domains[0].console.write("f");
  const found = lockstep(sideOf(a), sideOf(b), { instructions: 20_000, stride: 3000 });
  assertEquals(found, undefined);
  assertEquals(a.domains[0].vcpus[0].position.count, 20_000);
  await close();
});

Deno.test("lockstep() bisects to the instruction after which two runs differ", async () => {
  const { a, b, close } = await two();
  // From instruction 5000 on, one of them is another.
  const side = sideOf(b, "broken");
  const run = side.run;
  side.run = (n: number) => {
    const before = side.count;
    const first = Math.min(n, Math.max(0, 5000 - before));
    let done = first > 0 ? run(first) : 0;
    if (before < 5000 && before + n >= 5000) b.domains[0].memory.write(0x8000, [1]);
    if (n > first) done += run(n - first);
    return done;
  };
  const found = lockstep(sideOf(a), side, { instructions: 20_000, stride: 4096 });
  assertEquals(found?.position, 4999);
  assert(found?.lines.some(([x, y]) => x === "[0x8000] 0x00" && y === "[0x8000] 0x01"));
  await close();
});

Deno.test("a bare guest and a virtual one agree at the end of what the demo guest sets up", async () => {
  const ends: string[] = [];
  for (const type of ["bare", "hvm"] as const) {
    const hv = await Hypervisor.demo({ type });
    const [dom] = hv.domains;
    await dom.until("execute", { address: "make_idt" });
    ends.push(`${dom.vcpus[0].position.count - 0} ${dom.stateHash()}`);
    await hv.close();
  }
  // CPUID apart, which the one is and the other is not intercepted for, both did the same.
  assertEquals(ends[0], ends[1]);
});

Deno.test("both vendors run the demo guest in lockstep, seen and unseen", async () => {
  const a = await Hypervisor.demo({ cpu: "intel", cpuid: "common" });
  const b = await Hypervisor.demo({ cpu: "amd", cpuid: "common" });
  b.domains[0].trace("any", { all: true });
  for (const hv of [a, b]) hv.domains[0].console.write("fdm");
  const found = lockstep(sideOf(a), sideOf(b), { instructions: 60_000, stride: 7000 });
  assertEquals(found, undefined);
  await Promise.all([a.close(), b.close()]);
});
