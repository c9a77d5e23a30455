// Whose time a domain has: its own, or the host's; and how its vCPUs are told of events when they come up.
import { assert, assertEquals } from "@std/assert";
import { View } from "../abi/layout.ts";
import { EVTCHNOP } from "../abi/xen/event_channel.ts";
import { RUNSTATE, VCPU_RUNSTATE_INFO } from "../abi/xen/vcpu.ts";
import { CALL_WAYS, CallGuest, callWayName } from "../debug/testing/calls.ts";
import { AT } from "../debug/testing/ways.ts";
import type { Host } from "./host.ts";
import { loadHost, saveHost } from "./state.ts";

const { running, runnable, blocked, offline } = RUNSTATE;
const WAYS = CALL_WAYS.filter(({ cpu, width }) => (cpu === "intel") === (width === 64));
const MILLISECOND = 1_000_000;

/** It counts, for ever. */
function spin(guest: CallGuest): void {
  guest.guest.enter(guest.width === 64 ? "long" : "pae", "again: jmp again");
}
function runFor(host: Host, time: number): void {
  const end = host.now + time;
  while (host.now < end && (host.runOnce(end - host.now) || host.idle()));
}
/** How long its first vCPU was in which state, by its own time. */
function times({ xen: { vcpus: [{ runstate }] }, width }: CallGuest): number[] {
  const view = new View(VCPU_RUNSTATE_INFO, width, runstate.now(width));
  return [0, 1, 2, 3].map((n) => Number(view.get("time", n)));
}
/** Since when it does what it does, by its own time. */
function since({ xen: { vcpus: [{ runstate }] }, width }: CallGuest): number {
  const view = new View(VCPU_RUNSTATE_INFO, width, runstate.now(width));
  return Number(view.get("state_entry_time"));
}
const sum = (list: readonly number[]) => list.reduce((a, b) => a + b);
const within = (value: number, least: number, most: number, what = "") =>
  assert(value >= least && value <= most, `${what} ${value}`);

/** Two that want the processor all the time. */
async function two(way: typeof WAYS[number], clock?: "own" | "host") {
  const one = await CallGuest.make(way, { clock });
  const { host } = one.guest, other = await CallGuest.make(way, { host, clock });
  for (const guest of [one, other]) spin(guest);
  return { one, other, host };
}

for (const way of WAYS) {
  const name = callWayName(way);

  Deno.test(`clock "own": its time stands while another runs; nothing is stolen (${name})`, async () => {
    const { one, other, host } = await two(way), start = one.domain.now;
    runFor(host, 20 * MILLISECOND);
    assertEquals(one.domain.clock, "own");
    const passed = one.domain.now - start;
    within(passed, 5 * MILLISECOND, 15 * MILLISECOND);
    assertEquals(passed, one.domain.vcpus[0].count);
    within(passed + other.domain.now, 20 * MILLISECOND - 1000, 20 * MILLISECOND + 1000);
    const spent = times(one);
    assertEquals([spent[runnable], sum(spent)], [0, one.domain.now]);
    // It never saw that it had to wait.
    within(since(one), 0, 100, "since");
    one.domain.pause();
    const { now } = one.domain, before = times(one);
    runFor(host, MILLISECOND);
    assertEquals([one.domain.now, times(one)], [now, before]);
  });

  Deno.test(`clock "host": its time is the machine's; what others have of it, and pauses, are stolen (${name})`, async () => {
    const { one, other, host } = await two(way, "host");
    runFor(host, 20 * MILLISECOND);
    assertEquals([one.domain.clock, one.domain.now, other.domain.now], [
      "host",
      host.now,
      host.now,
    ]);
    const spent = times(one), started = host.now - sum(spent);
    within(started, 0, 100);
    within(spent[runnable], 5 * MILLISECOND, 15 * MILLISECOND, "runnable");
    assertEquals(spent[blocked], 0);
    // The machine's account, and the guest's, are one.
    assertEquals(spent[running], one.domain.vcpus[0].runstate.time.running);
    one.domain.pause();
    runFor(host, 3 * MILLISECOND);
    one.domain.resume();
    within(times(one)[offline], 3 * MILLISECOND - 1000, 3 * MILLISECOND + 1000, "offline");
    assertEquals(one.domain.now, host.now);
    // It waits, and is paused: it waits on.
    one.guest.write(AT.code, Uint8Array.of(0xf4));
    one.guest.host.unload();
    one.engine.ops.setRegister(one.engine.hvm, "rip", BigInt(AT.code));
    runFor(host, 5 * MILLISECOND);
    assert(one.domain.vcpus[0].blocked);
    const before = times(one);
    one.domain.pause();
    runFor(host, MILLISECOND);
    one.domain.resume();
    const after = times(one).map((time, n) => time - before[n]);
    within(after[blocked], MILLISECOND - 1000, MILLISECOND + 1000, "blocked");
    assertEquals([after[running], after[runnable], after[offline]], [0, 0, 0]);
  });

  Deno.test(`a pause in which nobody runs changes nothing of a host's clock (${name})`, async () => {
    const [one, stopped] = await Promise.all(
      [0, 1].map(() => CallGuest.make(way, { clock: "host" })),
    );
    for (const guest of [one, stopped]) spin(guest);
    runFor(one.guest.host, MILLISECOND);
    for (let n = 0; n < 10; n++) {
      runFor(stopped.guest.host, MILLISECOND / 10);
      stopped.domain.pause();
      assertEquals(times(stopped)[offline], 0);
      stopped.domain.resume();
    }
    assertEquals(times(stopped), times(one));
  });

  Deno.test(`a channel bound to another domain's puts both on the host's time, from where each was (${name})`, async () => {
    const { one, other, host } = await two(way);
    runFor(host, 10 * MILLISECOND);
    const offer = (from: CallGuest, remote_dom: number) =>
      from.xen.channels.allocUnbound(remote_dom);
    // Domain 0's, and its own, change nothing.
    offer(one, 0);
    assert(one.xen.channels.bindInterdomain(one.domain.id, offer(one, one.domain.id)) > 0);
    assertEquals([one, other].map(({ domain }) => domain.clock), ["own", "own"]);
    const before = [one, other].map(({ domain: { now } }) => now);
    const stolen = times(other)[runnable];
    const port = offer(one, other.domain.id);
    assertEquals(other.xen.channels.bindInterdomain(one.domain.id, port) > 0, true);
    assertEquals([one, other].map(({ domain }) => domain.clock), ["host", "host"]);
    assertEquals([one, other].map(({ domain: { now } }) => now), before);
    const from = host.now;
    runFor(host, 10 * MILLISECOND);
    const passed = host.now - from;
    assertEquals([one, other].map(({ domain: { now } }, n) => now - before[n]), [passed, passed]);
    within(times(other)[runnable] - stolen, 2 * MILLISECOND, 8 * MILLISECOND, "runnable");
    // It is state: saved, and so it stays when the channel is closed.
    const saved = saveHost(host);
    assertEquals(one.xen.channels.close(port), 0);
    assertEquals(one.domain.clock, "host");
    const fresh = await two(way);
    loadHost(fresh.host, saved);
    assertEquals([fresh.one.domain.clock, fresh.one.domain.now], ["host", one.domain.now]);
    assertEquals(times(fresh.one), times(one));
  });

  Deno.test(`a vCPU whose local APIC was off is told by its own vector when it is on (${name})`, async () => {
    const guest = await CallGuest.make(way), { platform } = guest.domain, [vcpu] = guest.xen.vcpus;
    const apic = (offset: number, value: number) =>
      platform!.mmioWrite(0xfee0_0000 + offset, 4, value, 0);
    const { result, out } = guest.op("event_channel_op", EVTCHNOP.bind_ipi, { vcpu: 0 });
    assertEquals(result, 0);
    apic(0xf0, 0xff);
    vcpu.apicVector = 0x23;
    guest.op("event_channel_op", EVTCHNOP.send, { port: out.get("port") });
    assertEquals([vcpu.raised, guest.engine.port.interruptPending()], [true, false]);
    const saved = saveHost(guest.guest.host);
    loadHost(guest.guest.host, saved);
    guest.call("xen_version", 0);
    assertEquals(guest.engine.port.interruptPending(), false);
    apic(0xf0, 0x1ff);
    guest.call("xen_version", 0);
    assertEquals(guest.engine.port.interruptPending(), true);
    // Once.
    assertEquals(guest.engine.port.acknowledge(), 0x23);
    guest.call("xen_version", 0);
    assertEquals(guest.engine.port.interruptPending(), false);
    // INIT forgets it, and what is pending is told when the guest begins anew.
    guest.xen.vcpus[0].begins(true);
    guest.call("xen_version", 0);
    apic(0xb0, 0);
    assertEquals(guest.engine.port.acknowledge(), 0x23);
  });
}
