// Breakpoints, watches, steps and traces over what the hypervisor executes for a guest, and beside the
// guest's own debug registers: each hit is told once, and the guest never sees any of it.
import { assert, assertEquals } from "@std/assert";
import type { GuestDomain } from "../domain.ts";
import { randomSlices, type Slices } from "../../xen/testing_slices.ts";
import { hostUnder, Hypervisor } from "../hypervisor.ts";
import type { Stop } from "./stop.ts";
import { GuestStopped } from "../waits.ts";
import { debuggedRom, LOG, LOG16, realRom } from "../testing/rom.ts";

const WAYS = [
  { type: "bare", cpu: "intel", paging: "hap" },
  { type: "bare", cpu: "amd", paging: "hap" },
  { type: "hvm", cpu: "intel", paging: "hap" },
  { type: "hvm", cpu: "intel", paging: "shadow" },
  { type: "hvm", cpu: "amd", paging: "hap" },
  { type: "hvm", cpu: "amd", paging: "shadow" },
] as const;
type Way = typeof WAYS[number];
const named = (way: Way) => way.type === "bare" ? `bare ${way.cpu}` : `${way.cpu}/${way.paging}`;

const { image, labels } = debuggedRom();
const label = (name: string): bigint => labels.get(name)!;

/** What a run has come to, as far as the guest could tell. */
interface Result {
  readonly count: number;
  readonly time: number;
  readonly hash: string;
  readonly text: string;
  /** Vector, EIP, RF and TF, causes in DR6 of each exception. */
  readonly log: readonly string[];
}

/** Runs the guest to its end, by `drive` where that is given. */
async function run(
  way: Way,
  drive: (dom: GuestDomain) => Promise<unknown> = toEnd,
  slices?: Slices,
): Promise<Result> {
  await using hv = await Hypervisor.start({ cpu: way.cpu, memory: "32M", seed: 1 });
  const { type, paging } = way;
  const dom = await hv.createDomain({
    type,
    paging,
    kernel: image,
    memory: "4M",
    cpuid: "common",
  });
  if (slices) hostUnder(hv).attention = slices;
  await drive(dom);
  const { count, time } = dom.vcpus[0].position, log = [];
  for (let at = LOG; at < dom.memory.u32(LOG - 4096); at += 16) {
    const [vector, eip, flags, dr6] = [0, 4, 8, 12].map((n) => dom.memory.u32(at + n));
    log.push([vector, eip, flags & 0x1_0100, dr6 & 0xe00f].map((n) => n.toString(16)).join(" "));
  }
  return { count, time, hash: dom.stateHash(), text: dom.console.text, log };
}

async function toEnd(dom: GuestDomain): Promise<void> {
  const stop = await dom.continue();
  assertEquals(stop?.kind, "end", stop?.describe());
}

/** Goes from stop to stop, and gives what `tell` says of each. */
async function stops(dom: GuestDomain, tell: (stop: Stop) => string): Promise<string[]> {
  const told: string[] = [];
  for (;;) {
    const stop = await dom.continue();
    assert(stop, "the guest was paused");
    if (stop.kind === "end") return told;
    told.push(tell(stop));
  }
}

/** How many exceptions the log has of each kind: at a label, or by cause. */
function summary(log: readonly string[]): Record<string, number> {
  const names = new Map([...labels].map(([name, at]) => [at.toString(16), name]));
  const counts: Record<string, number> = {};
  for (const line of log) {
    const [vector, eip, flags, causes] = line.split(" ");
    const at = /^(x\d|task)$/.exec(names.get(eip) ?? "")?.[0] ?? `vector ${vector}`;
    const key = `${at}, DR6 ${causes}${parseInt(flags, 16) & 0x1_0000 ? ", RF" : ""}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

Deno.test("the guest sees the same debug exceptions on every processor, virtual or not", async () => {
  const first = await run(WAYS[0]);
  assertEquals(summary(first.log), {
    // Data and ports, devices and page tables among them; RF between iterations (SDM 3 17.3.1.1).
    "vector 1, DR6 1": 10,
    "vector 1, DR6 1, RF": 3,
    // Instructions, a repeated one once; x5 is a loop, x7 is in one.
    "x1, DR6 1": 1,
    "x2, DR6 1": 1,
    "x3, DR6 1": 1,
    "x4, DR6 1": 1,
    "x5, DR6 1": 3,
    "x6, DR6 1": 1,
    "x7, DR6 1": 3,
    // Single steps: behind what is emulated, and not behind MOV SS.
    "vector 1, DR6 4000": 23,
    "vector 1, DR6 4000, RF": 3,
    "vector 3, DR6 0": 1,
    "vector 1, DR6 0": 1,
    // The T bit.
    "task, DR6 8000": 1,
  });
  for (const way of WAYS.slice(1)) {
    const { count, text, log } = await run(way);
    assertEquals([named(way), count, text], [named(way), first.count, first.text]);
    assertEquals(log, first.log, named(way));
  }
});

Deno.test("wherever the host has its turn, every exception comes: also one whose delivery made the guest leave", async () => {
  for (const way of WAYS) {
    const whole = await run(way);
    for (const seed of [2, 4]) {
      const slices = randomSlices(seed, 3);
      assertEquals(await run(way, toEnd, slices), whole, `${named(way)}, seed ${seed}`);
      assert(slices.count > 20, `${named(way)}: ${slices.count} slices`);
    }
  }
});

/** Linear addresses of the instructions of the part that is emulated and debugged. */
const PLACES = ["mmio", "ins", "outs", "tables", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "task"];
const RANGES = [[0x17f00, 0x100], [0x40000, 0x10], [0x41000, 6], [0x101140, 0x50], [
  0xfee00020,
  0x70,
]] as const;

/** Ways of looking on, each with what it is told. */
const OBSERVERS: Record<string, (dom: GuestDomain) => Promise<readonly string[]>> = {
  "steps": async (dom) => {
    const [vcpu] = dom.vcpus;
    await dom.until("execute", { address: label("mmio") });
    const told: string[] = [];
    while (vcpu.regs.rip !== label("timed")) {
      await vcpu.step();
      told.push(vcpu.regs.rip.toString(16));
    }
    await toEnd(dom);
    return told;
  },
  "steps over": async (dom) => {
    const [vcpu] = dom.vcpus;
    await dom.until("execute", { address: label("mmio") });
    const told: string[] = [];
    while (vcpu.regs.rip !== label("timed")) {
      await vcpu.stepOver();
      told.push(vcpu.regs.rip.toString(16));
    }
    await toEnd(dom);
    return told;
  },
  "traces": async (dom) => {
    const told: string[] = [];
    dom.trace("step", {}, () => void told.push("step"));
    for (const name of PLACES) {
      dom.trace("execute", { address: label(name) }, () => void told.push(name));
    }
    for (const [address, length] of RANGES) {
      dom.trace("watch", { address, length, read: true }, (s) => void told.push(access(s)));
    }
    await toEnd(dom);
    return told;
  },
  "breakpoints": (dom) => {
    for (const name of PLACES) dom.break("execute", { address: label(name) });
    return stops(dom, (s) => `${s.kind} ${s.vcpu.regs.rip.toString(16)}`);
  },
  "watches": (dom) => {
    for (const [address, length] of RANGES) dom.break("watch", { address, length, read: true });
    dom.break("watch", { address: 0x101000, length: 4096, physical: true });
    return stops(dom, (s) => `${access(s)} ${s.vcpu.regs.rip.toString(16)}`);
  },
};
function access(stop: Stop): string {
  const { address, write, length, old, value, delivery } = stop as unknown as Record<
    string,
    bigint
  >;
  return `${write ? "write" : "read"} ${length} at ${address}: ${old} ${value} ${delivery}`;
}

Deno.test("a breakpoint on what is emulated stops once: repeated instructions as a whole, loops each time", async () => {
  await run(WAYS[0], async (dom) => {
    const names = new Map(PLACES.map((name) => [label(name), name]));
    for (const name of PLACES) dom.break("execute", { address: label(name) });
    const at = await stops(dom, (s) => names.get(s.vcpu.regs.rip)!);
    assertEquals(at, [...PLACES.slice(0, 8), ...rep("x5", 3), "x6", "task", ...rep("x7", 3)]);
  });
});
const rep = (name: string, times: number) => Array<string>(times).fill(name);

for (const [name, look] of Object.entries(OBSERVERS)) {
  Deno.test(`${name}: each hit is told once on every processor, and the guest sees nothing of it`, async () => {
    // By vendor: PUSH of a segment register writes 2 bytes on the one and 4 on the other.
    const first: Partial<Record<Way["cpu"], string>> = {};
    for (const way of WAYS) {
      let told: readonly string[] = [];
      const seen = await run(way, async (dom) => told = await look(dom));
      assertEquals(seen, await run(way), named(way));
      const all = first[way.cpu] ??= told.join("\n");
      assert(told.length > 10, `${told.length} events`);
      assertEquals(told.join("\n"), all, named(way));
    }
  });
}

Deno.test("exits of every kind are traced, exceptions of emulated instructions too, and the guest sees nothing of it", async () => {
  const all = (await run(WAYS[0])).log.length;
  for (const way of WAYS.filter((w) => w.type === "hvm")) {
    let told = 0;
    const seen = await run(way, async (dom) => {
      dom.trace("exception", { vector: "#DB" }, () => void told++);
      await toEnd(dom);
    });
    assertEquals(seen, await run(way), named(way));
    // All but INT3.
    assertEquals([named(way), told], [named(way), all - 1]);
  }
});

const real = realRom();

/** Runs the guest in real mode; what it has come to, as words. */
async function runReal(way: Way, drive: (dom: GuestDomain) => Promise<unknown> = toEnd) {
  await using hv = await Hypervisor.start({ cpu: way.cpu, memory: "32M", seed: 1 });
  const { type, paging } = way;
  const dom = await hv.createDomain({ type, paging, kernel: real.image, memory: "4M" });
  await drive(dom);
  const end = dom.memory.u16(LOG16 - 16), log = [];
  for (let at = LOG16; at < end; at += 2) log.push(dom.memory.u16(at).toString(16));
  const { count, time } = dom.vcpus[0].position;
  return { count, time, hash: dom.stateHash(), text: dom.console.text, log: log.join(" ") };
}

/** Ways to look on at it. */
const REAL_OBSERVERS: Record<string, (dom: GuestDomain) => Promise<readonly string[]>> = {
  "steps": async (dom) => {
    const told: string[] = [];
    for (;;) {
      const stop = await dom.vcpus[0].step().catch((error) => {
        assert(error instanceof GuestStopped, String(error));
      });
      if (!stop) return told;
      told.push(stop.vcpu.regs.rip.toString(16));
    }
  },
  "breakpoints": (dom) => {
    for (
      const name of ["main", "software", "copy", "outs", "ins", "screen", "data", "traces", "trap"]
    ) {
      dom.break("execute", { address: real.labels.get(name)! });
    }
    return stops(dom, (s) => s.vcpu.regs.rip.toString(16));
  },
  "watches": (dom) => {
    dom.break("watch", { address: 0x600, length: 48, read: true });
    dom.break("watch", { address: 0x6ff8, length: 8, read: true });
    dom.break("watch", { address: 0xb8000, length: 2, read: true });
    return stops(dom, (s) => `${access(s)} ${s.vcpu.regs.rip.toString(16)}`);
  },
};

Deno.test("real mode: the guest sees the same traps on every processor", async () => {
  const { log, text, count } = await runReal(WAYS[0]);
  assertEquals([text, log.split(" ").filter((w) => w === "4ff0").length], ["RE", 15]);
  assertEquals(log.split(" ").filter((w) => w === "ff1").length, 4);
  for (const way of WAYS.slice(1)) {
    const other = await runReal(way);
    assertEquals([other.log, other.text, other.count], [log, text, count], named(way));
  }
});

for (const [name, look] of Object.entries(REAL_OBSERVERS)) {
  Deno.test(`real mode, ${name}: each hit is told once, and the guest sees nothing of it`, async () => {
    let first: string | undefined;
    for (const way of WAYS) {
      let told: readonly string[] = [];
      const seen = await runReal(way, async (dom) => told = await look(dom));
      assertEquals(seen, await runReal(way), named(way));
      first ??= told.join("\n");
      assert(told.length > 10, `${told.length} events`);
      assertEquals(told.join("\n"), first, named(way));
    }
  });
}
