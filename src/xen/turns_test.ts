// The log of turns: what is in it, that nothing goes by it, and how much of it is kept.
import { assert, assertEquals } from "@std/assert";
import { hostUnder } from "../debug/hypervisor.ts";
import { configurations } from "../debug/testing/hosts.ts";
import { severalOf } from "../debug/testing/several.ts";
import { hostHash, loadHost, saveHost } from "./state.ts";
import { TURNS_KEPT } from "./turns.ts";

const WAYS = configurations.map((c) => ({ ...c, cpus: c.paging === "bare" ? 2 : 1 }));

for (const { cpu, paging, cpus } of WAYS) {
  const of = async (min: number, max: number) => {
    const { hv } = await severalOf({ cpu, paging }, 2, { cpus, interleave: { min, max } });
    const host = hostUnder(hv), [domain] = host.domains;
    domain.resume();
    const run = (until: number) => {
      while (host.machine.count < until) host.runOnce(until - host.machine.count);
    };
    return { host, domain, run };
  };

  Deno.test(`turns follow one another, each as long as the seed picks (${cpu}, ${paging})`, async () => {
    const { host, domain, run } = await of(3, 9);
    run(20_000);
    const { turns, dropped, since } = host.turns;
    assertEquals([dropped, since, turns[0].count], [0, 0, 0]);
    turns.forEach((turn, n) => {
      const next = turns[n + 1];
      assertEquals(turn.count + turn.instructions, next ? next.count : host.machine.count);
      assert(turn.domain === domain.id && turn.processor === (cpus > 1 ? turn.vcpu : 0));
    });
    for (const vcpu of domain.vcpus) {
      const own = turns.filter((turn) => turn.vcpu === vcpu.id);
      assertEquals(own.reduce((sum, { instructions }) => sum + instructions, 0), vcpu.count);
      assert(own.length > 500);
      assertEquals(own.at(-1)!.rip, vcpu.engine.linearIp);
    }
    // In a host of one processor none has two in a row: the other could have gone on.
    if (cpus > 1) return;
    const settled = turns.slice(2, -1);
    const longest = settled.reduce((most, { instructions }) => Math.max(most, instructions), 0);
    assertEquals([longest <= 9, new Set(settled.map(({ end }) => end))], [
      true,
      new Set(["length"]),
    ]);
  });

  Deno.test(`of turns of one instruction the last are kept (${cpu}, ${paging})`, async () => {
    const { host, run } = await of(1, 1);
    run(TURNS_KEPT + 2000);
    const { turns, dropped } = host.turns;
    assertEquals(turns.length, TURNS_KEPT);
    assert(dropped > 1000, `${dropped}`);
    assert(turns.every((turn, n) => n === 0 || turn.count > turns[n - 1].count));
    const last = turns.at(-1)!;
    assertEquals(last.count + last.instructions, host.machine.count);
  });

  Deno.test(`a loaded state has no turns from before, and looking is no state (${cpu}, ${paging})`, async () => {
    const { host, domain, run } = await of(1, 20), other = await of(1, 20);
    run(3000);
    other.run(500);
    domain.pause();
    const saved = saveHost(host), hash = hostHash(host);
    other.domain.pause();
    loadHost(other.host, saved);
    assertEquals([other.host.turns.turns, other.host.turns.since], [[], 3000]);
    assertEquals([hostHash(other.host), saveHost(other.host)], [hash, saved]);
    for (const each of [host, other.host]) each.domains[0].resume();
    run(4000);
    other.run(4000);
    assertEquals(hostHash(other.host), hostHash(host));
    const after = host.turns.turns.filter(({ count }) => count > 3000);
    assertEquals(other.host.turns.turns.slice(-after.length), after);
    assert(after.length > 20);
  });
}
