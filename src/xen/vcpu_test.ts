import { assert, assertEquals, assertThrows } from "@std/assert";
import { hostUnder, Hypervisor } from "../debug/hypervisor.ts";
import { kernel } from "../debug/testing/hosts.ts";
import { RUNSTATES } from "./vcpu.ts";

const SPIN = kernel("jmp start");
const HALT = kernel("hlt");

/** A host whose domains may run, and their vCPUs. */
async function host(...images: Uint8Array[]) {
  const hv = await Hypervisor.start({ memory: "32M" });
  for (const image of images) await hv.createDomain({ kernel: image, memory: "4M" });
  const host = hostUnder(hv), [...vcpus] = host.vcpus;
  const total = (n: number) => {
    const { time } = vcpus[n].runstate;
    return RUNSTATES.reduce((sum, name) => sum + time[name], 0);
  };
  return { hv, host, vcpus, total, [Symbol.asyncDispose]: () => hv.close() };
}

Deno.test("a vCPU's runstate says who had the processor, and accounts for all of its time", async () => {
  await using h = await host(SPIN, SPIN);
  const { host: { machine, domains }, vcpus: [one, two] } = h;
  assertEquals([one.runstate.state, two.runstate.state], ["offline", "offline"]);
  for (const d of domains) d.resume();
  assertEquals([one.runstate.state, two.runstate.state], ["runnable", "runnable"]);
  const ran = h.host.runOnce(100)!, other = ran === one ? two : one;
  assertEquals([ran.runstate.state, other.runstate.state], ["running", "runnable"]);
  // Where a turn is cut is nobody's: it is one interval.
  const { since } = ran.runstate;
  h.host.runOnce(100);
  assertEquals(ran.runstate.since, since);
  for (let n = 0; n < 50; n++) h.host.runOnce(1e6);
  const { now } = machine.cpu;
  assertEquals([h.total(0), h.total(1)], [now, now]);
  const [a, b] = [one.runstate.time, two.runstate.time];
  assert(a.running > 0 && b.running > 0);
  assertEquals([a.running, b.running], [b.runnable, a.runnable]);
  assertEquals([a.running, b.running], [one.count, two.count]);
});

Deno.test("a pause is offline as long as time passes in it; one in which none does is none", async () => {
  await using h = await host(SPIN, SPIN);
  const { host: { domains }, vcpus: [one] } = h;
  domains[0].resume();
  h.host.runOnce(1000);
  const { since, time } = one.runstate;
  domains[0].pause();
  assertEquals(one.runstate.state, "offline");
  domains[0].resume();
  assertEquals([one.runstate.state, one.runstate.since], ["running", since]);
  domains[0].pause();
  domains[1].resume();
  const ran = h.host.runOnce(5000);
  assertEquals(ran, h.vcpus[1]);
  assertEquals(one.runstate.time, { ...time, offline: time.offline + 5000 });
  domains[0].resume();
  assertEquals([one.runstate.state, one.runstate.since], ["runnable", h.host.now]);
});

Deno.test("a vCPU that waits is blocked, in a pause too, and its domain is while all of them do", async () => {
  await using h = await host(HALT, SPIN);
  const { host: { domains: [domain, other] }, vcpus: [vcpu] } = h;
  domain.resume();
  h.host.runOnce(1000);
  assertEquals([vcpu.runstate.state, domain.state.kind, vcpu.halted], ["blocked", "blocked", true]);
  domain.pause();
  assertEquals([vcpu.runstate.state, domain.state.kind], ["blocked", "paused"]);
  other.resume();
  h.host.runOnce(5000);
  domain.resume();
  assertEquals([vcpu.runstate.state, domain.state.kind], ["blocked", "blocked"]);
  assertEquals(vcpu.runstate.time.blocked, 5000);
});

Deno.test("a saved state has what vCPUs do, however they are looked at", async () => {
  await using h = await host(SPIN, HALT);
  const { hv, host: { domains }, vcpus } = h;
  for (const d of domains) d.resume();
  for (let n = 0; n < 7; n++) h.host.runOnce(30_000);
  for (const d of domains) d.pause();
  const saved = hv.save(), before = vcpus.map(({ runstate }) => runstate.time);
  for (const d of domains) d.resume();
  for (let n = 0; n < 3; n++) h.host.runOnce(30_000);
  for (const d of domains) d.pause();
  hv.load(saved);
  assertEquals(vcpus.map(({ runstate }) => runstate.time), before);
  assertEquals(hv.save(), saved);
});

Deno.test("a state of version 3 is refused by its version", async () => {
  await using h = await host(SPIN);
  const saved = h.hv.save();
  new DataView(saved.buffer).setUint32(8, 3, true);
  assertThrows(
    () => h.hv.load(saved),
    Error,
    "the saved state is of version 3; this xvm reads version 4",
  );
});
