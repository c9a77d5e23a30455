// Stepping and observing never change what a guest sees: the small guests of this repository under
// every way of looking on, on every processor, come to what they come to alone.
import { assert, assertEquals } from "@std/assert";
import { demoGuest } from "../../builder/demo.ts";
import { HvmEngine } from "../../xen/hvm.ts";
import { type GuestDomain, subjectOf } from "../domain.ts";
import { Hypervisor } from "../hypervisor.ts";
import { type Kind, kinds } from "../kinds.ts";
import { GuestStopped } from "../waits.ts";
import { configurations, hostOf, pressKeys, virtual } from "../testing/hosts.ts";
import { longRom } from "../testing/long_rom.ts";
import { debuggedRom, LOG, pagedRom, realRom } from "../testing/rom.ts";

type Configuration = typeof configurations[number];
const named = ({ cpu, paging }: Configuration) => `${cpu}, ${paging}`;

interface Guest {
  readonly image: Uint8Array;
  /** Where execution is looked at, and where steps begin and end. */
  readonly places: readonly bigint[];
  /** Linear addresses and lengths of what is watched. */
  readonly ranges: readonly (readonly [number, number])[];
  /** Gives it what it waits for. */
  readonly start?: (dom: GuestDomain) => void;
}

const long = longRom(), demo = demoGuest();
const at = (name: string) => demo.symbols.find((s) => s.name === name)!.address;
const MMIO = [0xfee00020, 0x70] as const;

const LONG: Guest = {
  image: long.image,
  places: ["mmio", "ins", "outs", "missing", "x1", "x2", "user", "service", "timed", "x3", "done"]
    .map((name) => long.labels.get(name)!),
  ranges: [[0x17f00, 0x100], [0x40000, 0x10], [0x42000, 8], [0x104280, 0x30], MMIO],
};
const DEMO: Guest = {
  image: demo.image,
  places: ["main", "answer", "divide", "print_hex", "timer", "serial", "page_fault", "power_off"]
    .map(at),
  ranges: [[Number(at("ticks")), 4], [Number(at("directory_a")), 4096], [Number(at("table")), 64]],
  start: (dom) => pressKeys(dom, "cfmdtq"),
};
const rom = ({ image }: { image: Uint8Array }): Guest => ({ image, places: [], ranges: [] });
const GUESTS: Readonly<Record<string, Guest>> = {
  "64 bits": LONG,
  "demo": DEMO,
  "32 bits": rom(debuggedRom()),
  "real mode": rom(realRom()),
};

/** Runs a guest to its end, by `drive` up to where that leaves it. */
async function run(
  guest: Guest,
  { cpu, paging }: Configuration,
  drive: (dom: GuestDomain) => unknown = () => {},
) {
  await using hv = await Hypervisor.start({ cpu, memory: "32M", seed: 1 });
  const dom = await hv.createDomain({
    ...paging === "bare" ? { type: "bare" } : { type: "hvm", paging },
    kernel: guest.image,
    memory: "4M",
  });
  guest.start?.(dom);
  await drive(dom);
  while (!subjectOf(dom).inner.ended) await dom.continue();
  const { count, time } = dom.vcpus[0].position;
  return { count, time, text: dom.console.text, hash: dom.stateHash() };
}

const unobserved = new Map<string, ReturnType<typeof run>>();
/** What it comes to alone. */
function runAlone(guest: Guest, way: Configuration): ReturnType<typeof run> {
  const key = `${Object.values(GUESTS).indexOf(guest)} ${named(way)}`;
  let result = unobserved.get(key);
  if (!result) unobserved.set(key, result = run(guest, way));
  return result;
}

/** Each gives how often it was told something. */
const OBSERVERS: Readonly<
  Record<string, (guest: Guest, dom: GuestDomain) => Promise<number> | (() => number)>
> = {
  "steps": (guest, dom) => steps(guest, dom, "step"),
  "steps over": (guest, dom) => steps(guest, dom, "stepOver"),
  async "breakpoints"({ places }, dom) {
    for (const address of places) dom.break("execute", { address });
    return await stops(dom);
  },
  async "watches"({ ranges }, dom) {
    for (const [address, length] of ranges) dom.break("watch", { address, length, read: true });
    return await stops(dom);
  },
  "pauses": ({ places }, dom) => {
    let told = 0;
    const pause = () => {
      told++;
      dom.pause();
    };
    for (const address of places) dom.trace("execute", { address }, pause);
    if (subjectOf(dom).inner.vcpus[0].engine instanceof HvmEngine) dom.trace("hlt", {}, pause);
    return () => told;
  },
  "traces": ({ places, ranges }, dom) => {
    let told = 0;
    const note = () => void told++;
    dom.trace("step", {}, note);
    for (const address of places) dom.trace("execute", { address }, note);
    for (const [address, length] of ranges) dom.trace("watch", { address, length }, note);
    return () => told;
  },
};

async function stops(dom: GuestDomain): Promise<number> {
  for (let n = 0;; n++) if ((await dom.continue())?.kind === "end") return n;
}

async function steps(guest: Guest, dom: GuestDomain, how: "step" | "stepOver"): Promise<number> {
  await dom.until("execute", { address: guest.places[0] });
  for (let n = 0;; n++) {
    if (n === 1500) return n;
    const stop = await dom.vcpus[0][how]().catch((error) => {
      assert(error instanceof GuestStopped, String(error));
    });
    if (!stop) return n;
  }
}

for (const name of ["64 bits", "demo"]) {
  for (const [how, look] of Object.entries(OBSERVERS)) {
    Deno.test(`${how} do not change what the guest comes to (${name})`, async () => {
      const guest = GUESTS[name];
      for (const way of configurations) {
        let told: number | (() => number) = 0;
        const seen = await run(guest, way, async (dom) => told = await look(guest, dom));
        assertEquals(seen, await runAlone(guest, way), named(way));
        const n = typeof told === "function" ? (told as () => number)() : told;
        assert(n > 10, `${named(way)}: ${n}`);
      }
    });
  }
}

Deno.test("with BTF only branches trap, and each trap ends it: on every processor, traced or not", async () => {
  const places = ["b1", "b2", "b3", "b4", "b5", "b6", "b7"];
  const names = new Map(places.map((name) => [Number(long.labels.get(name)), name]));
  for (const way of configurations) {
    for (const looks of way.paging === "bare" ? [false] : [false, true]) {
      await using host = await hostOf(way, LONG.image);
      const { dom } = host;
      if (looks) dom.trace("any", { all: true }, () => {});
      await dom.continue();
      const log = [], end = dom.memory.u32(LOG - 4096);
      for (let at = LOG; at < end; at += 16) log.push(dom.memory.u32(at + 4));
      const first = log.indexOf([...names.keys()][0]);
      assertEquals(log.slice(first, first + 7).map((rip) => names.get(rip)), places, named(way));
      // What the handler found of DEBUGCTL.
      assertEquals(dom.memory.u32(LOG - 4096 + 24), 0, named(way));
    }
  }
});

/** Every kind of exit that a domain's processor has. */
function kindsOf(dom: GuestDomain): readonly Kind[] {
  const { engine } = subjectOf(dom).inner.vcpus[0];
  assert(engine instanceof HvmEngine);
  const own: readonly string[] = engine.ops.exitKinds, shadowed = engine.shadow !== undefined;
  const there = kinds.filter((kind) => own.includes(kind) && (kind !== "shadow-write" || shadowed));
  return [...there, "mmio"];
}

const traced = new Set<string>();
for (const [name, guest] of Object.entries(GUESTS)) {
  Deno.test(`traces of every kind of exit do not change what the guest comes to (${name})`, async () => {
    for (const way of virtual) {
      const alone = await runAlone(guest, way), seen = new Set<Kind>();
      const all = (dom: GuestDomain) => {
        dom.trace("any", { all: true }, (s) => void seen.add(s.kind as Kind));
      };
      assertEquals(await run(guest, way, all), alone, `${named(way)}: any`);
      // Those that came one by one, each in the first guest that has it; the others together.
      const others = (dom: GuestDomain) => {
        for (const kind of kindsOf(dom)) if (!seen.has(kind)) dom.trace(kind, {}, () => {});
      };
      assertEquals(await run(guest, way, others), alone, `${named(way)}: the others`);
      assert(seen.size > 3, [...seen].join(" "));
      for (const kind of seen) {
        if (traced.has(`${named(way)} ${kind}`)) continue;
        traced.add(`${named(way)} ${kind}`);
        let told = 0;
        const one = (dom: GuestDomain) => void dom.trace(kind, {}, () => void told++);
        assertEquals(await run(guest, way, one), alone, `${named(way)}: ${kind}`);
        assert(told > 0, `${named(way)}: no ${kind}`);
      }
    }
  });
}

Deno.test("a watch of a frame sees what reaches into it from another page", async () => {
  const { image } = pagedRom(`
    mov dword [0x101140], 0x60003
    mov dword [0x101144], 0x70003
    mov eax, cr3
    mov cr3, eax
    mov dword [0x50ffe], 0x44332211
    mov eax, [0x50fff]
    mov al, 0
    out 0xf4, al`);
  for (const way of configurations) {
    await using host = await hostOf(way, image);
    const { dom } = host, told: unknown[] = [];
    dom.trace("watch", { address: 0x70000, length: 2, physical: true, read: true }, (s) => {
      told.push([s.write, s.address, s.physical, s.old, s.value]);
    });
    await dom.continue();
    assertEquals(told, [
      [true, 0x50ffen, 0x60ffen, 0n, 0x44332211n],
      [false, 0x50fffn, 0x60fffn, 0x443322n, 0x443322n],
    ], named(way));
  }
});

Deno.test("a page fault of an emulated instruction is shown as others are", async () => {
  for (const way of virtual) {
    await using host = await hostOf(way, LONG.image);
    const { dom } = host, told: unknown[] = [];
    dom.trace("exception", { vector: "#PF" }, (s) => {
      told.push([s.vcpu.regs.rip, s.address, s.errorCode]);
    });
    await dom.continue();
    // From a device to a page that is not there.
    assertEquals(told, [[long.labels.get("missing"), 0x60000n, 2]], named(way));
  }
});
