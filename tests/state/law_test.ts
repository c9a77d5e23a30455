// Save, run on, load, run on = run on: at every kind of stop, in place and on a fresh host.
import { assert, assertEquals } from "@std/assert";
import { demoGuest } from "../../src/builder/demo.ts";
import { type GuestDomain, subjectOf } from "../../src/debug/domain.ts";
import { hostUnder, Hypervisor } from "../../src/debug/hypervisor.ts";
import { advance } from "../../src/debug/lockstep.ts";
import { type Configuration, configurations, hostOf } from "../../src/debug/testing/hosts.ts";
import { everyExit } from "../../src/debug/testing/every_exit.ts";
import { label, lawAtEveryStop, printed, runOn } from "../../src/debug/testing/states.ts";

const title = ({ cpu, paging }: Configuration) => `${cpu}, ${paging}`;

for (const c of configurations) {
  Deno.test(`save, run on, load, run on = run on, at every kind of stop (${title(c)})`, () =>
    lawAtEveryStop(c));

  Deno.test(`save, run on, load, run on = run on, wherever it was paused (${title(c)})`, async () => {
    await using one = await hostOf(c, everyExit(c.cpu));
    await using fresh = await hostOf(c, everyExit(c.cpu));
    const text = [one, fresh].map(({ dom }) => printed(dom));
    let x = 2026;
    const random = (n: number) => (x = (Math.imul(x, 1103515245) + 12345) >>> 0) % n;
    let halted = 0;
    for (let n = 0; n < 60; n++) {
      advance(one.dom, 1 + random(n % 2 ? 30 : 5000));
      halted += +subjectOf(one.dom).inner.vcpus[0].halted;
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
    for (let n = 0; n < 40 && !subjectOf(one.dom).inner.vcpus[0].halted; n++) {
      while (one.dom.vcpus[0].disassemble(undefined, 1)[0].text !== "hlt") {
        advance(one.dom, 1);
      }
      subjectOf(one.dom).inner.resume();
      hostUnder(one.hv).runOnce(100);
      one.dom.pause();
    }
    assert(subjectOf(one.dom).inner.vcpus[0].halted);
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
      const host = hostUnder(hv), end = host.machine.cpu.now + time;
      for (const d of hv.domains) subjectOf(d).inner.resume();
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
          `${subjectOf(d).inner.vcpus[0].share.credit} ${
            subjectOf(d).inner.vcpus[0].runstate.time.running
          }`
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
