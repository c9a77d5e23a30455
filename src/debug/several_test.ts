// Domains of several vCPUs under the debugger: whose stop it is, who runs meanwhile, and what is saved.
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { hostHash } from "../xen/state.ts";
import { assemble } from "../machine/isa/encode.ts";
import { type GuestDomain, subjectOf } from "./domain.ts";
import { advance } from "./lockstep.ts";
import { hostUnder, Hypervisor } from "./hypervisor.ts";
import { type Configuration, configurations, settle, virtual } from "./testing/hosts.ts";
import { COUNTS, severalOf } from "./testing/several.ts";
import type { GuestVcpu } from "./vcpu.ts";
import { GuestStopped } from "./waits.ts";

const WAYS = configurations.flatMap((c): [Configuration, cpus: number][] =>
  c.paging === "bare" ? [[c, 2]] : [[c, 1], [c, 2]]
);
/** With both vCPUs in their loops. */
async function both(c: Configuration, cpus: number) {
  const host = await severalOf(c, 2, { cpus }), { dom } = host;
  // By then neither is behind in its share.
  const own = () => dom.memory.u32(COUNTS.own);
  await dom.until("execute", { address: "work", vcpu: 1 }, () => own() > 150);
  return { ...host, vcpus: dom.vcpus as readonly [GuestVcpu, GuestVcpu] };
}
const instructions = (dom: GuestDomain) => dom.vcpus.map((vcpu) => vcpu.instructions);

for (const [c, cpus] of WAYS) {
  const name = `${c.cpu}, ${c.paging}, on ${cpus}`;

  Deno.test(`a breakpoint stops whichever vCPU comes there, or the one that it names (${name})`, async () => {
    await using host = await both(c, cpus);
    const { dom } = host, work = dom.symbols!.address("work"), seen = [0, 0];
    const b = dom.break("execute", { address: "work" });
    for (let n = 0; n < 12; n++) {
      const stop = await dom.continue();
      assert(stop?.kind === "execute");
      assertEquals([stop.regs.rip, stop.vcpu.regs.rip], [work, work]);
      assertEquals(dom.stop?.vcpu, stop.vcpu);
      seen[stop.vcpu.id]++;
    }
    assert(seen.every((n) => n > 2), `${seen}`);
    b.delete();
    for (const vcpu of [1, 0, 1, 1, 0]) {
      const stop = await dom.until("execute", { address: "count", vcpu });
      assertEquals([stop.vcpu.id, stop.vcpu.regs.ebx], [vcpu, BigInt(vcpu)]);
    }
  });

  Deno.test(`the end of a domain is that vCPU's which came to it (${name})`, async () => {
    await using host = await both(c, cpus);
    const { dom, vcpus: [, other] } = host;
    // No handler, and nothing at the place where it goes on.
    other.regs.idtr = { base: 0n, limit: 0 };
    other.regs.rip = 0xf000_0000n;
    const ended = await dom.tryUntil("execute", { address: 0x1234_0000n });
    assert(ended instanceof GuestStopped);
    assertEquals([ended.reason, ended.stop?.vcpu.id], ["crash", 1]);
  });

  if (cpus === 1) {
    Deno.test(`a switch between vCPUs makes nothing anew for those who look (${name})`, async () => {
      await using host = await both(c, cpus);
      const { dom, hv, vcpus } = host;
      const seen = [0, 0];
      dom.trace("execute", { address: "work", vcpu: 1 }, ({ vcpu }) => void seen[vcpu.id]++);
      dom.trace(
        "watch",
        { address: COUNTS.own, length: 4, vcpu: 0 },
        (x) => void seen[x.vcpu.id]++,
      );
      dom.break("rdtsc", { vcpu: 1 });
      await vcpus[0].step(2000);
      const { machine, domains: [domain] } = hostUnder(hv), made: Record<string, number> = {};
      const { cpu } = machine;
      const counted = <T extends object>(one: T, name: keyof T & string) => {
        const plain = one[name] as (...given: unknown[]) => unknown;
        made[name] = 0;
        one[name] = ((...given: unknown[]) => {
          made[name]++;
          return plain.apply(one, given);
        }) as T[typeof name];
      };
      counted(machine, "dropCode");
      counted(cpu, "flushTlb");
      for (const { engine } of domain.vcpus) {
        const shown = engine as unknown as { ops: { setIntercepts(): void } };
        shown.ops = { ...shown.ops };
        counted(shown.ops, "setIntercepts");
      }
      const before = instructions(dom);
      seen.fill(0);
      await vcpus[1].step(4000);
      assert(vcpus.every(({ instructions }, n) => instructions > before[n] + 100));
      assert(seen.every((n) => n > 100), `${seen}`);
      assertEquals(made, { dropCode: 0, flushTlb: 0, setIntercepts: 0 });
      const waits = assertRejects(() => dom.until("execute", { address: 0x1234 }));
      dom.destroy();
      await waits;
      assertEquals([cpu.marked, cpu.observers], [[], []]);
    });
  }

  Deno.test(`a watch says who wrote, and sees whom it names (${name})`, async () => {
    await using host = await both(c, cpus);
    const { dom } = host, all = { address: COUNTS.all, length: 4 };
    for (const vcpu of [0, 1]) {
      const own = await dom.until("watch", { address: COUNTS.own + 4 * vcpu, length: 4 });
      assertEquals([own.vcpu.id, own.value], [vcpu, own.old + 1n]);
      const named = await dom.until("watch", { ...all, vcpu });
      assertEquals([named.vcpu.id, named.value], [vcpu, named.old + 1n]);
    }
    const writers = new Set<number>();
    dom.trace("watch", all, ({ vcpu }) => void writers.add(vcpu.id));
    await dom.until("watch", { address: COUNTS.own, length: 4 }, {
      predicate: () => writers.size > 1,
    });
  });

  Deno.test(`a step is of its vCPU: others run, or stand (${name})`, async () => {
    await using host = await both(c, cpus);
    const { dom, vcpus } = host;
    for (const vcpu of [vcpus[1], vcpus[0], vcpus[1]]) {
      const other = vcpus[1 - vcpu.id];
      let before = instructions(dom);
      const stop = await vcpu.step(1000);
      assertEquals([stop.kind, stop.vcpu], ["step", vcpu]);
      assertEquals(vcpu.instructions - before[vcpu.id], 1000);
      assert(other.instructions > before[other.id]);
      before = instructions(dom);
      const { rip, eax } = other.regs;
      assertEquals((await vcpu.step(100, { others: "stand" })).vcpu, vcpu);
      assertEquals(vcpu.instructions - before[vcpu.id], 100);
      assertEquals([other.instructions, other.regs.rip, other.regs.eax], [
        before[other.id],
        rip,
        eax,
      ]);
    }
    const [one] = vcpus, call = dom.symbols!.address("again")!;
    await dom.until("execute", { address: "again", vcpu: 0 });
    const counts = () => [COUNTS.own, COUNTS.own + 4].map((at) => dom.memory.u32(at));
    const [own, others] = counts();
    await one.stepOver({ others: "stand" });
    assertEquals([one.regs.rip, ...counts()], [call + 5n, own + 1, others]);
    await one.step(2);
    assertEquals(one.regs.rip, dom.symbols!.address("work"));
    assertEquals((await one.stepOut()).vcpu, one);
    assertEquals(one.regs.rip, call + 5n);
    // A breakpoint of another vCPU ends it sooner.
    dom.break("execute", { address: "count", vcpu: 1 });
    const sooner = await one.step(10_000);
    assertEquals([sooner.kind, sooner.vcpu.id], ["execute", 1]);
    assert((await one.step(1, { others: "stand" })).vcpu === one);
  });

  Deno.test(`what was passed at one vCPU stops another all the same (${name})`, async () => {
    await using host = await both(c, cpus);
    const { dom, vcpus } = host, work = dom.symbols!.address("work")!;
    for (const vcpu of vcpus) {
      do await vcpu.step(1, { others: "stand" }); while (vcpu.regs.rip !== work);
    }
    dom.break("execute", { address: "work" });
    // Neither has moved when it is told of its own.
    const before = instructions(dom), first: (number | undefined)[] = [];
    for (let n = 0; n < 200 && !vcpus.every(({ id }) => first[id] !== undefined); n++) {
      const { vcpu } = (await dom.continue())!;
      first[vcpu.id] ??= vcpu.instructions;
    }
    assertEquals(first, before);
  });

  Deno.test(`saved at a stop of any vCPU and loaded, all goes on the same (${name})`, async () => {
    await using one = await both(c, cpus);
    await using other = await severalOf(c, 2, { cpus });
    const kinds = [
      ["execute", { address: "work" }],
      ["watch", { address: COUNTS.all, length: 4 }],
      ["step", {}],
      ...(c.paging === "bare" ? [] : [["cpuid", {}], ["any", {}]] as const),
    ] as const;
    const goOn = async ({ hv, dom }: typeof other) => {
      const places = [];
      for (const kind of ["execute", "step"] as const) {
        const filter = kind === "execute" ? { address: "work" } : {};
        const { vcpu, position } = await dom.until(kind, filter as { address: string });
        places.push([vcpu.id, position, instructions(dom), dom.stateHash(), hv.stateHash()]);
      }
      return places;
    };
    for (const [kind, filter] of kinds) {
      for (const vcpu of [0, 1, 1, 0]) {
        const { vcpu: { id } } = await one.dom.until(kind, { ...filter, vcpu } as never);
        assertEquals(id, vcpu);
        const saved = one.hv.save();
        other.hv.load(saved);
        assertEquals(other.hv.save(), saved);
        assertEquals(other.dom.vcpus[id].regs.rip, one.dom.vcpus[id].regs.rip);
        assertEquals(
          other.dom.stop?.vcpu.id,
          kind === "cpuid" || kind === "any" ? id : undefined,
        );
        assertEquals(await goOn(other), await goOn(one));
      }
    }
  });

  Deno.test(`who looks on changes nothing (${name})`, async () => {
    const run = async (observe: (dom: GuestDomain) => void) => {
      await using host = await severalOf(c, 3, { cpus: c.paging === "bare" ? 3 : cpus });
      const under = hostUnder(host.hv), [{ inner }] = under.domains.map((inner) => ({ inner }));
      observe(host.dom);
      inner.resume();
      while (under.now < 20_000 && under.runOnce(20_000 - under.now));
      return [hostHash(under), instructions(host.dom), host.dom.statistics().exits];
    };
    let seen = 0;
    const see = () => void seen++;
    const plain = await run(() => {});
    const looks: ((dom: GuestDomain) => void)[] = [
      (dom) => dom.trace("execute", { address: "work" }, see),
      (dom) => dom.trace("step", { vcpu: 1 }, see),
      (dom) => dom.trace("watch", { address: COUNTS.all, length: 4, read: true }, see),
      (dom) =>
        dom.trace(c.paging === "bare" ? "step" : "any", {}, ({ regs }) => {
          for (const vcpu of dom.vcpus) if (vcpu.regs.rip >= 0n) seen++;
          void regs;
        }),
    ];
    for (const look of looks) {
      seen = 0;
      assertEquals(await run(look), plain);
      assert(seen > 50, `${seen}`);
    }
  });
}

for (const c of configurations.filter(({ paging }) => paging !== "bare")) {
  Deno.test(`an exit is its vCPU's: result, answer and why (${c.cpu}, ${c.paging})`, async () => {
    await using host = await both(c, 1);
    const { dom, vcpus } = host;
    for (const vcpu of [1, 0, 1]) {
      const stop = await dom.until("cpuid", { leaf: 1, vcpu });
      assertEquals([stop.vcpu.id, stop.result.ebx >>> 24], [vcpu, vcpu]);
      assertMatch(vcpus[vcpu].why().text, /CPUID/i);
      stop.reply({ ecx: 0x1234 });
      assertEquals([vcpus[vcpu].regs.ecx, vcpus[vcpu].regs.ebx >> 24n], [0x1234n, BigInt(vcpu)]);
      await vcpus[vcpu].step(1, { others: "stand" });
      assertThrows(() => stop.reply({ ecx: 1 }), Error, "can no longer be answered");
    }
    dom.trace("cpuid", { vcpu: 0 }, () => {});
    await dom.until("execute", { address: "work", vcpu: 1 });
    for (const vcpu of vcpus) {
      assert(vcpu.history.every(({ kind }) => kind.length > 0));
      if (c.paging === "shadow") assert(vcpu.shadow!.tables.length >= 0);
    }
    assertEquals((await vcpus[1].stepExit()).vcpu.id, 1);
  });
}

for (const c of virtual) {
  Deno.test(`late answers to two vCPUs at a time are each one's own (${c.cpu}, ${c.paging})`, async () => {
    await using host = await both(c, 2);
    const { dom } = host, { inner: { vcpus } } = subjectOf(dom);
    const call = Number(dom.symbols!.address("again")), other = 0x9000, taken = 0x7200;
    dom.memory.write(
      other,
      assemble(
        `mov eax, 1
        cpuid
        shr ebx, 24
        mov dx, 0x500
        in eax, dx
        mov [ebx * 4 + ${taken}], eax
        ret`,
        { mode: 32 },
      ).bytes,
    );
    dom.memory.write(call + 1, new Uint8Array(Int32Array.of(other - call - 5).buffer));
    const answers: ((value: number) => void)[] = [];
    dom.ioreq.serve({ port: [0x500, 0x503] }, {
      read: () => new Promise<number>((resolve) => answers.push(resolve)),
    });
    const waiting = () => vcpus.filter(({ engine }) => engine.waiting);
    while (waiting().length < 1) assert(advance(dom, 20) > 0);
    const [{ id: first }] = waiting(), second = 1 - first;
    while (waiting().length < 2) assert(advance(dom, 20) > 0);
    const values = () => [first, second].map((id) => dom.memory.u32(taken + 4 * id));
    assertEquals([answers.length, values()], [2, [0, 0]]);
    answers[1](0x2222);
    await settle();
    advance(dom, 100);
    assertEquals([answers.length, values()], [3, [0, 0x2222]]);
    answers[0](0x1111);
    await settle();
    advance(dom, 100);
    assertEquals(values(), [0x1111, 0x2222]);
  });
}

Deno.test("a load ends a step that others stand for", async () => {
  await using host = await both({ cpu: "intel", paging: "hap" }, 2);
  const { inner } = subjectOf(host.dom), saved = host.hv.save();
  inner.runOnly(inner.vcpus[1]);
  host.hv.load(saved);
  assertEquals(inner.only, undefined);
  const before = instructions(host.dom);
  advance(host.dom, 3000);
  assert(instructions(host.dom).every((n, id) => n > before[id]));
});

Deno.test("a state goes into a host with as many processors, and domains with as many vCPUs, and no other", async () => {
  const c = { cpu: "intel", paging: "hap" } as const;
  const saved = async (vcpus: number, cpus: number) => {
    await using host = await severalOf(c, vcpus, { cpus });
    return host.hv.save();
  };
  await using host = await severalOf(c, 3, { cpus: 2 });
  const before = host.hv.stateHash();
  for (
    const [vcpus, cpus, what] of [[3, 1, "cpus"], [3, 3, "cpus"], [2, 2, "vcpus"], [
      4,
      2,
      "vcpus",
    ]] as const
  ) {
    const state = await saved(vcpus, cpus);
    const { message } = assertThrows(() => host.hv.load(state), Error);
    assertMatch(message, new RegExp(what));
    assertEquals(message.split("\n").length, 1);
    assertEquals(host.hv.stateHash(), before);
  }
});

Deno.test("a cap is percent of one processor, of all vCPUs together", async () => {
  const interleave = { min: 2000, max: 10_000 };
  await using host = await severalOf({ cpu: "intel", paging: "hap" }, 2, { cpus: 2, interleave });
  const { dom } = host, { inner } = subjectOf(dom), under = hostUnder(host.hv);
  const runTo = (time: number) => {
    inner.resume();
    while (under.now < time && (under.runOnce(time - under.now) || under.idle()));
    dom.pause();
  };
  const had = () => inner.vcpus.reduce((sum, { runstate }) => sum + runstate.time.running, 0);
  for (const cap of [50, 150]) {
    dom.cap = cap;
    // From the start of a window on.
    const start = Math.ceil(under.now / 10e6 + 1) * 10e6;
    runTo(start);
    const before = had();
    runTo(start + 10e6);
    const part = (had() - before) / 10e6;
    assert(Math.abs(part - cap / 100) < 0.02, `${part}`);
  }
  for (const cap of [201, -1, 1.5]) assertThrows(() => dom.cap = cap, RangeError, "200");
});

Deno.test("a vCPU that is not started up waits for the others, and says so where they stand", async () => {
  await using host = await severalOf({ cpu: "intel", paging: "hap" }, 2);
  const { dom } = host;
  assertEquals(dom.vcpus[1].runstate, "offline");
  const { message } = await assertRejects(() => dom.vcpus[1].step(1, { others: "stand" }), Error);
  assertEquals(message, "step: guest, vCPU 1 waits to be started up, and the others stand");
  assertEquals([dom.state, dom.vcpus[0].instructions], ["paused", 0]);
  await dom.vcpus[1].step();
  assertEquals([dom.vcpus[1].instructions, dom.vcpus[1].runstate], [1, "running"]);
  assert(dom.vcpus[0].instructions > 0);
});

Deno.test("a domain's vCPUs print as a table", async () => {
  await using host = await severalOf({ cpu: "intel", paging: "hap" }, 2, { cpus: 2 });
  const { dom } = host;
  await dom.until("execute", { address: "work", vcpu: 1 });
  assertMatch(
    Deno.inspect(dom.vcpus),
    /^vcpu +processor +state +rip +instructions\n +0 +0 +running +0x0010\w+ <\w+[^>]*> +[\d,]+\n +1 +1 +running +0x0010\w+ <work> +[\d,]+$/,
  );
  assertEquals(host.hv.cpus.map(({ id }) => id), [0, 1]);
  assert(host.hv.cpus.every(({ instructions }) => instructions > 0));
  assertEquals(dom.vcpus.map((vcpu) => vcpu.id), [0, 1]);
});

Deno.test("at a stop each vCPU says what it does beneath the pause", async () => {
  await using host = await severalOf({ cpu: "amd", paging: "hap" }, 3, { cpus: 2 });
  const { dom } = host, states = () => dom.vcpus.map(({ runstate }) => runstate);
  assertEquals(states(), ["runnable", "offline", "offline"]);
  for (const vcpu of [2, 0, 1, 2]) {
    await dom.until("execute", { address: "work", vcpu });
    const now = states(), other = 2 - vcpu;
    assertEquals(now[vcpu], "running");
    // 0 and 2 share a processor, and 1 has one for itself.
    assertEquals(now[1], "running");
    if (vcpu !== 1) assertEquals(now[other], "runnable");
  }
  await using demo = await Hypervisor.demo();
  const [{ vcpus: [vcpu] }] = demo.domains;
  const hlt = await demo.domains[0].until("hlt");
  assertEquals(vcpu.runstate, "running");
  await hlt.vcpu.step();
  assertEquals([vcpu.runstate, demo.schedule().at(-1)!.end], ["blocked", "wait"]);
});

Deno.test("lengths of turns are set at a stop, with a seed, and are part of a saved state", async () => {
  const c = { cpu: "intel", paging: "hap" } as const;
  for (const cpus of [1, 2]) {
    await using host = await severalOf(c, 2, { cpus });
    await using other = await severalOf(c, 2, { cpus, interleave: { min: 5000, max: 6000 } });
    const { hv, dom } = host;
    await dom.until("execute", { address: "work", vcpu: 1 });
    const from = hv.save();
    /** To the same place with another interleaving: where that is, and how long turns were at most. */
    const run = async (interleave: Hypervisor["interleave"], { hv, dom }: typeof host = host) => {
      hv.load(from);
      hv.interleave = interleave;
      const now = hv.save();
      let met = 0;
      await dom.until("execute", { address: "work" }, () => ++met > 200);
      const turns = hv.schedule({ last: 4096 }).slice(0, -1);
      const lengths = turns.map(({ instructions }) => instructions);
      return { now, hash: hv.stateHash(), longest: Math.max(...lengths), met };
    };
    const short = { min: 2, max: 5 }, one = await run({ ...short, seed: 1 });
    assertEquals(hv.interleave, short);
    assertEquals((await run({ ...short, seed: 1 })).hash, one.hash);
    assert((await run({ ...short, seed: 2 })).hash !== one.hash);
    assertEquals((await run({ ...short, seed: 1 }, other)).hash, one.hash);
    if (cpus === 1) assert(one.longest <= 5, `${one.longest}`);
    assert((await run({ min: 300, max: 400 })).longest > 250);
    // A saved state has them, whatever its host was started with.
    other.hv.interleave = { min: 7, max: 8 };
    other.hv.load(one.now);
    assertEquals(other.hv.interleave, short);
    assertEquals(other.hv.save(), one.now);
  }
});

Deno.test("lengths of turns that cannot be set are refused by one message each", async () => {
  await using hv = await Hypervisor.demo();
  const set = (interleave: unknown) => () => void (hv.interleave = interleave as never);
  assertThrows(set({ min: 0, max: 5 }), RangeError, "interleave min: a whole number from 1");
  assertThrows(set({ min: 6, max: 5 }), RangeError, "interleave: min up to max was expected");
  assertThrows(set({ max: 5 }), TypeError, "{ min, max }, both of them,");
  assertThrows(set({ min: 1, max: 5, seed: 1.5 }), RangeError, "interleave seed");
  hv.domains[0].unpause();
  assertThrows(
    set({ min: 1, max: 5 }),
    Error,
    "interleave: domain demo is running; pause it first",
  );
  hv.domains[0].pause();
  assertEquals(hv.interleave, { min: 2000, max: 10_000 });
  await using none = await Hypervisor.start();
  assertThrows(() => void (none.interleave = { min: 1, max: 2 }), Error, "there is no domain yet");
});

Deno.test("a host's schedule is that of those asked for, and prints as a table", async () => {
  await using host = await severalOf({ cpu: "intel", paging: "hap" }, 2);
  const { hv, dom } = host;
  assertEquals(Deno.inspect(hv.schedule()), "no turns yet");
  let met = 0;
  await dom.until("execute", { address: "work", vcpu: 1 }, () => ++met > 20);
  const all = hv.schedule({ last: 4096 }), total = hv.cpus[0].instructions;
  assertEquals(all.reduce((sum, { instructions }) => sum + instructions, 0), total);
  const last = all.at(-1)!;
  assertEquals([last.end, last.vcpu, last.rip], ["stop", 1, dom.symbols!.address("work")]);
  assertEquals([...hv.schedule()], all.slice(-40));
  assertEquals([...hv.schedule({ vcpu: 0, last: 7 })], all.filter((t) => t.vcpu === 0).slice(-7));
  assertEquals(hv.schedule({ processor: 1 }).length, 0);
  assertEquals(hv.schedule({ domain: dom.id, last: 4096 }).length, all.length);
  assertMatch(
    Deno.inspect(hv.schedule({ last: 2 })),
    /^the last 2 turns of \d+:\nfrom instruction +at +processor +vcpu +ran +until +then at\n +\d+ +0\.\d{9} s +0 +0 +\d+ +its length +0x0010\w+ <.+>\n +\d+ +0\.\d{9} s +0 +1 +\d+ +stop +0x0010\w+ <work>$/,
  );
  assertMatch(Deno.inspect(hv.schedule({ last: 4096 })), /woke vCPU 1/);
  // A step ends none: what goes on is the same turn.
  await dom.vcpus[1].step();
  assertEquals(hv.schedule({ last: 4096 }).length, all.length);
  const state = hv.save(), at = hv.cpus[0].instructions;
  hv.load(state);
  assertEquals(
    Deno.inspect(hv.schedule()),
    `a state was loaded at instruction ${at}: turns before it are not known`,
  );
  assertThrows(() => hv.schedule({ last: 0 }), RangeError, "schedule last: a whole number from 1");
  assertThrows(() => hv.schedule({ cpu: 1 } as never), TypeError, "schedule");
});

Deno.test("numbers of vCPUs and processors, and lengths of turns, are refused by one message each", async () => {
  const kernel = new Uint8Array(4096);
  const start = async (options: object, domain: object) => {
    await using hv = await Hypervisor.start(options);
    await hv.createDomain({ kernel, memory: "4M", name: "g", ...domain });
  };
  const range = (what: string, max: number, given: unknown) =>
    `${what}: a whole number from 1 to ${max} was expected, ${given} was given`;
  const wrong: [string, object, object][] = [
    ...[0, 17, 2.5, '"2.5"'].map((n): [string, object, object] => [
      range("createDomain vcpus", 16, n),
      {},
      { vcpus: typeof n === "string" ? "2.5" : n },
    ]),
    ...[0, 9, 1.5].map((n): [string, object, object] => [
      range("Hypervisor.start cpus", 8, n),
      { cpus: n },
      {},
    ]),
    [
      "domain g: 3 vCPUs were asked for, but a bare guest's are the host's: 2 processors",
      { cpus: 2 },
      { type: "bare", vcpus: 3 },
    ],
    [
      "domain g: 9 vCPUs were asked for, but a bare guest's are the host's processors, of which there are at most 8",
      {},
      { type: "bare", vcpus: 9 },
    ],
    [
      range("Hypervisor.start interleave min", 1_000_000, 0),
      { interleave: { min: 0, max: 5 } },
      {},
    ],
    [
      "Hypervisor.start interleave: min up to max was expected, { min: 6, max: 5 } was given",
      { interleave: { min: 6, max: 5 } },
      {},
    ],
    [
      "Hypervisor.start interleave: { min, max }, both of them, was expected, an object was given",
      { interleave: { max: 5 } },
      {},
    ],
  ];
  for (const [message, options, domain] of wrong) {
    assertEquals((await assertRejects(() => start(options, domain), Error)).message, message);
  }
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains;
  const none = "execute filter vcpu: domain demo has no vCPU 1; it has vCPU 0 alone";
  const ask = () => dom.break("execute", { address: "main", vcpu: 1 });
  assertEquals(assertThrows(ask, RangeError).message, none);
  assertThrows(() => dom.break("cpuid", { vcpu: 16 }), RangeError, "from 0 to 0xf");
  assertThrows(() => dom.break("cpuid", { vcpu: "1" as never }), TypeError, "vcpu: a whole number");
});
