import { assertEquals, assertObjectMatch } from "@std/assert";
import { type GuestDomain, subjectOf } from "../debug/domain.ts";
import { advance } from "../debug/lockstep.ts";
import { assembleKernel, configurations, hostOf } from "../debug/testing/hosts.ts";
import type { Exit } from "../hvm/exit.ts";
import type { Verdict } from "./engine.ts";
import { Monitor, type MonitorEvent, type Observer } from "./monitor.ts";

const { bytes, symbols } = assembleKernel(`
  mov ebx, 3
again:
  mov [0x200000], ebx
  mov eax, 0
  mov esi, ebx
  cpuid
  mov ebx, esi
  mov [0x200004], eax
  pause
next:
  dec ebx
  jnz again
  cli
  hlt`);
const AGAIN = BigInt(symbols.get("again")!), NEXT = BigInt(symbols.get("next")!);
const NAMES = new Map([[AGAIN, "again"], [NEXT, "next"]]);
const WATCHED = 0x20_0000n;

/** Writes down what it is told. */
class Recorder implements Observer {
  readonly log: string[] = [];
  stopsAt: string | undefined;
  verdict: Verdict | undefined;
  readonly monitor: Monitor;

  constructor(private readonly dom: GuestDomain) {
    this.monitor = new Monitor(subjectOf(dom).inner.vcpus[0], this);
  }
  ip(): bigint {
    return this.dom.vcpus[0].regs.rip;
  }
  linearIp(): bigint {
    return this.ip();
  }
  event(event: MonitorEvent): unknown {
    const text = event.kind === "execute"
      ? NAMES.get(event.address)!
      : event.kind === "watch"
      ? event.hits.map(({ value }) => `watch ${value}`).join()
      : "step";
    this.log.push(text);
    return text === this.stopsAt ? text : undefined;
  }
  exit(exit: Exit): Verdict | undefined {
    this.log.push(exit.kind);
    return exit.kind === this.stopsAt ? { kind: "stop", stop: exit.kind } : this.verdict;
  }
  /** What was told since it was last asked. */
  told(): string {
    return this.log.splice(0).join(" ");
  }
  watch(on: boolean): void {
    this.monitor.setWatch(this.#watch, on);
  }
  readonly #watch = {
    space: "linear",
    ranges: [[WATCHED, WATCHED + 4n]],
    read: false,
    write: true,
  } as const;
}

const written = (dom: GuestDomain) => dom.memory.u32(0x20_0004);

for (const c of configurations) {
  const label = `(${c.cpu} ${c.paging})`, bare = c.paging === "bare";
  const two = async () => {
    const host = await hostOf(c, bytes);
    const { dom } = host;
    return { host, dom, a: new Recorder(dom), b: new Recorder(dom) };
  };

  Deno.test(`two observers of one domain see what each asked for, and change nothing ${label}`, async () => {
    const { host, dom, a, b } = await two();
    await using _ = host;
    await using alone = await hostOf(c, bytes);
    a.monitor.setAddress(AGAIN, true);
    b.monitor.setAddress(AGAIN, true);
    b.monitor.setAddress(NEXT, true);
    a.watch(true);
    b.watch(true);
    if (!bare) {
      a.monitor.setExits(() => [["cpuid", {}]]);
      b.monitor.setExits(() => [["pause", {}], ["cpuid", {}]]);
    }
    const exit = bare ? "" : " cpuid pause", halt = bare ? "" : " hlt";
    advance(dom, 100);
    assertEquals(a.told(), [3, 2, 1].map((n) => `again watch ${n}${exit}`).join(" ") + halt);
    assertEquals(b.told(), [3, 2, 1].map((n) => `again watch ${n}${exit} next`).join(" ") + halt);
    advance(alone.dom, 100);
    assertEquals(dom.stateHash(), alone.dom.stateHash());
    const { instructions, time } = alone.dom.statistics();
    assertObjectMatch(dom.statistics(), { instructions, time });
  });

  Deno.test(`when one goes the other still sees, and when both have gone nobody does ${label}`, async () => {
    const { host, dom, a, b } = await two();
    await using _ = host;
    for (const { monitor } of [a, b]) monitor.setAddress(AGAIN, true);
    a.watch(true);
    a.stopsAt = "watch 3";
    advance(dom, 100);
    assertEquals([a.told(), b.told()], ["again watch 3", "again"]);
    a.watch(false);
    a.monitor.setAddress(AGAIN, false);
    b.stopsAt = "again";
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told()], ["", "again"]);
    b.monitor.setAddress(AGAIN, false);
    const [vcpu] = subjectOf(dom).inner.vcpus;
    assertEquals([vcpu.engine.hooks.length, vcpu.cpu.observers.length], [0, 0]);
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told()], ["", ""]);
  });

  Deno.test(`a place where both are told is passed once, also at the end of a step ${label}`, async () => {
    const { host, dom, a, b } = await two();
    await using _ = host;
    b.monitor.setAddress(AGAIN, true);
    a.monitor.setStep(1);
    a.stopsAt = "step";
    advance(dom, 100);
    assertEquals([a.told(), b.told(), subjectOf(dom).inner.vcpus[0].cpu.count], [
      "step",
      "again",
      1,
    ]);
    a.monitor.setAddress(NEXT, true);
    b.monitor.setAddress(NEXT, true);
    a.stopsAt = b.stopsAt = "next";
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told()], ["next", "next"]);
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told()], ["next", "again next"]);
  });

  if (bare) continue;
  Deno.test(`of two verdicts on an exit a stop wins, else the first, and one is carried out ${label}`, async () => {
    const { host, dom, a, b } = await two();
    await using _ = host;
    for (const { monitor } of [a, b]) monitor.setExits(() => [["cpuid", {}]]);
    a.verdict = { kind: "continue" };
    b.verdict = { kind: "reply", registers: { rax: 5n } };
    b.monitor.setAddress(NEXT, true);
    b.stopsAt = "next";
    advance(dom, 100);
    assertEquals([a.told(), b.told(), written(dom)], ["cpuid", "cpuid next", 5]);
    a.verdict = { kind: "reply", registers: { rax: 7n } };
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told(), written(dom)], ["cpuid", "cpuid next", 7]);
    b.stopsAt = "cpuid";
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told(), written(dom)], ["cpuid", "cpuid", 7]);
    assertEquals([a.monitor.stoppedAt, b.monitor.stoppedAt?.kind], [undefined, "cpuid"]);
    b.monitor.answer({ kind: "reply", registers: { rax: 9n } });
    b.stopsAt = "next";
    subjectOf(dom).inner.unpause();
    advance(dom, 100);
    assertEquals([a.told(), b.told(), written(dom)], ["", "next", 9]);
  });
}
