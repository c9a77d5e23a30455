// Shadow paging: what the tables say, what is derived and when it goes, and that nobody can tell.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { demoGuest } from "../builder/demo.ts";
import type { NamedAddress } from "../builder/symbols.ts";
import { hostUnder, Hypervisor } from "../debug/hypervisor.ts";
import { type GuestDomain, subjectOf } from "../debug/domain.ts";
import { SHADOW_MODES, shadowCampaign } from "../../tests/fuzz/shadow.ts";
import type { HvmEngine } from "./hvm.ts";
import { defaultShadowMemory, Shadow } from "./shadow.ts";
import { KIND, ShadowPool } from "./shadow_pool.ts";
import { checkPool } from "./shadow_testing.ts";
import type { CpuModel } from "../machine/vendors.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";

for (const mode of SHADOW_MODES) {
  for (const [cpu, pool] of [["intel", 16], ["intel", 64], ["amd", 32], ["amd", 6]] as const) {
    Deno.test(`random page tables, ${mode}, ${cpu}, pool of ${pool} frames: as a plain walk has it`, () => {
      const result = shadowCampaign({ cpu, mode, pool, accesses: 10_000, seed: 20261126 + pool });
      assertEquals(result.finding, undefined);
      assert(result.allowed > 500, JSON.stringify(result));
      if (mode !== "none") assert(result.faulted > 500 && result.writes > 0);
    });
  }
}

Deno.test("defaultShadowMemory() gives 1 MB a vCPU and 8 KB a MB", () => {
  assertEquals(defaultShadowMemory(1, 256 << 20), 3 << 20);
  assertEquals(defaultShadowMemory(2, 16 << 20), (2 << 20) + (128 << 10));
});

const shadowOf = (dom: GuestDomain): Shadow =>
  (subjectOf(dom).inner.vcpus[0].engine as HvmEngine).shadow!;

type DemoOptions = { cpu?: CpuModel; paging?: "hap" | "shadow"; shadowMemory?: number };

async function demo({ cpu, ...options }: DemoOptions = {}) {
  const hv = await Hypervisor.start({ memory: "64M", cpu });
  const { image, symbols } = demoGuest();
  const dom = await hv.createDomain({
    name: "demo",
    kernel: image,
    memory: "16M",
    paging: "shadow",
    ...options,
  });
  return { hv, dom, symbols };
}

const timerOf = (symbols: readonly NamedAddress[]): bigint =>
  BigInt(symbols.find((s) => s.name === "timer")!.address);

/** Lets a domain run to a count of instructions. */
function runTo(hv: Hypervisor, dom: GuestDomain, count: number): void {
  const { inner } = subjectOf(dom), host = hostUnder(hv), { cpu } = host.machine;
  if (inner.state.kind === "paused") inner.setState({ kind: "running" });
  while (inner.count < count && !inner.ended) {
    host.runOnce(count - inner.count);
    if (inner.state.kind !== "blocked" || inner.count >= count) continue;
    const next = Math.min(inner.platform!.deadline(), host.machine.bus.deadline());
    cpu.skipTo(next);
    host.handleInterrupts();
    inner.platform!.run(cpu.now);
  }
  inner.pause();
}

const sameState = async (cpu: CpuModel) => {
  const states: string[][] = [];
  for (const options of [{ paging: "hap" }, {}, { shadowMemory: 16 * 4096 }] as const) {
    const { hv, dom } = await demo({ cpu, ...options });
    const state: string[] = [];
    for (const count of [1000, 9339, 54_321, 120_000]) {
      runTo(hv, dom, count);
      state.push(
        `${subjectOf(dom).inner.count} ${hostUnder(hv).machine.cpu.now} ${dom.stateHash()}`,
      );
      if (dom.shadow) checkPool(shadowOf(dom));
    }
    states.push(state);
    await hv.close();
  }
  assertEquals(states[1], states[0]);
  assertEquals(states[2], states[0]);
};
for (const cpu of ["intel", "amd"] as const) {
  Deno.test(`a guest has the same state under shadow paging, whatever the pool, as over nested tables, ${cpu}`, () =>
    sameState(cpu));
}

Deno.test("a walk shows the guest's levels beside those the processor walks", async () => {
  const { hv, dom, symbols } = await demo();
  runTo(hv, dom, 20_000);
  const linear = timerOf(symbols);
  const walk = dom.vcpus[0].pageTables.walk(linear);
  const sides = walk.sideBySide.map(({ level, guest, shadow }) => [
    level,
    guest?.name,
    shadow?.name,
  ]);
  assertEquals(sides, [
    [3, undefined, "shadow PDPTE"],
    [2, "PDE", "shadow PDE"],
    [1, "PTE", "shadow PTE"],
  ]);
  assertEquals(walk.shadowMachine, walk.machine);
  assert(walk.shadow![2].flags.includes("present"));
  // The last shadow entry is an entry of a table in `dom.shadow`.
  const { address, entry } = walk.shadow![2];
  const table = dom.shadow!.table({ address: address & ~0xfffn });
  assertEquals(table.entries.find((e) => e.address === address)?.entry, entry);
  assert(String(dom.shadow).includes("page directory, 32-bit"));
  assert(String(table).includes("guest frame"));
  assert(String(walk).includes("=> the shadow leads to machine"));
  assertThrows(() => dom.shadow!.table({ guestFrame: 0x999 }), RangeError, "0x999");
  await hv.close();
});

Deno.test("a shadow entry corrupted by hand is what the guest gets", async () => {
  const { hv, dom, symbols } = await demo();
  runTo(hv, dom, 20_000);
  const linear = timerOf(symbols);
  const walk = dom.vcpus[0].pageTables.walk(linear);
  // Another frame with other code: INT3 all over.
  const other = hostUnder(hv).frames!.allocate(dom.id);
  hv.memory.write(BigInt(other * 4096), new Uint8Array(4096).fill(0xcc));
  const entry = walk.shadow![2];
  const bytes = new Uint8Array(8);
  const flags = entry.entry & 0xfffn | entry.entry >> 52n << 52n;
  new DataView(bytes.buffer).setBigUint64(0, BigInt(other * 4096) | flags, true);
  hv.memory.write(entry.address, bytes);
  assertEquals(dom.vcpus[0].pageTables.walk(linear).shadowMachine! >> 12n, BigInt(other));
  // The guest's own entry is untouched, and its memory too: the processor reads the other frame.
  const stop = await dom.until("exception", { vector: 3 });
  assert(stop.regs.rip >= linear && stop.regs.rip < linear + 0x1000n);
  await hv.close();
});

Deno.test("writes to the guest's tables from outside are seen, through whatever door", async () => {
  const { hv, dom, symbols } = await demo();
  runTo(hv, dom, 20_000);
  const linear = timerOf(symbols);
  const { pageTables } = dom.vcpus[0];
  const before = pageTables.walk(linear), leaf = before.levels[1];
  assert(before.shadowMachine !== undefined);
  const frame = Number(before.physical! >> 12n);
  for (
    const write of [
      (bytes: Uint8Array) => dom.memory.write(leaf.address, bytes),
      (bytes: Uint8Array) => {
        const machine = subjectOf(dom).inner.memory.machineAddress(Number(leaf.address));
        hv.memory.write(BigInt(machine), bytes);
      },
    ]
  ) {
    // Another frame, accessed and dirty: the old translation goes at once.
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, (frame + 1) * 4096 | 0x63, true);
    write(bytes);
    checkPool(shadowOf(dom));
    assertEquals(pageTables.walk(linear).shadowMachine, undefined);
    new DataView(bytes.buffer).setUint32(0, frame * 4096 | 0x63, true);
    write(bytes);
    runTo(hv, dom, subjectOf(dom).inner.count + 20_000);
    assertEquals(pageTables.walk(linear).shadowMachine, before.machine);
  }
  await hv.close();
});

const saveAndLoad = async (cpu: CpuModel) => {
  const { hv, dom } = await demo({ cpu });
  runTo(hv, dom, 50_000);
  const saved = hv.save();
  assertEquals(shadowOf(dom).pool.free, shadowOf(dom).pool.slots - 1);
  runTo(hv, dom, 120_000);
  const later = `${dom.stateHash()} ${hostUnder(hv).machine.cpu.now}`;
  hv.load(saved);
  assertEquals(hv.save(), saved);
  runTo(hv, dom, 120_000);
  assertEquals(`${dom.stateHash()} ${hostUnder(hv).machine.cpu.now}`, later);
  await hv.close();
};
for (const cpu of ["intel", "amd"] as const) {
  Deno.test(`save, load and save again are equal, and a loaded guest goes on the same, ${cpu}`, () =>
    saveAndLoad(cpu));
}

Deno.test("destroy() gives all frames back, and the processor's hooks", async () => {
  const hv = await Hypervisor.start({ memory: "64M" });
  const { image } = demoGuest();
  // Another one, so that the host is virtualized before and after.
  await hv.createDomain({ kernel: image, memory: "8M" });
  const { frames, machine } = hostUnder(hv), free = frames!.free;
  const dom = await hv.createDomain({ kernel: image, memory: "16M", paging: "shadow" });
  runTo(hv, dom, 20_000);
  const pool = shadowOf(dom).pool.slots;
  assertEquals(pool > 256 && frames!.free < free - pool, true);
  dom.destroy();
  assertEquals(frames!.free, free);
  assertEquals(machine.onWrite.size, 0);
  await hv.close();
});

Deno.test("a guest frame that is taken away has no shadow entry left", async () => {
  const { hv, dom, symbols } = await demo();
  runTo(hv, dom, 20_000);
  const linear = timerOf(symbols), { pageTables } = dom.vcpus[0];
  const before = pageTables.walk(linear);
  assertEquals(before.shadowMachine, before.machine);
  shadowOf(dom).p2m.unmap(Number(before.physical! >> 12n));
  checkPool(shadowOf(dom));
  assertEquals(pageTables.walk(linear).shadowMachine, undefined);
  await hv.close();
});

Deno.test("eviction spares the tables of the running translation", async () => {
  const { hv, dom } = await demo();
  const pool = new ShadowPool(shadowOf(dom).p2m, hostUnder(hv).frames!, dom.id, 4);
  const get = (guest: number) => pool.get(KIND.ptPae, guest, 0);
  pool.begin();
  const first = [10, 11, 12].map(get);
  pool.begin();
  assertEquals(get(10), first[0]);
  // The next one to go would be that of 10, the oldest.
  assertEquals(get(13), first[1]);
  assertEquals(get(14), first[2]);
  assertEquals([10, 11, 12].map((n) => pool.find(KIND.ptPae, n, 0)), [first[0], -1, -1]);
  assertThrows(() => get(15), Error, "all 4 shadow frames are in use by one translation");
  pool.clearAll();
  await hv.close();
});

Deno.test("a pool that cannot hold one translation is refused", async () => {
  const hv = await Hypervisor.start({ memory: "64M" });
  const { image } = demoGuest();
  let message = "";
  await hv.createDomain({ kernel: image, memory: "16M", paging: "shadow", shadowMemory: "32K" })
    .catch((error) => message = error.message);
  assert(message.includes("shadowMemory"), message);
  await hv.close();
});

Deno.test("domains with shadow and with nested paging share a processor", async () => {
  const all: string[][] = [];
  for (const pagings of [["hap", "hap"], ["shadow", "shadow"], ["shadow", "hap"]] as const) {
    const hv = await Hypervisor.start({ memory: "96M" });
    const { image } = demoGuest(), states: string[] = [];
    for (const paging of pagings) {
      const shadowMemory = paging === "shadow" ? 64 * 4096 : undefined;
      await hv.createDomain({ kernel: image, memory: "16M", paging, shadowMemory });
    }
    for (const { inner } of hv.domains.map(subjectOf)) inner.setState({ kind: "running" });
    for (let n = 1; n <= 40; n++) {
      // The same turns in each: what is blocked wakes when both are.
      if (!hostUnder(hv).runOnce(1000 + 37 * n)) {
        const next = Math.min(
          hostUnder(hv).machine.bus.deadline(),
          ...hv.domains.map((d) => subjectOf(d).inner.platform!.deadline()),
        );
        hostUnder(hv).machine.cpu.skipTo(next);
        hostUnder(hv).handleInterrupts();
        for (const { inner } of hv.domains.map(subjectOf)) inner.platform!.run(next);
      }
      if (n % 8 === 0) states.push(hv.domains.map((d) => d.stateHash()).join(" "));
    }
    for (const dom of hv.domains) if (dom.shadow) checkPool(shadowOf(dom));
    // One goes; the other's shadows stay.
    hv.domains[0].destroy();
    hostUnder(hv).runOnce(5000);
    states.push(hv.domains[0].stateHash());
    all.push(states);
    await hv.close();
  }
  assertEquals(all[1], all[0]);
  assertEquals(all[2], all[0]);
});

Deno.test("what one vCPU lets a guest write is told to another that has derived from it", async () => {
  const { hv, dom, symbols } = await demo();
  runTo(hv, dom, 20_000);
  const host = hostUnder(hv), [vcpu] = subjectOf(dom).inner.vcpus;
  const { p2m, ops, hvm } = vcpu.engine as HvmEngine;
  const first = shadowOf(dom);
  const other = ops.createVcpu(vcpu.processor.hvm!, {
    allocate: (count = 1) => host.frames!.allocateRun(dom.id, count) * 4096,
    free: () => {},
  });
  other.guest.set(hvm.guest);
  const second = new Shadow(p2m, ops, other, host.frames!, dom.id, 16 * 4096);
  // Both derive the translation of the same page from the same tables.
  const linear = Number(timerOf(symbols));
  for (const shadow of [first, second]) {
    shadow.sync();
    shadow.resolve(linear | 0, 0, 0);
  }
  const { walk } = second, place = walk.place[walk.steps - 1], table = walk.table[walk.steps - 1];
  const derived = () => {
    const { frameTable } = host.machine;
    return (frameTable[p2m.machineFrame(table) * (FRAME.size / 4)] & FRAME_FLAG.derived) !== 0;
  };
  const present = ({ pool }: Shadow) => {
    let found = false;
    pool.eachTable(table, (slot) => found ||= pool.present[slot] > 0);
    return found;
  };
  assertEquals([first, second].map(present), [true, true]);
  // The first lets go of the table; the second has to hear of writes all the same.
  first.dropTable(table);
  assertEquals([first.pool.isTable(table), second.pool.isTable(table), derived()], [
    false,
    true,
    true,
  ]);
  const { present: before } = second.pool, count = () => before.reduce((sum, n) => sum + n);
  const entries = count();
  host.machine.write(place * 4, new Uint8Array(4));
  assertEquals(count(), entries - 1);
  second.dropTable(table);
  assertEquals(derived(), false);
  second.destroy();
  await hv.close();
});
