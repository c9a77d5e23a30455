import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Hypervisor } from "./hypervisor.ts";
import { subjectOf } from "./domain.ts";

/** What a call is given, where it takes something. */
const ARGUMENTS: Record<string, unknown[]> = {
  break: ["io"],
  "console.write": ["x"],
  "cpuid.text": [],
  createDomain: [{ kernel: new Uint8Array(65536) }],
  dump: [0x1000],
  edit: ["rdrand=0"],
  has: ["rdrand"],
  inject: ["#GP"],
  load: [new Uint8Array(4)],
  onOutput: [() => {}],
  onStop: [() => {}],
  read: [0x1000, 4],
  reply: [{ value: 1 }],
  search: ["x"],
  serve: [{ port: [1, 2] }, { read: () => 0 }],
  set: ["rdrand", false],
  setRaw: ["guestRip", 0n],
  setRegisters: [{ rax: 1 }],
  shows: ["never"],
  stops: ["io"],
  table: [{ guestFrame: 1 }],
  text: [0x1000],
  trace: ["io"],
  tryUntil: ["io"],
  u16: [0x1000],
  u32: [0x1000],
  u64: [0x1000],
  u8: [0x1000],
  until: ["io"],
  wait: ["io"],
  walk: [0x1000],
  write: [0x1000, new Uint8Array(4)],
};
/** What is known of a domain or host that is no more, and does not come from it. */
const KNOWN = new Set(
  ("hv.domains hv.interactive hv.closed hv.close dom.id dom.name dom.type dom.vcpus dom.memory " +
    "dom.console dom.cpuid dom.screen dom.ended dom.ioreq dom.state dom.blocked dom.stop dom.symbols " +
    "dom.exits dom.eventChannels dom.grants dom.hypercalls dom.statistics dom.weight dom.cap dom.clock dom.cpuShare dom.breakpoints dom.destroy vcpu.id " +
    "vcpu.domain vcpu.regs vcpu.memory vcpu.pageTables vcpu.name vcpu.position vcpu.history " +
    "vcpu.runstate vcpu.processor vcpu.instructions vcpu.place " +
    "guest.size linear.size machine.size console.text console.dropped cpuid.model cpuid.features cpuid.has cpuid.executes stop.kind " +
    "stop.vcpu stop.position stop.breakpoints stop.regs stop.raw stop.write stop.port stop.size " +
    "stop.string stop.rep stop.value stop.describe cpu.id cpu.regs ioreq.dropped ioreq.servers ioreq.requests shadow.toString " +
    "table.toString table.kind table.guestFrame table.part table.address table.present table.root")
    .split(" "),
);
/** Of the domain as scripts hold it alone. */
const OWN = new Set(["constructor", "setSymbols", "loadSymbols"]);

/** What each public member of `object` does: nothing, or the message it throws. */
async function* members(label: string, object: object): AsyncGenerator<[string, string | null]> {
  const seen = new Set<string>();
  for (let it = object; it && it !== Object.prototype; it = Object.getPrototypeOf(it)) {
    for (const name of Object.getOwnPropertyNames(it)) {
      if (seen.has(name) || OWN.has(name)) continue;
      seen.add(name);
      const given = ARGUMENTS[`${label}.${name}`] ?? ARGUMENTS[name] ?? [];
      try {
        let value = Reflect.get(object, name);
        if (typeof value === "function") value = value.apply(object, given);
        if (typeof value?.next === "function") value = value.next();
        await value;
        yield [`${label}.${name}`, null];
      } catch (error) {
        yield [`${label}.${name}`, (error as Error).message];
      }
    }
  }
}

const MACHINES = [
  { cpu: "intel", type: "bare" },
  { cpu: "intel", paging: "hap" },
  { cpu: "intel", paging: "shadow" },
  { cpu: "amd", paging: "hap" },
  { cpu: "amd", paging: "shadow" },
] as const;

for (const machine of MACHINES) {
  for (const how of ["destroyed", "closed"] as const) {
    Deno.test(`${Object.values(machine).join(" ")}: of what is ${how}, all say since when`, async () => {
      const hv = await Hypervisor.demo(machine);
      const [dom] = hv.domains, [vcpu] = dom.vcpus;
      await dom.until("execute", { address: "timer" });
      const { shadow, ioreq, screen, console, cpuid } = dom;
      const stop = await vcpu.step();
      const objects: Record<string, object | undefined> = {
        dom,
        vcpu,
        guest: dom.memory,
        linear: vcpu.memory,
        console,
        cpuid,
        tables: vcpu.pageTables,
        stop,
        ioreq,
        screen,
        shadow,
        table: shadow?.tables[0],
      };
      if (how === "closed") Object.assign(objects, { hv, machine: hv.memory, cpu: hv.cpus[0] });
      const breakpoint = dom.break("execute", { address: 0 });
      if (how === "closed") await hv.close();
      else dom.destroy();

      const gone = how === "closed"
        ? /is destroyed, since instruction [1-9]|is closed, since instruction [1-9]/
        : /^[a-zA-Z". -]+: domain demo is destroyed, since instruction [1-9][0-9,]* of its host/;
      for (const [label, object] of Object.entries(objects)) {
        if (!object) continue;
        for await (const [member, message] of members(label, object)) {
          if (message === null) assert(KNOWN.has(member), `${member} says nothing`);
          else if (member !== "console.shows") assertMatch(message, gone, member);
        }
        assert(typeof Deno.inspect(object) === "string");
        const looked = !["stop", "ioreq", "screen", "console"].includes(label);
        if (looked) assertMatch(Deno.inspect(object), /destroyed|closed/, label);
      }
      for (const name of ["rax", "cr3", "xmm0", "efer", "gdtr"]) {
        assertThrows(() => vcpu.regs[name], Error, "registers: domain demo is destroyed, since");
      }
      assertThrows(() => vcpu.regs.rax = 1n, Error, "registers: domain demo is destroyed, since");
      assertThrows(() => breakpoint.enabled = true, Error, "breakpoint 1 (execute) is deleted");
      assertMatch(Deno.inspect(vcpu.regs), /destroyed/);
      await hv.close();
    });
  }
}

for (const machine of MACHINES) {
  Deno.test(`${Object.values(machine).join(" ")}: a stop that is past changes nothing any more`, async () => {
    await using hv = await Hypervisor.demo(machine);
    const [dom] = hv.domains, [vcpu] = dom.vcpus;
    const past = await dom.until("execute", { address: "timer" });
    await vcpu.step(5);
    const before = dom.stateHash();
    const answers: [string, () => unknown][] = [
      ["continue", () => past.continue()],
      ["skip", () => past.skip()],
      ["inject", () => past.inject("#GP")],
      ["reply", () => past.reply({ value: 1 })],
      ["setRegisters", () => past.setRegisters({ rax: 0x1234 })],
      ["raw", () => past.raw],
    ];
    for (const [name, answer] of answers) {
      const { message } = assertThrows(answer, Error);
      assertMatch(
        message,
        new RegExp(
          `^${name}: the guest has gone on: this "execute" was at instruction [0-9,]+, and`,
        ),
      );
    }
    assertEquals(dom.stateHash(), before);
    assertMatch(Deno.inspect(past), /^execute/);
    assertEquals(typeof past.regs.rip, "bigint", "its registers are a copy");
  });
}

Deno.test("whoever waits for a domain that has ended is told at once", async () => {
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains;
  subjectOf(dom).inner.end("poweroff", "by the test");
  await dom.continue();
  const ended = /ended/;
  assertMatch((await assertRejects(() => dom.wait("io"), Error)).message, ended);
  assertMatch((await assertRejects(() => dom.console.shows("never"), Error)).message, ended);
  assertMatch((await assertRejects(() => dom.until("io"), Error)).message, ended);
  assertMatch((await assertRejects(() => dom.vcpus[0].step(), Error)).message, ended);
  assertThrows(() => dom.unpause(), Error, "has ended: poweroff (by the test)");
  assertEquals(dom.breakpoints.length, 0);
});
