// Breakpoints, watches and traces by the thousand: each costs what it would cost alone.
import { assert, assertEquals } from "@std/assert";
import { Hypervisor } from "../hypervisor.ts";

/** Milliseconds that `n` of something take to be made, met ten times by one more, and taken away. */
async function cost(kind: "execute" | "watch", n: number): Promise<number> {
  await using hv = await Hypervisor.demo({ type: "hvm" });
  const [dom] = hv.domains, ticks = dom.symbols!.address("ticks")!;
  await dom.until("execute", { address: "main" });
  const start = performance.now();
  // Where the guest has neither code nor data.
  const many = Array.from({ length: n }, (_, i) => {
    const address = 0xd800_0000n + 8n * BigInt(i);
    return kind === "execute"
      ? dom.break("execute", { address })
      : dom.break("watch", { address, length: 4 });
  });
  const one = kind === "execute"
    ? dom.break("execute", { address: "timer" })
    : dom.break("watch", { address: ticks, length: 4 });
  for (let hit = 0; hit < 10; hit++) assertEquals((await dom.continue())?.kind, kind);
  assertEquals(one.hits, 10);
  for (const b of [...many, one]) b.delete();
  const end = performance.now();
  assertEquals(dom.breakpoints.length, 0);
  return end - start;
}

for (const kind of ["execute", "watch"] as const) {
  Deno.test(`10,000 breakpoints of kind "${kind}" cost no more each than 500 do`, async () => {
    // The least of some: others may use the machine too.
    const least = async (n: number) =>
      Math.min(await cost(kind, n), await cost(kind, n), await cost(kind, n));
    await cost(kind, 500);
    const few = await least(500), many = await least(10_000);
    // Quadratic, it would be 400 times as much.
    assert(many < 80 * few, `500: ${few} ms, 10,000: ${many} ms`);
  });
}

Deno.test("all who watch the same memory are told of one access, and the stop names each that asked", async () => {
  await using hv = await Hypervisor.demo({ type: "hvm" });
  const [dom] = hv.domains, ticks = dom.symbols!.address("ticks")!;
  let traced = 0;
  const first = dom.break("watch", { address: ticks, length: 4 });
  dom.trace("watch", { address: ticks, length: 4 }, () => void traced++);
  const last = dom.break("watch", { address: ticks - 0xc000_0000n, length: 4, physical: true });
  for (let n = 1; n <= 3; n++) {
    const stop = await dom.continue();
    assertEquals(stop?.breakpoints, [first, last]);
    assertEquals([first.hits, last.hits, traced], [n, n, n]);
  }
});
