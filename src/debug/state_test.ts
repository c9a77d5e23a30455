// Saved states: what is in them, what is refused, and what becomes of what was under way. More of it,
// and longer, is in tests/state.
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { demoGuest } from "../builder/demo.ts";
import { type Plain, RecordError } from "../machine/record.ts";
import { hostUnder, Hypervisor } from "./hypervisor.ts";
import { advance } from "./lockstep.ts";
import { seal, STATE_VERSION, unpackState } from "../xen/state_file.ts";
import type { Stop } from "./events/stop.ts";
import { GuestStopped } from "./waits.ts";
import { type Configuration, configurations, hostOf, kernel, virtual } from "./testing/hosts.ts";
import { everyExit } from "./testing/every_exit.ts";
import { lawAtEveryStop, Random, repacked, signature, standing } from "./testing/states.ts";

const title = ({ cpu, paging }: Configuration) => `${cpu}, ${paging}`;

for (const c of [virtual[0], virtual[3], configurations[4]]) {
  Deno.test(`save, run on, load, run on = run on, at every kind of stop (${title(c)})`, () =>
    lawAtEveryStop(c));
}

for (const c of virtual) {
  Deno.test(`a loaded exit can be answered as the one it was; old stops say why they cannot (${title(c)})`, async () => {
    await using one = await hostOf(c, kernel("mov eax, 1\nagain: cpuid\nmov esi, ebx\nhlt"));
    await using fresh = await hostOf(c, kernel("mov eax, 1\nagain: cpuid\nmov esi, ebx\nhlt"));
    const stop = await one.dom.until("cpuid");
    const saved = one.hv.save();
    one.hv.load(saved);
    assertThrows(() => stop.skip(), Error, "put into a saved state since; it can no longer be");
    for (const { hv, dom } of [one, fresh]) {
      hv.load(saved);
      const again = dom.stop as Stop & { leaf: number };
      assertEquals([again.kind, again.leaf, again.regs.rip], ["cpuid", 1, stop.regs.rip]);
      again.reply({ ebx: 0x1234 });
      // Answered, the exit is not there any more.
      const answered = hv.save();
      assertEquals((await dom.until("hlt")).regs.esi, 0x1234n);
      hv.load(answered);
      assertEquals(dom.stop, undefined);
      assertEquals((await dom.until("hlt")).regs.esi, 0x1234n);
      assertThrows(() => again.skip(), Error, "can no longer be answered");
    }
  });

  Deno.test(`what is armed shows in no saved state, and is there again after a load (${title(c)})`, async () => {
    await using one = await hostOf(c, everyExit(c.cpu));
    await using other = await hostOf(c, everyExit(c.cpu));
    for (const { dom } of [one, other]) advance(dom, 5000);
    const plain = one.hv.save();
    const armed = [
      other.dom.break("any", { all: true }, () => "continue"),
      other.dom.break("rdtsc", {}, () => "continue"),
      other.dom.break("execute", { address: 0x10_0100 }, () => "continue"),
      other.dom.break("watch", { address: 0x2b_0100, length: 16, read: true }, () => "continue"),
    ];
    assertEquals(other.hv.save(), plain);
    assertEquals(other.hv.stateHash(), one.hv.stateHash());
    other.hv.load(plain);
    await other.dom.until("rdtsc");
    assertEquals(armed.map((b) => b.hits > 0), [true, true, false, true]);
  });
}

/** Goes into compatibility mode from flat, unpaged code, and leaves at each CPUID from then on. */
const INTO_LONG_MODE = `
  mov dword [0x300000], 0x301003
  mov dword [0x301000], 0x302003
  mov dword [0x302000], 0x83
  mov eax, cr4
  or eax, 0x20
  mov cr4, eax
  mov eax, 0x300000
  mov cr3, eax
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x100
  wrmsr
  mov eax, cr0
  or eax, 0x80000000
  mov cr0, eax
again:
  xor eax, eax
  cpuid
  jmp again`;

for (const c of configurations) {
  Deno.test(`what the processor had while the guest was in another mode is not in its states (${title(c)})`, async () => {
    await using one = await hostOf(c, kernel(INTO_LONG_MODE));
    await using fresh = await hostOf(c, kernel(INTO_LONG_MODE));
    advance(one.dom, 30);
    assertEquals(one.dom.vcpus[0].regs.efer & 0x500n, 0x500n);
    fresh.hv.load(one.hv.save());
    for (const { dom } of [one, fresh]) advance(dom, 40);
    assertEquals(one.hv.diff(one.hv.save(), fresh.hv.save()).differences, []);
  });
}

/** Fields that seldom have another value. */
const SELDOM: readonly [block: string, path: string, value: unknown][] = [
  ["clock", "fruitless", 3],
  ["world", "guests", [[1, 0x1234]]],
  ["scheduler", "turns", 77],
  ["domain 1", "posts", [1, 2, 3]],
  ["domain 1", "allotment.usedInWindow", 12],
  ["domain 1 vcpu 0", "share.owed", 12],
  ["domain 1 vcpu 0", "runstate.time.offline", 12],
  ["domain 1 vcpu 0", "halted", true],
  ["domain 1 standing", "passing.0", true],
  ["domain 1 lapic0", "extInt", true],
  ["domain 1 com1", "fifo", [0x41, 0x142]],
  ["domain 1 vcpu 0 hvm", "window", true],
  ["domain 1 lapic0", "signals.nmi", 1],
  ["domain 1 lapic0", "signals.startup", 0x9a],
  ["domain 1 vcpu 0 hvm", "fruitless", 5],
  ["domain 1 vcpu 0 hvm", "msrs", [[0x3b, 7n]]],
  ["processor", "registers.pendingDebug", 1n],
  ["processor", "registers.pendingNmi", 1],
  ["processor", "registers.interruptibility", 2],
];
for (const c of configurations) {
  Deno.test(`a field with a value that it seldom has is taken, and saved again (${title(c)})`, async () => {
    await using one = await hostOf(c, everyExit(c.cpu));
    advance(one.dom, 9000);
    const { record, frames, data } = unpackState(one.hv.save());
    let taken = 0;
    for (const [block, path, value] of SELDOM) {
      const copy = structuredClone(record) as Record<string, { record: unknown }>;
      const keys = path.split("."), last = keys.pop()!;
      let holder = copy[block]?.record as Record<string, unknown> | undefined;
      for (const key of keys) holder = holder?.[key] as Record<string, unknown> | undefined;
      // A bare guest's are the processor's, another's the vCPU's.
      if (holder === undefined) continue;
      assert(Object.hasOwn(holder, last), `${block} has no ${path}`);
      holder[last] = value;
      const state = repacked(copy as Plain, frames, data);
      one.hv.load(state);
      assertEquals(one.hv.save(), state, `${block} ${path}`);
      taken++;
    }
    assert(taken >= 12, `${taken} taken`);
  });
}

for (const c of configurations) {
  Deno.test(`a state in which a domain that is not paused has something to do is refused (${title(c)})`, async () => {
    await using host = await standing(c);
    const { hv } = host,
      before = signature(host),
      { record, frames, data } = unpackState(hv.save());
    const copy = structuredClone(record) as Record<string, { record: { blocked: boolean } }>;
    copy["domain 1 place"].record.blocked = true;
    assertThrows(
      () => hv.load(repacked(copy as unknown as Plain, frames, data)),
      RecordError,
      "domain 1 place: blocked is true, and the state of its vCPU 0 is runn",
    );
    assertEquals(signature(host), before);
  });
}

Deno.test("a state with a frame of a domain that there is not is refused by the block's name", async () => {
  await using host = await standing(virtual[0]);
  const { record, frames, data } = unpackState(host.hv.save());
  const copy = structuredClone(record) as Record<string, { record: { owners: Uint8Array } }>;
  const { owners } = copy.frames.record;
  new DataView(owners.buffer, owners.byteOffset).setInt16(2 * 0x281, 64, true);
  assertThrows(
    () => host.hv.load(repacked(copy as unknown as Plain, frames, data)),
    RecordError,
    "frames: 0x281 is domain 64's: none is here",
  );
});

Deno.test("a load is refused, or ends with a reason, whatever is under way", async () => {
  await using busy = await hostOf(virtual[0], kernel("again: jmp again"));
  const before = busy.hv.save(), endless = busy.dom.continue();
  assertThrows(() => busy.hv.load(before), Error, "load: domain guest is running; pause it first");
  assertThrows(() => busy.hv.save(), Error, "save: domain guest is running; pause it first");
  busy.dom.pause();
  busy.hv.load(before);
  assertEquals((await assertRejects(() => endless, GuestStopped)).reason, "loaded");

  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains, saved = hv.save();
  const running = dom.until("execute", { address: "divide" });
  dom.pause();
  hv.load(saved);
  assertEquals((await assertRejects(() => running, GuestStopped)).reason, "loaded");
  // Somebody waits for another's run.
  const waiting = dom.wait("execute", { address: "timer" });
  hv.load(saved);
  const reason = await assertRejects(() => waiting, GuestStopped, "was put into a saved state");
  assertEquals(reason.reason, "loaded");
  assertEquals(dom.breakpoints, []);
  // An action that has not ended goes on nowhere.
  let end = () => {};
  const b = dom.break("execute", { address: "timer" }, async (stop) => {
    await new Promise<void>((resolve) => end = resolve);
    return stop.continue();
  });
  const acting = dom.continue();
  for (let n = 0; n < 50 && dom.state !== "paused"; n++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  hv.load(saved);
  assertEquals((await assertRejects(() => acting, GuestStopped)).reason, "loaded");
  end();
  await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals([dom.state, dom.statistics().instructions], ["paused", 0]);
  b.delete();
  // From within a turn.
  const within: unknown[] = [];
  dom.trace("execute", { address: "put_char" }, () => {
    for (const what of [() => hv.load(saved), () => hv.save()]) {
      try {
        what();
      } catch (error) {
        within.push((error as Error).message.slice(0, 4));
      }
    }
  });
  await dom.until("execute", { address: "timer" });
  assertEquals(new Set(within), new Set(["load", "save"]));
  await assertRejects(() => dom.until("execute", { address: "nosuch" }), Error);
});

for (const c of configurations) {
  Deno.test(`every changed byte, cut and addition is refused, and changes nothing (${c.cpu}, ${c.paging})`, async () => {
    await using host = await standing(c);
    const { hv } = host, state = hv.save(), before = signature(host), random = new Random(7);
    const refused = (bytes: Uint8Array, what: string) => {
      const error = assertThrows(() => hv.load(bytes), RecordError, "");
      assertMatch(error.message, /damaged|of version|no saved state|another configuration/, what);
    };
    for (let n = 0; n < 300; n++) {
      const bytes = state.slice(), at = n < 24 ? n : random.below(state.length);
      bytes[at] ^= 1 << random.below(8);
      refused(bytes, `byte ${at}`);
      if (n % 50 === 0) assertEquals(signature(host), before);
    }
    for (let n = 0; n < 60; n++) {
      refused(state.slice(0, n < 30 ? n : random.below(state.length)), "cut");
    }
    refused(new Uint8Array([...state, 0]), "longer");
    refused(new Uint8Array([...state, ...state.slice(-4096)]), "a frame more");
    const swapped = state.slice();
    swapped.set(state.subarray(state.length - 4096), state.length - 8192);
    refused(swapped, "frames swapped");
    assertEquals(signature(host), before);
    assertEquals(hv.save(), state);
    assertThrows(() => hv.load("text" as never), TypeError, "the bytes of a saved host");
  });
}

Deno.test("a state of another host or domain is refused by what differs", async () => {
  const image = demoGuest().image;
  const make = async (host: object = {}, ...domains: object[]) => {
    const hv = await Hypervisor.start({ memory: "48M", ...host });
    for (const more of domains.length ? domains : [{}]) {
      await hv.createDomain({ name: "a", kernel: image, memory: "8M", ...more });
    }
    return hv;
  };
  await using hv = await make();
  const before = hv.save();
  const others: [Promise<Hypervisor>, string][] = [
    [make({ cpu: "amd" }), "host has cpu amd there, and intel here"],
    [make({ memory: "64M" }), "host has memory 67108864 there, and 50331648 here"],
    [make({ seed: 9 }), "host has seed 9 there, and 1 here"],
    [make({ unixTime: 5 }), "host has unixTime 5 there"],
    [make({}, {}, { name: "b" }), 'host has domains 1 "a", 2 "b" there, and 1 "a" here'],
    [make({}, { name: "b" }), 'host has domains 1 "b" there, and 1 "a" here'],
    [make({}, { memory: "9M" }), "domain 1 has memory 9437184 there, and 8388608 here"],
    [make({}, { paging: "shadow" }), "domain 1 vcpu 0 hvm has paging shadow there, and hap here"],
    [make({}, { cpuid: "common" }), "domain 1 has cpuid common there, and intel here"],
  ];
  for (const [making, text] of others) {
    await using other = await making;
    assertThrows(() => hv.load(other.save()), RecordError, text);
    assertEquals(hv.save(), before);
  }
  const older = before.slice();
  new DataView(older.buffer).setUint32(8, 1, true);
  assertThrows(
    () => hv.load(seal(older)),
    RecordError,
    `the saved state is of version 1; this xvm reads version ${STATE_VERSION}`,
  );
  // The same domain, made later on the same host, lies elsewhere.
  await using later = await make({}, {}, { name: "b" });
  later.domains[0].destroy();
  assertThrows(() => later.load(before), RecordError, "another configuration");
  const [dom] = hv.domains;
  dom.console.write("q");
  await dom.continue();
  assertThrows(() => hv.load(before), RecordError, "has ended no there, and poweroff");
});

Deno.test("what a saved domain costs: frames in use, and little more", async () => {
  await using hv = await Hypervisor.start({ memory: "640M" });
  await hv.createDomain({ name: "a", kernel: demoGuest().image, memory: "512M" });
  const state = hv.save();
  const { frames } = unpackState(state);
  // Nested tables for 512 MB are 1 MB; a guest frame that was never written is not there.
  assert(frames.length < 400, `${frames.length} frames`);
  assert(state.length - 4096 * frames.length < 4 * 2 ** 20, `${state.length} bytes`);
  hv.load(state);
  assertEquals(hv.save(), state);
});

Deno.test("a guest with nothing predecoded gets somewhere, though the host wants its thread at once", async () => {
  for (const c of configurations) {
    await using host = await hostOf(c, everyExit(c.cpu));
    const { hv, dom } = host;
    advance(dom, 30_000);
    const saved = hv.save();
    hostUnder(hv).attention = { due: () => true, begin: () => {}, end: () => {} };
    hv.load(saved);
    const before = dom.statistics().instructions;
    await dom.vcpus[0].step(20);
    assertEquals(dom.statistics().instructions - before, 20, title(c));
  }
});
