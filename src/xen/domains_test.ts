import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { demoGuest } from "../builder/demo.ts";
import { hvmOps } from "../hvm/vendors.ts";
import { kernel } from "../debug/testing/hosts.ts";
import { randomSlices } from "./testing_slices.ts";
import { type GuestDomain, subjectOf } from "../debug/domain.ts";
import { hostUnder, Hypervisor } from "../debug/hypervisor.ts";
import { PLACE, registers, switchGuest } from "../debug/testing/switch.ts";

/** Counts in memory at 200000h. */
const COUNTER = kernel("again: inc dword [0x200000]\njmp again");
const counted = (dom: GuestDomain) =>
  new DataView(dom.memory.read(0x200000, 4).buffer).getUint32(0, true);

/** Vendors whose extensions have a function table. */
const VENDORS = (["intel", "amd"] as const).filter((cpu) => {
  try {
    return hvmOps(cpu);
  } catch {
    return false;
  }
});

const start = (more: object = {}) => Hypervisor.start({ memory: "96M", ...more });
const create = (hv: Hypervisor, name: string, image: Uint8Array, more: object = {}) =>
  hv.createDomain({ name, kernel: image, memory: "16M", ...more });

/** Gives the processor away until so much machine time (ns) has passed. */
function run(hv: Hypervisor, time: number): void {
  const host = hostUnder(hv), end = host.machine.cpu.now + time;
  for (const d of hv.domains) subjectOf(d).inner.resume();
  while (host.machine.cpu.now < end) {
    if (!host.runOnce(end - host.machine.cpu.now) && !host.idle()) return;
  }
}

Deno.test("domains share the processor by their weights", async () => {
  const cases = [[256, 512], [100, 900]] as const;
  for (const [a, b] of cases) {
    await using hv = await start();
    const one = await create(hv, "one", COUNTER, { weight: a });
    const two = await create(hv, "two", COUNTER, { weight: b });
    run(hv, 20e6);
    const share = one.statistics().instructions /
      (one.statistics().instructions + two.statistics().instructions);
    const wanted = a / (a + b);
    assert(Math.abs(share - wanted) < 0.01 + wanted / 50, `${a}:${b} gave ${share}`);
    assertEquals(one.statistics().instructions + two.statistics().instructions, 20_000_000);
    assertEquals(Math.round(1e9 * (one.cpuShare + two.cpuShare)) / 1e9, 1);
  }
});

Deno.test("a weight takes effect when it is changed, and no other than one to 65535", async () => {
  await using hv = await start();
  const one = await create(hv, "one", COUNTER), two = await create(hv, "two", COUNTER);
  assertEquals([one.weight, one.cap], [256, 0]);
  one.weight = 768;
  run(hv, 40e6);
  const [a, b] = [one, two].map((d) => d.statistics().instructions);
  assert(Math.abs(a / b - 3) < 0.1, `${a} : ${b}`);
  for (const wrong of [0, 65536, 1.5, -1, NaN]) {
    assertThrows(() => one.weight = wrong, RangeError, "weight");
  }
  await assertRejects(() => create(hv, "x", COUNTER, { weight: 0 }), RangeError, "1 to 65535");
  await assertRejects(() => create(hv, "x", COUNTER, { cap: 101 }), RangeError, "cap");
  assertEquals(one.weight, 768);
});

Deno.test("a cap holds even when nobody else wants the processor", async () => {
  await using hv = await start();
  const one = await create(hv, "one", COUNTER, { cap: 30 });
  run(hv, 50e6);
  assert(Math.abs(one.cpuShare - 0.3) < 0.01, `${one.cpuShare}`);
  one.cap = 0;
  const before = one.statistics().instructions;
  run(hv, 10e6);
  assertEquals(one.statistics().instructions - before, 10e6);
});

Deno.test("a paused domain gets nothing and its time stands; the other gets all", async () => {
  await using hv = await start();
  const one = await create(hv, "one", COUNTER), two = await create(hv, "two", COUNTER);
  run(hv, 10e6);
  one.pause();
  const [a, b] = [one.statistics(), two.statistics()];
  const host = hostUnder(hv);
  for (const end = subjectOf(two).inner.count + 10e6; subjectOf(two).inner.count < end;) {
    host.runOnce(end - subjectOf(two).inner.count);
  }
  assertEquals(one.statistics(), a);
  assertEquals(two.statistics().instructions - b.instructions, 10e6);
  const text = counted(one);
  subjectOf(one).inner.resume();
  run(hv, 10e6);
  assert(counted(one) > text);
});

Deno.test("a schedule repeats by its seed, and another seed gives another", async () => {
  const schedule = async (seed: number, weight = 256) => {
    await using hv = await start({ seed });
    await create(hv, "one", COUNTER, { weight });
    await create(hv, "two", COUNTER);
    const host = hostUnder(hv), turns: string[] = [];
    for (const d of hv.domains) subjectOf(d).inner.resume();
    for (let i = 0; i < 40; i++) {
      turns.push(`${host.runOnce(1e6)!.domain.id}@${host.machine.cpu.now}`);
    }
    return turns.join(" ");
  };
  const first = await schedule(1);
  assertEquals(await schedule(1), first);
  assert(await schedule(2) !== first);
  assert(await schedule(1, 512) !== first);
});

/** The demo guest brought to own positions, with what a person types on the way. */
async function positions(
  cpu: "intel" | "amd",
  neighbour: "none" | "busy" | "asleep" | "same" | "late",
  counts: readonly number[],
) {
  await using hv = await start({ cpu, memory: "128M" });
  const { image } = demoGuest();
  const dom = await create(hv, "demo", image);
  const beside = async () => {
    const other = neighbour === "busy" || neighbour === "late"
      ? COUNTER
      : neighbour === "none"
      ? undefined
      : image;
    if (!other) return;
    const d = await create(hv, "beside", other, { weight: 300 });
    d.unpause();
    if (neighbour === "asleep") d.console.write("c");
  };
  if (neighbour !== "late") await beside();
  const seen: string[] = [];
  const keys: Record<number, string> = { 9400: "c", 9500: "t", 9600: "m" };
  for (const count of counts) {
    await dom.vcpus[0].step(count - dom.statistics().instructions);
    const { instructions, time } = dom.statistics();
    seen.push(`${instructions} ${time} ${dom.stateHash()} ${dom.console.text.length}`);
    if (keys[count]) dom.console.write(keys[count]);
    if (count === 5000 && neighbour === "late") await beside();
  }
  return { seen, beside: hv.domains[1]?.statistics().instructions ?? 0 };
}

for (const cpu of VENDORS) {
  Deno.test(`a guest is the same at its own positions whoever runs beside it (${cpu})`, async () => {
    // Beside a busy one the guest's sleep takes real work: not so far there.
    const near = [1000, 5000, 9339, 9400, 9500, 9600];
    const far = [...near, 12_000, 50_000];
    const alone = await positions(cpu, "none", far);
    assertEquals(new Set(alone.seen.map((s) => s.split(" ")[2])).size, alone.seen.length);
    for (const neighbour of ["busy", "asleep", "same", "late"] as const) {
      const counts = neighbour === "busy" || neighbour === "late" ? near : far;
      const { seen, beside } = await positions(cpu, neighbour, counts);
      assertEquals(seen, alone.seen.slice(0, counts.length), neighbour);
      assert(beside > 10_000, `${neighbour}: the neighbour ran ${beside} instructions`);
    }
  });
}

Deno.test("a guest that waits stays where it is when it is paused and goes on", async () => {
  const run = async (pauses: boolean) => {
    await using hv = await start();
    const dom = await create(hv, "demo", demoGuest().image);
    hostUnder(hv).attention = randomSlices(1, 100);
    dom.unpause();
    await dom.console.shows("demo> ");
    for (let i = 0; i < 30; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (!pauses) continue;
      dom.pause();
      dom.unpause();
    }
    dom.pause();
    await dom.vcpus[0].step(400_000 - dom.statistics().instructions);
    return `${dom.statistics().time} ${dom.stateHash()}`;
  };
  assertEquals(await run(true), await run(false));
});

/** Frames in use that are nobody's, and those of the domains there are. */
function accounts(hv: Hypervisor) {
  const frames = hostUnder(hv).frames!;
  const owners = new Map<number, number>();
  for (const owner of frames.owners) owners.set(owner, (owners.get(owner) ?? 0) + 1);
  assertEquals(owners.get(0), frames.free);
  return { free: frames.free, owners: [...owners].sort().join(" ") };
}

for (const cpu of VENDORS) {
  Deno.test(`destroy gives back every frame, at whatever moment (${cpu})`, async () => {
    await using hv = await start({ cpu, memory: "128M" });
    const keeper = await create(hv, "keeper", COUNTER);
    keeper.unpause();
    const before = accounts(hv);
    const moments: [string, (dom: GuestDomain) => Promise<void> | void][] = [
      ["before its first instruction", () => {}],
      ["paused", async (dom) => void await dom.vcpus[0].step(9000)],
      ["running", (dom) => run(hv, 3e6 + dom.id)],
      ["asleep", async (dom) => {
        dom.unpause();
        await dom.console.shows("demo> ");
        await new Promise((resolve) => setImmediate(resolve));
      }],
      ["at a stop", async (dom) => void await dom.until("cpuid")],
      ["at an exit that waits for its device", async (dom) => {
        dom.ioreq.serve({ port: [0x3f8, 0x3ff] }, { read: () => new Promise(() => {}) });
        dom.unpause();
        while (!hostUnder(hv).vcpus.some((v) => v.engine.waiting)) {
          await new Promise((resolve) => setImmediate(resolve));
        }
      }],
      ["by its own device", async (dom) => {
        dom.ioreq.serve({ port: [0x3f8, 0x3ff] }, { read: () => 0x60, write: () => dom.destroy() });
        dom.unpause();
        await dom.ended;
      }],
      ["by its own trace", async (dom) => {
        dom.trace("io", {}, () => dom.destroy());
        dom.unpause();
        await dom.ended;
      }],
      ["after it powered off", async (dom) => {
        dom.unpause();
        await dom.console.shows("demo> ");
        dom.console.write("q");
        await dom.ended;
      }],
    ];
    for (const [moment, bring] of moments) {
      const dom = await create(hv, "demo", demoGuest().image);
      assert(accounts(hv).free < before.free - 4000, moment);
      await bring(dom);
      dom.destroy();
      // One that is destroyed from within its own turn is off the processor after it.
      await new Promise((resolve) => setImmediate(resolve));
      assertEquals(accounts(hv), before, moment);
      assertEquals(hv.domains.map((d) => d.name), ["keeper"], moment);
      assertEquals(dom.state, "destroyed");
    }
    const ran = counted(keeper);
    run(hv, 1e6);
    assert(counted(keeper) > ran, "the other domain runs on");
  });
}

Deno.test("destroy in the middle of an emulated instruction gives back every frame", async () => {
  await using hv = await start();
  // MMIO where there is no memory: the processor emulates the instruction.
  const code = kernel("again: mov eax, [0xd0000000]\nmov [0xd0000004], eax\njmp again");
  const keeper = await create(hv, "keeper", COUNTER);
  const before = accounts(hv);
  for (const how of ["read", "write", "late"] as const) {
    const dom = await create(hv, "device", code);
    let reads = 0;
    dom.ioreq.serve({ mmio: [0xd000_0000, 0xd000_0fff] }, {
      read: () => {
        if (how === "late" && reads > 3) return new Promise(() => {});
        if (++reads > 3 && how === "read") dom.destroy();
        return reads;
      },
      write: () => how === "write" && reads > 3 && dom.destroy(),
    });
    dom.unpause();
    const done = () => how === "late" ? reads > 3 : dom.state === "destroyed";
    for (const end = performance.now() + 5000; !done() && performance.now() < end;) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (how === "late") dom.destroy();
    assertEquals(dom.state, "destroyed", how);
    assertEquals(accounts(hv), before, how);
  }
  run(hv, 1e6);
  assert(counted(keeper) > 1000);
});

Deno.test("domains are made while others run, and a seeded storm of both leaves no frame behind", async () => {
  await using hv = await start({ memory: "192M" });
  const keeper = await create(hv, "keeper", COUNTER);
  keeper.unpause();
  const before = accounts(hv);
  let x = 12345;
  const random = (n: number) => (x = (Math.imul(x, 1103515245) + 12345) >>> 0) % n;
  const alive: GuestDomain[] = [];
  for (let i = 0; i < 60; i++) {
    if (alive.length < 4 && random(2)) {
      const dom = await create(hv, `d${i}`, random(2) ? demoGuest().image : COUNTER);
      if (random(4)) dom.unpause();
      alive.push(dom);
    } else if (alive.length && random(2)) {
      alive.splice(random(alive.length), 1)[0].destroy();
    } else if (alive.length) {
      const dom = alive[random(alive.length)];
      if (dom.state === "running") dom.pause();
      else if (dom.state === "paused") dom.unpause();
    }
    for (let n = random(4); n > 0; n--) await new Promise((resolve) => setImmediate(resolve));
  }
  for (const dom of alive) dom.destroy();
  assertEquals(accounts(hv), before);
  // It has gone on all the while, and does: how far it is by now is the event loop's affair.
  for (let n = 0; counted(keeper) <= 1e6 && n < 100_000; n++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert(counted(keeper) > 1e6);
});

Deno.test("what one domain's registers are can be asked in the middle of another's exit", async () => {
  await using hv = await start();
  const one = await create(hv, "one", kernel("mov ebx, 7\nagain: in al, 0x60\njmp again"));
  const two = await create(hv, "two", kernel("mov ebx, 9\nagain: inc ecx\njmp again"));
  two.unpause();
  const seen: bigint[] = [];
  one.trace("io", {}, () => {
    if (seen.length < 6) seen.push(two.vcpus[0].regs.rbx, one.vcpus[0].regs.rbx);
    else one.pause();
  });
  one.unpause();
  while (one.state === "running") await new Promise((resolve) => setImmediate(resolve));
  assertEquals(seen.slice(0, 4), [9n, 7n, 9n, 7n]);
});

Deno.test("save, load, save of several domains gives the same bytes, and the same schedule", async () => {
  await using hv = await start();
  await create(hv, "demo", demoGuest().image);
  await create(hv, "busy", COUNTER, { weight: 700, cap: 60 });
  run(hv, 5e6);
  for (const d of hv.domains) d.pause();
  const saved = hv.save();
  run(hv, 7e6);
  const after = [hv.stateHash(), ...hv.domains.map((d) => d.statistics().instructions)];
  for (const d of hv.domains) d.pause();
  hv.load(saved);
  assertEquals(hv.save(), saved);
  run(hv, 7e6);
  assertEquals(
    [hv.stateHash(), ...hv.domains.map((d) => d.statistics().instructions)],
    after,
  );
});

// --- what a switch has to keep apart ---

/**
 * Registers of the architecture that software sets and expects to find again (SDM 4 chapter 2, SDM 3
 * chapters 2 and 18, SDM 1 chapters 8, 10 and 13; APM 2 appendix A), with two values each. This list
 * stands by itself: it is made from the manuals, not from what the hypervisor switches.
 */
const MSRS: readonly (readonly [name: string, number: number, one: bigint, two: bigint])[] = [
  ["TSC_ADJUST", 0x3b, 0x1000n, 0x2000_0000_0000n],
  ["SYSENTER_CS", 0x174, 0x10n, 0x23n],
  ["SYSENTER_ESP", 0x175, 0xffff_8000_1234_5678n, 0x7fff_8765_4321n],
  ["SYSENTER_EIP", 0x176, 0xffff_ffff_8100_0000n, 0x7000_0000_0123n],
  ["MTRR_PHYSBASE0", 0x200, 0x8000_0006n, 0xc000_0000n],
  ["MTRR_PHYSMASK0", 0x201, 0x8000_0800n, 0xc000_0000n],
  ["MTRR_FIX64K_00000", 0x250, 0x0606_0606_0606_0606n, 0x0101_0101_0101_0101n],
  ["MTRR_FIX4K_F8000", 0x26f, 0x0505_0505_0505_0505n, 0x0404_0404_0404_0404n],
  ["PAT", 0x277, 0x0007_0406_0007_0406n, 0x0000_0100_0406_0105n],
  ["MTRR_DEF_TYPE", 0x2ff, 0xc06n, 0x800n],
  ["EFER", 0xc000_0080, 0x501n, 0xd00n],
  ["STAR", 0xc000_0081, 0x0023_0010_0000_1111n, 0x0033_0018_0000_2222n],
  ["LSTAR", 0xc000_0082, 0xffff_ffff_8120_0000n, 0x7f00_0000_0000n],
  ["CSTAR", 0xc000_0083, 0xffff_ffff_8130_0000n, 0x7f00_1000_0000n],
  ["SFMASK", 0xc000_0084, 0x4_7700n, 0x200n],
  ["FS_BASE", 0xc000_0100, 0x7f12_3456_7000n, 0xffff_8888_0000_0000n],
  ["GS_BASE", 0xc000_0101, 0x1111_2222_3000n, 0xffff_9999_0000_0000n],
  ["KERNEL_GS_BASE", 0xc000_0102, 0x2222_3333_4000n, 0xffff_aaaa_0000_0000n],
  ["TSC_AUX", 0xc000_0103, 0x17n, 0xffff_fff0n],
];
const XSAVE = 1 << 26, OSXSAVE = 0x4_0000n;
const REGISTERS: Readonly<Record<string, readonly [bigint, bigint]>> = {
  cr0: [0x8005_0033n, 0x8000_0013n],
  cr2: [0xffff_8000_dead_b000n, 0x1234_5000n],
  cr3: [BigInt(PLACE.tables), BigInt(PLACE.otherTop)],
  cr4: [0x620n, 0x6a4n],
  cr8: [3n, 11n],
  dr0: [0x7fff_1111_0000n, 0xffff_8111_0000_1000n],
  dr1: [0x7fff_2222_0000n, 0xffff_8222_0000_1000n],
  dr2: [0x7fff_3333_0000n, 0xffff_8333_0000_1000n],
  dr3: [0x7fff_4444_0000n, 0xffff_8444_0000_1000n],
  dr6: [0xffff_0ff0n, 0xffff_4ff1n],
  // Breakpoints on addresses where nothing is: on execution, and on writes.
  dr7: [0x401n, 0x0001_0402n],
  xcr0: [1n, 3n],
  rflags: [0x20_0046n, 0x4_0803n],
};
for (
  const [n, name] of "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split(" ")
    .entries()
) {
  (REGISTERS as Record<string, [bigint, bigint]>)[name] = [
    0x0101_0101_0101_0101n * BigInt(n + 1),
    0xfefe_fefe_fefe_fefen - 0x0101_0101_0101_0101n * BigInt(n),
  ];
}

/** An FXSAVE image (SDM 1 table 10-2) with every field of x87, MXCSR and the XMM registers set. */
function floatImage(which: 0 | 1, cpu: (typeof VENDORS)[number]): Uint8Array {
  const image = new Uint8Array(512), view = new DataView(image.buffer);
  // An exception is pending: else AMD's store no pointers.
  view.setUint16(0, which ? 0x27e : 0x37e, true);
  view.setUint16(2, which ? 0xb081 : 0x8881, true);
  image[4] = which ? 0xff : 0x7f;
  view.setUint16(6, which ? 0x123 : 0x456, true);
  view.setBigUint64(8, which ? 0x7fff_1234_5678n : 0x1111_2222n, true);
  view.setBigUint64(16, which ? 0x7fff_8765_4321n : 0x3333_4444n, true);
  view.setUint32(24, which ? 0x1f80 : 0x9fc1, true);
  view.setUint32(28, cpu === "amd" ? 0x2_ffff : 0xffff, true);
  for (let n = 0; n < 8; n++) {
    for (let i = 0; i < 8; i++) image[32 + 16 * n + i] = 0x80 | n << 4 | i + which;
    view.setUint16(32 + 16 * n + 8, which ? 0x4000 + n : 0xbfff - n, true);
  }
  for (let i = 0; i < 256; i++) image[160 + i] = which ? i : 255 - i;
  return image;
}

for (const cpu of VENDORS) {
  Deno.test(`two domains with different values in every register keep their own (${cpu})`, async () => {
    await using hv = await start({ cpu, memory: "64M" });
    const image = switchGuest();
    const doms: GuestDomain[] = [];
    let xsave = false;
    for (const which of [0, 1] as const) {
      const dom = await create(hv, `values ${which}`, image);
      xsave = (dom.cpuid.read(1).ecx & XSAVE) !== 0;
      const words: [number, bigint][] = MSRS.flatMap(([, number, ...values], n) => [
        [PLACE.msrs + 24 * n, BigInt(number)] as [number, bigint],
        [PLACE.msrs + 24 * n + 8, values[which]],
      ]);
      registers.forEach((name, n) => {
        const value = REGISTERS[name][which];
        words.push([PLACE.values + 8 * n, name === "cr4" && xsave ? value | OSXSAVE : value]);
      });
      for (const [address, value] of words) {
        const bytes = new Uint8Array(8);
        new DataView(bytes.buffer).setBigUint64(0, value, true);
        dom.memory.write(address, bytes);
      }
      dom.memory.write(PLACE.floatIn, floatImage(which, cpu));
      doms.push(dom);
    }
    const word = (dom: GuestDomain, address: number) =>
      new DataView(dom.memory.read(address, 8).buffer).getBigUint64(0, true);
    const check = (when: string) => {
      for (const [which, dom] of doms.entries()) {
        assert(word(dom, PLACE.rounds) > 3n, `${when}: ${word(dom, PLACE.rounds)} rounds`);
        for (const [n, [name, , ...values]] of MSRS.entries()) {
          assertEquals(word(dom, PLACE.msrs + 24 * n + 16), values[which], `${when}: ${name}`);
        }
        for (const [n, name] of registers.entries()) {
          if (name === "xcr0" && !xsave) continue;
          const wanted = REGISTERS[name][which] | (name === "cr4" && xsave ? OSXSAVE : 0n);
          assertEquals(word(dom, PLACE.read + 8 * n), wanted, `${when}: ${dom.name}: ${name}`);
        }
        const read = dom.memory.read(PLACE.floatOut, 416);
        const wanted = floatImage(which as 0 | 1, cpu).subarray(0, 416);
        assertEquals(read, wanted, `${when}: ${dom.name}: x87 and SSE`);
      }
    };
    // In turns of every length, so that a switch comes between any two instructions.
    for (const d of hv.domains) subjectOf(d).inner.resume();
    const { scheduler } = hostUnder(hv), { turnLength } = scheduler;
    let turn = 0;
    scheduler.turnLength = () => 1 + 7 * turn++ % 997;
    while (turn < 700) hostUnder(hv).runOnce(1e6);
    scheduler.turnLength = turnLength;
    check("after short turns");
    run(hv, 1e6);
    check("after long turns");
  });
}

Deno.test("domains without a name have different ones, whichever have gone", async () => {
  await using hv = await start();
  const names = async () => (await hv.createDomain({ kernel: COUNTER, memory: "4M" })).name;
  assertEquals([await names(), await names(), await names()], ["guest1", "guest2", "guest3"]);
  hv.domains[0].destroy();
  assertEquals(await names(), "guest4");
  hv.domains[0].destroy();
  hv.domains[0].destroy();
  assertEquals([await names(), await names()], ["guest2", "guest3"]);
});
