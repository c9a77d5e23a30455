// Save, run on, load, run on = run on: at every kind of stop, in place and on a fresh host.
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { demoGuest } from "../builder/demo.ts";
import type { GuestDomain } from "./domain.ts";
import { Hypervisor } from "./hypervisor.ts";
import type { Kind } from "./kinds.ts";
import { advance } from "./lockstep.ts";
import { GuestStopped, type Stop } from "./stop.ts";
import { type Configuration, configurations, hostOf, kernel, virtual } from "./testing.ts";
import { everyExit, everyExitKernel } from "./testing_every_exit.ts";

const title = ({ cpu, paging }: Configuration) => `${cpu}, ${paging}`;

/** Exits that this guest does not make, or that end it. */
const NOT_MADE = ["nmi", "preemption-timer", "tpr", "debug", "smi", "init", "rsm", "entry-failure"];
const NEVER = [...NOT_MADE, "triple-fault", "stopped", "unknown", "shadow-write", "invpcid"];

const label = ({ cpu }: Configuration, name: string): bigint =>
  BigInt(everyExitKernel(cpu).symbols.get(name)!);

/** Runs to a stop; it has to come soon. */
function runTo(dom: GuestDomain, kind: Kind, filter: object): void {
  const b = dom.break(kind, filter as never);
  advance(dom.inner, 300_000);
  b.delete();
  const is = kind === "mmio" ? ["mmio", "nested-page-fault"] : [kind];
  assert(dom.stop && is.includes(dom.stop.kind), `no stop of kind ${kind} came`);
}

/** What is to stop it, by kind of stop. */
function stopsOf(c: Configuration, dom: GuestDomain): [Kind, object][] {
  const everywhere: [Kind, object][] = [
    ["execute", { address: label(c, "registers") }],
    ["watch", { address: 0x2b_0805, length: 2 }],
    ["watch", { address: 0x2b_0100, read: true, write: false }],
    ["step", {}],
  ];
  if (c.paging === "bare") return everywhere;
  const { monitor: { engine } } = dom.debugger_;
  if (!("ops" in engine)) throw new Error("a hardware virtual machine was expected");
  const kinds = engine.ops.exitKinds.filter((kind) => !NEVER.includes(kind));
  return [
    ...everywhere,
    ...kinds.map((kind): [Kind, object] => [kind as Kind, {}]),
    ["mmio", {}],
    ["mmio", { write: true }],
    ["io", { string: true, write: false }],
    ["io", { string: true, write: true }],
    ["exception", { vector: 1 }],
    ["exception", { vector: 14 }],
    ["cr", { cr: 0, write: true }],
    ["cr", { cr: 4, write: true }],
    ...(c.paging === "shadow" ? [["shadow-write", {}] as [Kind, object]] : []),
  ];
}

/** All that the law speaks of, at some positions from here on. */
function runOn(hv: Hypervisor, text: () => string, positions = [1, 1, 3, 60, 2500]): string[] {
  const [dom] = hv.domains;
  const look = () => {
    const { instructions, time, exits } = dom.statistics();
    return `${instructions} ${time} ${dom.stateHash()} ${hv.stateHash()} ${text()} ` +
      `${dom.blocked} ${JSON.stringify(Object.entries(exits).sort())}`;
  };
  return [
    look(),
    ...positions.map((n) => {
      advance(dom.inner, n);
      return look();
    }),
  ];
}

/** What a domain prints, since it was last asked. */
function printed(dom: GuestDomain): () => string {
  let text = "";
  dom.console.onOutput((more) => text += more);
  return () => {
    const all = text;
    text = "";
    return all;
  };
}

for (const c of configurations) {
  Deno.test(`save, run on, load, run on = run on, at every kind of stop (${title(c)})`, async () => {
    await using one = await hostOf(c, everyExit(c.cpu));
    await using fresh = await hostOf(c, everyExit(c.cpu));
    await using never = await hostOf(c, everyExit(c.cpu));
    const text = [one, fresh, never].map(({ dom }) => printed(dom));
    for (const { dom } of [one, never]) advance(dom.inner, 30_000);
    for (const [kind, filter] of stopsOf(c, one.dom)) {
      const where = `${kind} ${Object.keys(filter)}`;
      const bring = async (dom: GuestDomain) => {
        if (kind === "step") await dom.vcpus[0].step(7);
        else runTo(dom, kind, filter);
      };
      await bring(one.dom);
      await bring(never.dom);
      text.forEach((t) => t());
      const saved = one.hv.save();
      assertEquals(one.hv.save(), saved, where);
      const first = runOn(one.hv, text[0]);
      one.hv.load(saved);
      assertEquals(one.hv.save(), saved, where);
      text[0]();
      assertEquals(runOn(one.hv, text[0]), first, where);
      fresh.hv.load(saved);
      assertEquals(fresh.hv.save(), saved, where);
      assertEquals(runOn(fresh.hv, text[1]), first, where);
      assertEquals(runOn(never.hv, text[2]), first, where);
    }
  });

  Deno.test(`save, run on, load, run on = run on, wherever it was paused (${title(c)})`, async () => {
    await using one = await hostOf(c, everyExit(c.cpu));
    await using fresh = await hostOf(c, everyExit(c.cpu));
    const text = [one, fresh].map(({ dom }) => printed(dom));
    let x = 2026;
    const random = (n: number) => (x = (Math.imul(x, 1103515245) + 12345) >>> 0) % n;
    let halted = 0;
    for (let n = 0; n < 60; n++) {
      advance(one.dom.inner, 1 + random(n % 2 ? 30 : 5000));
      halted += +one.dom.inner.halted;
      text.forEach((t) => t());
      const saved = one.hv.save();
      const first = runOn(one.hv, text[0], [1, 40, 1500]);
      fresh.hv.load(saved);
      assertEquals(runOn(fresh.hv, text[1], [1, 40, 1500]), first, `${n}`);
      if (n % 3) continue;
      one.hv.load(saved);
      text[0]();
      assertEquals(runOn(one.hv, text[0], [1, 40, 1500]), first, `${n}`);
    }
    // In HLT, with the timer still to come, too.
    for (let n = 0; n < 40 && !one.dom.inner.halted; n++) {
      while (one.dom.vcpus[0].disassemble(undefined, 1)[0].text !== "hlt") {
        advance(one.dom.inner, 1);
      }
      one.dom.inner.resume();
      one.hv.host.runOnce(100);
      one.dom.pause();
    }
    assert(one.dom.inner.halted);
    const saved = one.hv.save(), first = runOn(one.hv, text[0]);
    fresh.hv.load(saved);
    text[1]();
    assertEquals(
      runOn(fresh.hv, text[1]).map((l) => l.slice(0, 60)),
      first.map((l) => l.slice(0, 60)),
    );
  });

  Deno.test(`breakpoints stay and are reached as they would have been (${title(c)})`, async () => {
    const arm = (dom: GuestDomain) => {
      dom.break("execute", { address: label(c, "strings") });
      dom.break("execute", { address: label(c, "registers") });
      dom.break("watch", { address: 0x2b_0810, length: 4 });
      if (c.paging === "bare") return;
      dom.break("cpuid", {});
      dom.break("rdtsc", {});
      dom.break("msr", { msr: 0x277 });
      dom.break("exception", { vector: 14 });
      dom.break("cr", { cr: 4 });
    };
    await using one = await hostOf(c, everyExit(c.cpu));
    await using fresh = await hostOf(c, everyExit(c.cpu));
    arm(one.dom);
    arm(fresh.dom);
    const next = async ({ dom }: { dom: GuestDomain }) => {
      const stop = await dom.continue();
      return `${stop?.describe()} ${dom.statistics().instructions} ${dom.stateHash()}`;
    };
    for (let n = 0; n < 25; n++) {
      await next(one);
      const saved = one.hv.save();
      const after = [await next(one), await next(one)];
      fresh.hv.load(saved);
      assertEquals([await next(fresh), await next(fresh)], after, `stop ${n}`);
      one.hv.load(saved);
      assertEquals([await next(one), await next(one)], after, `stop ${n}`);
      one.hv.load(saved);
    }
  });
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
    for (const { dom } of [one, other]) advance(dom.inner, 5000);
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

Deno.test("two domains: the one that waits, the one at a stop, their turns and their times", async () => {
  for (const cpu of ["intel", "amd"] as const) {
    const make = async () => {
      const hv = await Hypervisor.start({ cpu, memory: "48M", seed: 5 });
      await hv.createDomain({ name: "demo", kernel: demoGuest().image, memory: "8M", weight: 300 });
      await hv.createDomain({
        name: "other",
        kernel: everyExit(cpu),
        memory: "4M",
        paging: "shadow",
        cap: 60,
      });
      return hv;
    };
    const run = (hv: Hypervisor, time: number) => {
      const { host } = hv, end = host.machine.cpu.now + time;
      for (const d of hv.domains) d.inner.resume();
      while (
        host.machine.cpu.now < end && (host.runOnce(end - host.machine.cpu.now) || host.idle())
      );
      for (const d of hv.domains) if (d.state === "running" && !d.blocked) d.pause();
    };
    const look = (hv: Hypervisor) =>
      [
        hv.stateHash(),
        ...hv.domains.map((d) =>
          `${d.statistics().instructions} ${d.statistics().time} ${d.stateHash()} ${d.blocked} ` +
          `${d.inner.share.credit} ${d.inner.share.used}`
        ),
      ].join(" | ");
    await using one = await make();
    await using fresh = await make();
    await using never = await make();
    const later = (hv: Hypervisor) => [1e4, 7e5, 3e6].map((time) => (run(hv, time), look(hv)));
    let blocked = 0;
    for (let n = 0; n < 8; n++) {
      for (const hv of [one, never]) run(hv, 1e6 + 12345 * n);
      if (n === 3) one.domains[0].console.write("f"), never.domains[0].console.write("f");
      if (n === 5) { for (const hv of [one, never]) hv.domains[1].weight = 900; }
      blocked += one.domains.filter((d) => d.blocked).length;
      const saved = one.save(), first = later(one);
      one.load(saved);
      assertEquals(one.save(), saved);
      assertEquals(later(one), first, `${cpu} ${n}`);
      fresh.load(saved);
      assertEquals(fresh.save(), saved);
      assertEquals(later(fresh), first, `${cpu} ${n}`);
      assertEquals(later(never), first, `${cpu} ${n}`);
    }
    assert(blocked > 0, "one of them waited at a time");
  }
});

Deno.test("a load is refused, or ends with a reason, whatever is under way", async () => {
  await using busy = await hostOf(virtual[0], kernel("again: jmp again"));
  const before = busy.hv.save(), endless = busy.dom.continue();
  assertThrows(() => busy.hv.load(before), Error, "load: domain guest is running; pause it first");
  assertThrows(() => busy.hv.save(), Error, "save: domain guest is running; pause it first");
  busy.dom.pause();
  busy.hv.load(before);
  assertEquals((await assertRejects(() => endless, GuestStopped)).reason, "loaded");

  // The demo guest waits at its prompt.
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains, saved = hv.save();
  const running = dom.until("execute", { address: "divide" });
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
