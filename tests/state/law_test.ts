// Save, run on, load, run on = run on: at every kind of stop, and at some that a seed draws.
import { assert, assertEquals } from "@std/assert";
import { demoGuest } from "../../src/builder/demo.ts";
import { type GuestDomain, subjectOf } from "../../src/debug/domain.ts";
import { hostUnder, Hypervisor } from "../../src/debug/hypervisor.ts";
import { type Configuration, configurations, hostOf } from "../../src/debug/testing/hosts.ts";
import { everyExit } from "../../src/debug/testing/every_exit.ts";
import { label, lawAtEveryStop } from "../../src/debug/testing/states.ts";
import { tryLaw } from "./law.ts";
import { subjects } from "./subjects.ts";

const TRIALS = 4;

const title = ({ cpu, paging }: Configuration) => `${cpu}, ${paging}`;

// `deno task law` has many more, and real kernels.
for (const subject of subjects.filter(({ files }) => files.length === 0)) {
  Deno.test(`save, run on, load, run on = run on, at stops that a seed draws (${subject.name})`, async () => {
    const { equal, kinds, problems } = await tryLaw(subject, TRIALS, 2026);
    assertEquals(problems, []);
    assertEquals(equal, TRIALS);
    assert(Object.keys(kinds).length > 1, Object.keys(kinds).join(", "));
  });
}

for (const c of configurations) {
  Deno.test(`save, run on, load, run on = run on, at every kind of stop (${title(c)})`, () =>
    lawAtEveryStop(c));

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
