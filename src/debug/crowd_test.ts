// Several vCPUs at work on one memory: what they find is right, and who cuts, stops or looks changes nothing.
import { assert, assertEquals } from "@std/assert";
import { type GuestDomain, subjectOf } from "./domain.ts";
import { advance } from "./lockstep.ts";
import { CROWD, crowdOf } from "./testing/crowd.ts";
import { type Configuration, configurations, virtual } from "./testing/hosts.ts";
import { Random } from "./testing/states.ts";

type Way = readonly [Configuration, vcpus: number, cpus: number];
/** On one processor, and on several; bare guests have as many as they have vCPUs. */
const WAYS: readonly Way[] = configurations.flatMap((c): Way[] =>
  c.paging === "bare" ? [[c, 2, 2], [c, 4, 4]] : [[c, 2, 1], [c, 4, 2]]
);
const name = ([{ cpu, paging }, vcpus, cpus]: Way) =>
  `${cpu}, ${paging}, ${vcpus} vCPUs on ${cpus}`;
const note = (dom: GuestDomain, what: keyof typeof CROWD) => dom.memory.u32(CROWD[what]);

/** All that a run comes to, but for what the host keeps of it: exits were there because somebody looked. */
function position(dom: GuestDomain): unknown[] {
  const { inner, host } = subjectOf(dom);
  return [
    inner.now,
    host.processors.map(({ now }) => now),
    inner.vcpus.map(({ count, share, halted, online }) => [count, { ...share }, halted, online]),
    dom.stateHash(),
  ];
}

for (const way of WAYS) {
  Deno.test(`what one vCPU changes all of them find changed, and nothing sent is lost (${name(way)})`, async () => {
    const [c, vcpus, cpus] = way;
    for (const interleave of [{ min: 1, max: 60 }, { min: 100, max: 900 }]) {
      await using host = await crowdOf(c, vcpus, { cpus, interleave });
      const { dom } = host;
      assertEquals(advance(dom, 250_000), 250_000);
      assertEquals([dom.state, note(dom, "wrong")], ["paused", 0]);
      // The one that holds the lock may be between two of them.
      const own = dom.vcpus.map(({ id }) => dom.memory.u32(CROWD.own + 4 * id));
      const all = own.reduce((sum, n) => sum + n);
      assert(note(dom, "sum") - all <= 1 && note(dom, "sum") - note(dom, "atomic") <= 1);
      assert(own.every((n) => n > 20), `${own}`);
      assert(note(dom, "sent") - note(dom, "nmis") <= 1);
      assert(note(dom, "begun") > 1 && note(dom, "nmis") > 5 && note(dom, "ticks") > 5);
    }
  });

  Deno.test(`a run of several vCPUs is the same however often it is paused (${name(way)})`, async () => {
    const [c, vcpus, cpus] = way, random = new Random(2026);
    await using often = await crowdOf(c, vcpus, { cpus });
    await using seldom = await crowdOf(c, vcpus, { cpus });
    for (let n = 0; n < 30; n++) {
      const parts = Array.from({ length: 1 + n % 9 }, () => 1 + random.below(1500));
      for (const part of parts) advance(often.dom, part);
      advance(seldom.dom, parts.reduce((sum, part) => sum + part));
      assertEquals(position(often.dom), position(seldom.dom));
      assertEquals(often.hv.stateHash(), seldom.hv.stateHash());
    }
  });
}

for (const [cpu, seed] of [["intel", 3], ["amd", 4]] as const) {
  Deno.test(`a run of many vCPUs is the same whoever looks at them, and wherever the host cuts it (${cpu})`, async () => {
    const c = { cpu, paging: "hap" } as const, random = new Random(seed);
    const way = { cpus: 4, interleave: { min: 200, max: 2000 } };
    await using often = await crowdOf(c, 16, way);
    await using seldom = await crowdOf(c, 16, way);
    const { host, vcpus } = subjectOf(often.dom);
    host.attention = { due: () => random.below(4) === 0, begin() {}, end() {} };
    for (let n = 0; n < 6; n++) {
      const parts = Array.from({ length: 10 }, () => 1 + random.below(20_000));
      for (const part of parts) {
        advance(often.dom, part);
        for (const vcpu of vcpus) assert(vcpu.linearIp >= 0n);
      }
      advance(seldom.dom, parts.reduce((sum, part) => sum + part));
      assertEquals(position(often.dom), position(seldom.dom));
      assertEquals(often.hv.stateHash(), seldom.hv.stateHash());
    }
  });
}

for (const c of virtual) {
  Deno.test(`a run of several vCPUs is the same with stops at exits, and pauses within them (${c.cpu}, ${c.paging})`, async () => {
    const random = new Random(77);
    await using stopped = await crowdOf(c, 3, { cpus: 2, interleave: { min: 1, max: 20 } });
    await using never = await crowdOf(c, 3, { cpus: 2, interleave: { min: 1, max: 20 } });
    const { dom } = stopped,
      { inner } = subjectOf(dom),
      kinds = ["io", "hlt", "pause", "msr"] as const;
    advance(dom, 9000);
    let stops = 0;
    for (let n = 0; n < 50; n++) {
      const kind = random.pick(kinds), pauses = n % 2 === 0;
      const b = pauses
        ? dom.trace(kind, {}, { once: true, action: () => inner.pause() })
        : dom.break(kind, {});
      advance(dom, 20_000);
      b.delete();
      if (dom.stop?.kind === "pause") dom.stop.skip();
      stops += dom.stop?.kind === kind || pauses ? 1 : 0;
      advance(dom, 1 + random.below(30));
    }
    assert(stops > 40);
    // By an instruction at most it stands where the other does: no exit waits there.
    advance(dom, 2000);
    advance(never.dom, inner.count);
    assertEquals(position(dom), position(never.dom));
  });
}
