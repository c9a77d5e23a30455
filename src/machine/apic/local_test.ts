import { assert, assertEquals } from "@std/assert";
import { activity, checkSaveLoad, Random, runTo, TestContext } from "../../devices/testing.ts";
import { LocalApic } from "./local.ts";
import { ApicBus } from "./messages.ts";
import { highestBit, register, setBit } from "./registers.ts";

class Processor extends TestContext {
  readonly signals: string[] = [];
  changes = 0;
  changed(): void {
    this.changes++;
  }
  signal(kind: string): void {
    this.signals.push(kind);
  }
  /** A TSC of 2 GHz. */
  timeOfTsc(tsc: bigint): number {
    return Number((tsc + 1n) / 2n);
  }
}
function made(options: { id?: number; bus?: ApicBus } = {}) {
  const processor = new Processor();
  const apic = new LocalApic(processor, options);
  write(apic, register.svr, 0x1ff);
  return { processor, apic };
}
const at = (number: number) => 0xfee00000 + number * 16;
const read = (apic: LocalApic, number: number) => apic.mmioRead(at(number), 4);
const write = (apic: LocalApic, number: number, value: number) =>
  apic.mmioWrite(at(number), 4, value);

Deno.test("LocalApic delivers by priority: class above PPR only", () => {
  const { apic } = made();
  apic.accept(0x41, false);
  apic.accept(0x45, false);
  apic.accept(0x33, false);
  assertEquals(apic.acknowledge(), 0x45);
  assertEquals(read(apic, register.ppr), 0x40);
  assertEquals(apic.highestPending(), -1, "41h is in the class of what is served");
  apic.accept(0x50, false);
  assertEquals(apic.acknowledge(), 0x50);
  write(apic, register.eoi, 0);
  write(apic, register.eoi, 0);
  assertEquals(apic.acknowledge(), 0x41);
  write(apic, register.eoi, 0);
  write(apic, register.tpr, 0x30);
  assertEquals(apic.highestPending(), -1);
  assertEquals(apic.acknowledge(), 0xff, "the spurious vector");
  apic.cr8 = 2;
  assertEquals(read(apic, register.tpr), 0x20);
  assertEquals(apic.highestPending(), 0x33);
});

Deno.test("LocalApic shows IRR, ISR and TMR as registers", () => {
  const { apic } = made();
  apic.accept(0xff, true);
  apic.accept(0x20, false);
  assertEquals(read(apic, register.irr + 7), 0x80000000);
  assertEquals(read(apic, register.tmr + 7), 0x80000000);
  assertEquals(read(apic, register.irr + 1), 1);
  apic.acknowledge();
  assertEquals([read(apic, register.irr + 7), read(apic, register.isr + 7)], [0, 0x80000000]);
  const words = [0, 0, 0, 0, 0, 0, 0, 0];
  assertEquals(highestBit(words), -1);
  for (const vector of [0, 31, 32, 255]) {
    setBit(words, vector, true);
    assertEquals(highestBit(words), vector);
  }
});

Deno.test("LocalApic disabled by software refuses interrupts and masks the LVT", () => {
  const { apic } = made();
  write(apic, register.lvtTimer, 0x31);
  write(apic, register.svr, 0xff);
  assertEquals(read(apic, register.lvtTimer), 0x10031);
  write(apic, register.lvtTimer, 0x31);
  assertEquals(read(apic, register.lvtTimer), 0x10031);
  assert(!apic.accept(0x40, false));
});

Deno.test("LocalApic's timer counts once, at the divided clock", () => {
  const { apic, processor } = made();
  write(apic, register.divide, 0x3); // by 16: 160 ns
  write(apic, register.lvtTimer, 0x40);
  write(apic, register.initialCount, 1000);
  runTo(apic, processor, 80_000);
  assertEquals(read(apic, register.currentCount), 500);
  runTo(apic, processor, 159_999);
  assertEquals(apic.highestPending(), -1);
  runTo(apic, processor, 160_000);
  assertEquals(apic.acknowledge(), 0x40);
  runTo(apic, processor, 1e9);
  assertEquals(apic.highestPending(), -1);
  assertEquals(read(apic, register.currentCount), 0);
});

Deno.test("LocalApic's timer repeats, and counts on when masked", () => {
  const { apic, processor } = made();
  write(apic, register.divide, 0xb);
  write(apic, register.lvtTimer, 0x20040);
  write(apic, register.initialCount, 100); // 1 us
  let count = 0;
  while (apic.deadline() <= 10_000) {
    runTo(apic, processor, apic.deadline());
    assertEquals(apic.acknowledge(), 0x40);
    write(apic, register.eoi, 0);
    count++;
  }
  assertEquals(count, 10);
  write(apic, register.lvtTimer, 0x30040);
  assertEquals(apic.deadline(), Infinity);
  processor.time = 12_250;
  assertEquals(read(apic, register.currentCount), 75);
  write(apic, register.lvtTimer, 0x20040);
  assertEquals(apic.deadline(), 13_000);
  write(apic, register.divide, 0);
  assertEquals(read(apic, register.currentCount), 75, "another divisor goes on from here");
  assertEquals(apic.deadline(), 12_250 + 75 * 20);
  write(apic, register.initialCount, 0);
  assertEquals(apic.deadline(), Infinity);
});

Deno.test("LocalApic's timer has a TSC-deadline mode where there is a TSC", () => {
  const { apic, processor } = made();
  write(apic, register.lvtTimer, 0x40040);
  write(apic, register.initialCount, 5);
  assertEquals(apic.deadline(), Infinity, "ICR is ignored");
  assert(apic.writeMsr(0x6e0, 2_000n));
  assertEquals(apic.readMsr(0x6e0), 2_000n);
  runTo(apic, processor, 1_000);
  assertEquals(apic.acknowledge(), 0x40);
  assertEquals(apic.readMsr(0x6e0), 0n);
  write(apic, register.eoi, 0);
  apic.writeMsr(0x6e0, 10n);
  assertEquals(apic.acknowledge(), 0x40, "a deadline in the past fires at once");
  apic.writeMsr(0x6e0, 9_000n);
  write(apic, register.lvtTimer, 0x40);
  assertEquals(apic.deadline(), Infinity, "another mode disarms");
  const without = new LocalApic({ now: () => 0 });
  assertEquals(without.readMsr(0x6e0), undefined);
  write(without, register.lvtTimer, 0x40040);
  assertEquals(read(without, register.lvtTimer), 0x10040);
});

Deno.test("LocalApic goes on with its timer for its own MSRs, not for those of others", () => {
  const { apic, processor } = made();
  write(apic, register.lvtTimer, 0x40);
  write(apic, register.initialCount, 5);
  processor.time += 1_000_000;
  const state = structuredClone(apic.state);
  for (const other of [0x10, 0x1b, 0x277, 0x802]) apic.readMsr(other);
  assertEquals(apic.state, state);
  apic.readMsr(0x6e0);
  assertEquals(apic.highestPending(), 0x40);
});

Deno.test("LocalApic sends IPIs by id, logical flat and cluster, and shorthand", () => {
  const bus = new ApicBus();
  const all = [0, 1, 2].map((id) => made({ id, bus }));
  const got = () => all.map(({ apic }) => apic.highestPending() < 0 ? 0 : apic.acknowledge());
  const send = (low: number, destination = 0) => {
    write(all[0].apic, register.icrHigh, destination << 24);
    write(all[0].apic, register.icrLow, low);
    const vectors = got();
    for (const { apic } of all) write(apic, register.eoi, 0);
    return vectors;
  };
  assertEquals(send(0x40, 1), [0, 0x40, 0]);
  assertEquals(send(0x40, 0xff), [0x40, 0x40, 0x40]);
  assertEquals(send(0x40041), [0x41, 0, 0]);
  assertEquals(send(0x80041), [0x41, 0x41, 0x41]);
  assertEquals(send(0xc0041), [0, 0x41, 0x41]);
  all.forEach(({ apic }, i) => write(apic, register.ldr, 1 << 24 + i));
  assertEquals(send(0x840, 6), [0, 0x40, 0x40]);
  for (const { apic } of all) write(apic, register.dfr, 0x0fffffff);
  all.forEach(({ apic }, i) => write(apic, register.ldr, (i ? 0x21 : 0x11) << 24));
  assertEquals(send(0x840, 0x21), [0, 0x40, 0x40]);
  assertEquals(send(0x840, 0xf1), [0x40, 0x40, 0x40]);
  write(all[1].apic, register.tpr, 0x10);
  assertEquals(send(0x940, 0x21), [0, 0, 0x40], "lowest priority");
  assertEquals(read(all[0].apic, register.icrLow), 0x940);
});

Deno.test("LocalApic passes NMI, INIT and SIPI on, and INIT resets the target", () => {
  const bus = new ApicBus();
  const [one, two] = [0, 1].map((id) => made({ id, bus }));
  write(one.apic, register.icrHigh, 1 << 24);
  for (const low of [0x400, 0x4500, 0x8500, 0x609]) write(one.apic, register.icrLow, low);
  assertEquals(two.processor.signals, ["nmi", "init", "startup"]);
  assertEquals(two.apic.state.signals, { nmi: 0, init: true, startup: 9 });
  assertEquals(read(two.apic, register.svr), 0xff);
  assertEquals(two.apic.state.id, 1);
});

Deno.test("LocalApic sends no ExtINT and no reserved mode", () => {
  const { apic, processor } = made();
  for (const mode of [3, 7]) {
    for (const shorthand of [0, 1, 2]) {
      write(apic, register.icrLow, shorthand << 18 | mode << 8 | 0x40);
    }
  }
  assert(!apic.extInt);
  assertEquals([apic.highestPending(), processor.signals], [-1, []]);
});

Deno.test("LocalApic in virtual wire mode lets the 8259's INTR and NMI through", () => {
  const processor = new Processor();
  const apic = new LocalApic(processor);
  apic.setLint(0, true);
  assert(!apic.extInt, "masked after reset");
  apic.virtualWire();
  assert(apic.extInt);
  apic.setLint(1, true);
  assertEquals(processor.signals, ["nmi"]);
  write(apic, register.lvtLint0, 0x10700);
  assert(!apic.extInt);
  apic.writeMsr(0x1b, 0xfee00000n);
  assert(apic.extInt, "globally disabled: LINT0 is INTR");
});

Deno.test("LocalApic's LINT pins deliver fixed interrupts by edge and by level", () => {
  const { apic } = made();
  write(apic, register.lvtLint1, 0x41);
  apic.setLint(1, true);
  assertEquals(apic.acknowledge(), 0x41);
  write(apic, register.eoi, 0);
  assertEquals(apic.highestPending(), -1);
  write(apic, register.lvtLint0, 0x8042);
  apic.setLint(0, true);
  assertEquals(read(apic, register.lvtLint0), 0xc042, "remote IRR");
  assertEquals(apic.acknowledge(), 0x42);
  write(apic, register.eoi, 0);
  assertEquals(apic.acknowledge(), 0x42, "still asserted");
  apic.setLint(0, false);
  write(apic, register.eoi, 0);
  assertEquals(apic.highestPending(), -1);
});

Deno.test("LocalApic reports errors in ESR and by its LVT entry", () => {
  const { apic } = made();
  write(apic, register.lvtError, 0xfe);
  write(apic, register.icrLow, 0x40005);
  assertEquals(apic.acknowledge(), 0xfe);
  assertEquals(read(apic, register.esr), 0, "latched by a write");
  write(apic, register.esr, 0);
  assertEquals(read(apic, register.esr), 0x20);
  read(apic, 0x2a);
  apic.accept(3, false);
  write(apic, register.esr, 0);
  assertEquals(read(apic, register.esr), 0xc0);
});

Deno.test("LocalApic: the error entry's own vector can be an illegal one, which is a further error", () => {
  const { apic } = made();
  write(apic, register.lvtError, 0xf);
  write(apic, register.icrLow, 0xf);
  write(apic, register.esr, 0);
  assertEquals([read(apic, register.esr), apic.highestPending()], [0x60, -1]);
  // Masked, it sends nothing.
  write(apic, register.lvtError, 0x1_000f);
  write(apic, register.icrLow, 0xf);
  write(apic, register.esr, 0);
  assertEquals(read(apic, register.esr), 0x20);
});

Deno.test("LocalApic in x2APIC mode is reached by MSRs, and only there", () => {
  const bus = new ApicBus();
  const { apic } = made({ id: 0x25, bus });
  assertEquals(apic.readMsr(0x802), undefined, "#GP outside x2APIC mode");
  assert(!apic.writeMsr(0x1b, 0xfee00400n), "EXTD without EN");
  assert(apic.writeMsr(0x1b, 0xfee00c00n));
  assertEquals(apic.readMsr(0x1b), 0xfee00c00n);
  assert(!apic.writeMsr(0x1b, 0xfee00800n), "not back to xAPIC");
  assertEquals(apic.readMsr(0x802), 0x25n);
  assertEquals(apic.readMsr(0x80d), 0x20020n, "logical id from the id");
  assert(!apic.writeMsr(0x80d, 1n) && !apic.writeMsr(0x802, 1n), "read-only");
  assertEquals(apic.readMsr(0x80e), undefined, "no DFR");
  assert(!apic.writeMsr(0x808, 0x100n) && !apic.writeMsr(0x80b, 1n), "reserved bits");
  assert(apic.writeMsr(0x83f, 0x51n));
  assertEquals(apic.acknowledge(), 0x51);
  assert(apic.writeMsr(0x80b, 0n));
  assert(apic.writeMsr(0x830, 0x20020_00000852n));
  assertEquals(apic.acknowledge(), 0x52);
  assertEquals(apic.readMsr(0x830), 0x20020_00000852n);
  assert(!apic.writeMsr(0x830, 0x1000n));
  assert(apic.writeMsr(0x1b, 0xfee00000n));
  assertEquals(apic.highestPending(), -1);
  assert(!apic.writeMsr(0x1b, 0xfee00c00n), "from disabled only to xAPIC");
});

Deno.test("LocalApic forgets an id that software wrote in x2APIC mode, and when it is disabled", () => {
  const { apic } = made({ id: 5 });
  const written = () => {
    write(apic, register.id, 9 << 24);
    assertEquals(read(apic, register.id), 9 << 24);
  };
  written();
  apic.receive({ vector: 0, mode: 5, level: false, destination: 9, logical: false });
  assertEquals(read(apic, register.id), 9 << 24, "INIT keeps it");
  assert(apic.writeMsr(0x1b, 0xfee00c00n));
  assertEquals([apic.readMsr(0x802), apic.readMsr(0x80d)], [5n, 0x20n]);
  assert(apic.writeMsr(0x1b, 0xfee00000n));
  assert(apic.writeMsr(0x1b, 0xfee00800n));
  assertEquals(read(apic, register.id), 5 << 24);
  written();
  assert(apic.writeMsr(0x1b, 0xfee00000n));
  assert(apic.writeMsr(0x1b, 0xfee00800n));
  assertEquals(read(apic, register.id), 5 << 24);
});

Deno.test("LocalApic survives save and load", () => {
  const make = (context: TestContext) => {
    const processor = Object.assign(context, { timeOfTsc: (tsc: bigint) => Number(tsc % 10n) });
    const apic = new LocalApic(processor);
    apic.virtualWire();
    return apic;
  };
  const extra = (apic: LocalApic, random: Random) => {
    const kind = random.next(6);
    if (kind === 0) apic.accept(random.next(256), random.next(2) === 1);
    else if (kind === 1) apic.acknowledge();
    else if (kind === 2) apic.setLint(random.next(2) as 0 | 1, random.next(2) === 1);
    else if (kind === 3) apic.writeMsr(0x1b, BigInt([0xfee00800, 0xfee00000][random.next(2)]));
    else if (kind === 4) write(apic, register.svr, 0x100 | random.next(256));
    else write(apic, register.lvtTimer, random.next(0x80000));
  };
  checkSaveLoad(make, { rounds: 40, extra });
  const context = new TestContext();
  const apic = make(context);
  activity(apic, context, new Random(5), 3000, (random) => extra(apic, random));
  assert(apic.show().startsWith("lapic0: id"));
  assertEquals(Deno.inspect(apic), apic.show());
});
