// Domains of several vCPUs, as the host schedules them: what executes them is played.
import { assert, assertEquals } from "@std/assert";
import { Hypervisor } from "../debug/hypervisor.ts";
import { kernel } from "../debug/testing/hosts.ts";
import type { Cpuid } from "../machine/cpuid.ts";
import { Domain } from "./domain.ts";
import { BLOCKED, BUDGET, Engine, type PartEnd } from "./engine.ts";
import { Host } from "./host.ts";
import type { Platform } from "./platform.ts";

/** Runs for as long as it may, or waits after some time until it is told. */
class Played extends Engine {
  waitsAfter = Infinity;
  told = false;
  readonly waiting = false;
  readonly interruptible = true;
  readonly linearIp = 0n;
  readonly tsc = 0n;
  protected execute(budget: number): PartEnd {
    const time = Math.min(budget, this.waitsAfter);
    this.vcpu.cpu.idle += time;
    return time < budget || this.waitsAfter === 0 ? BLOCKED : BUDGET;
  }
  runnable(): boolean {
    return this.told;
  }
  startUp(): boolean {
    return true;
  }
  protected attach(): void {}
  protected detach(): void {}
  register(): void {}
  quiesce(): void {}
  destroy(): void {}
}

/** A host with a domain of so many vCPUs. */
function played(vcpus: number, more: { cap?: number; weight?: number } = {}) {
  const host = new Host({ cpu: "intel", memory: 1 << 20, unixTime: 0, seed: 1 });
  const make = (count: number, options = {}) => {
    const memory = { size: 0, read: () => new Uint8Array(), write() {}, machineAddress: () => -1 };
    const id = host.newId();
    const domain = new Domain(host, {
      id,
      name: `${id}`,
      type: "hvm",
      memory,
      vcpus: count,
      ...options,
    });
    let deadline = Infinity;
    domain.platform = {
      deadline: () => deadline,
      run: () => deadline = Infinity,
      register() {},
    } as unknown as Platform;
    domain.cpuid = { model: "host", save: () => [], load() {}, problem() {} } as unknown as Cpuid;
    const engines = domain.vcpus.map((vcpu) => vcpu.engine = new Played(vcpu)) as Played[];
    host.join(domain);
    return { domain, engines, due: (at: number) => deadline = at };
  };
  return { host, make, ...make(vcpus, more) };
}

/** Lets a host run its vCPUs, up to a machine time. */
function runTo(host: Host, time: number): void {
  while (host.now < time && host.runOnce(time - host.now));
}

Deno.test("vCPUs of a domain take turns, each with its own share of the processor", () => {
  const { host, domain } = played(4);
  domain.resume();
  runTo(host, 100e6);
  for (const { runstate: { time } } of domain.vcpus) {
    assert(Math.abs(time.running - 25e6) < 2e6, `${time.running}`);
    assertEquals(time.running + time.runnable, 100e6);
  }
});

Deno.test("a domain's weight is each of its vCPUs', its cap is theirs together", () => {
  const { host, domain, make } = played(2, { weight: 512 });
  const other = make(1).domain;
  for (const d of host.domains) d.resume();
  runTo(host, 100e6);
  const running = (d: Domain) => d.vcpus.map(({ runstate }) => runstate.time.running / 1e6);
  const [a, b] = running(domain), [c] = running(other);
  for (const [time, wanted] of [[a, 40], [b, 40], [c, 20]]) {
    assert(Math.abs(time - wanted) < 2, `${time}`);
  }
  domain.cap = 30;
  runTo(host, 200e6);
  const [more, less] = running(domain);
  assert(Math.abs(more + less - a - b - 30) < 0.1, `${more + less - a - b}`);
});

Deno.test("with several vCPUs a domain's time is the host's while it is not paused", () => {
  const { host, domain, make } = played(2), { domain: single } = make(1);
  assertEquals([domain.now, single.now], [0, 0]);
  domain.resume();
  single.resume();
  runTo(host, 30e6);
  assertEquals(domain.now, 30e6);
  // One vCPU's time stands while others have the processor.
  assertEquals(single.now, single.vcpus[0].runstate.time.running);
  domain.pause();
  runTo(host, 40e6);
  assertEquals([domain.now, domain.timeOffset], [30e6, -10e6]);
  domain.resume();
  runTo(host, 45e6);
  assertEquals(domain.now, 35e6);
});

Deno.test("a domain is blocked when all its vCPUs are, and one that is woken lets it run", () => {
  const { host, domain, engines: [a, b], due } = played(2);
  domain.resume();
  a.waitsAfter = 1000;
  runTo(host, 5e6);
  assertEquals(domain.vcpus.map(({ blocked }) => blocked), [true, false]);
  assertEquals(domain.state.kind, "running");
  b.waitsAfter = 0;
  while (host.runOnce(Infinity));
  assertEquals([domain.state.kind, domain.vcpus[1].halted], ["blocked", true]);
  assertEquals(host.runOnce(Infinity), undefined);
  // Their time goes on to the next deadline of its devices.
  const { now } = host;
  due(domain.now + 7000);
  assert(host.idle());
  assertEquals([host.now, domain.now], [now + 7000, now + 7000]);
  b.told = true;
  b.waitsAfter = Infinity;
  assertEquals(host.runOnce(1), domain.vcpus[1]);
  assertEquals(domain.state.kind, "running");
});

Deno.test("whose turn it is, and what each vCPU does, is saved and loaded", () => {
  const one = played(3), other = played(3);
  for (const { host, domain, engines } of [one, other]) {
    domain.resume();
    engines[1].waitsAfter = 2e6;
    runTo(host, 10_123_456);
    domain.pause();
  }
  const saved = one.host.blocks.save();
  assertEquals(other.host.blocks.save(), saved);
  assert(one.host.processors[0].turn);
  other.domain.resume();
  runTo(other.host, 25e6);
  other.domain.pause();
  other.host.blocks.prepare(saved as never)();
  assertEquals(other.host.blocks.save(), saved);
  for (const { host, domain } of [one, other]) {
    domain.resume();
    runTo(host, 30e6);
  }
  assertEquals(other.host.blocks.save(), one.host.blocks.save());
});

Deno.test("a domain that has ended is at its end after a load, too", async () => {
  await using hv = await Hypervisor.start({ memory: "32M" });
  const dom = await hv.createDomain({ kernel: kernel("cli\nhlt"), memory: "4M" });
  dom.unpause();
  await dom.ended;
  const { state } = dom;
  hv.load(hv.save());
  assertEquals(dom.state, state);
});
