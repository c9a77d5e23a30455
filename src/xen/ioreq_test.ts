import { assertEquals } from "@std/assert";
import { StateRegistry } from "../machine/state_block.ts";
import type { Plain } from "../machine/record.ts";
import { IoreqServers, IoreqSlot } from "./ioreq.ts";
import type { Platform } from "./platform.ts";

/** A domain with one device, which answers when it is told to, and slots of two vCPUs. */
function twoSlots() {
  const servers = new IoreqServers(), told: string[] = [];
  const answers: ((value: number) => void)[] = [];
  servers.serve({
    port: [0x300, 0x301],
    read: () => new Promise<number>((resolve) => answers.push(resolve)),
  });
  const platform = () => ({ ioRead: () => 0x77 } as unknown as Platform);
  const slot = (n: number) =>
    new IoreqSlot(servers, platform, n, {
      answered: () => told.push(`${n} answered`),
      failed: (error) => told.push(`${n} failed: ${error.message}`),
      dropped: (text) => told.push(`${n} ${text}`),
    });
  const read = (s: IoreqSlot) => {
    s.begin();
    return s.read("pio", 0x300, 1);
  };
  return { slots: [slot(0), slot(1)], answers, told, read };
}

Deno.test("a request goes through its slot's states, and its answer to the vCPU that asked", async () => {
  const { slots: [a, b], answers, told, read } = twoSlots();
  const states = () => [a.state, b.state];
  assertEquals(states(), ["none", "none"]);
  assertEquals([read(a), read(b)], [undefined, undefined]);
  assertEquals(states(), ["inprocess", "inprocess"]);
  assertEquals([a.waiting, b.waiting, answers.length], [true, true, 2]);
  answers[1](0x22);
  await undefined;
  assertEquals(states(), ["inprocess", "resp_ready"]);
  assertEquals(told, ["1 answered"]);
  // The device is not asked again, by whichever of them.
  assertEquals([read(a), read(b), answers.length], [undefined, 0x22, 2]);
  assertEquals(states(), ["inprocess", "none"]);
  answers[0](0x11);
  await undefined;
  assertEquals([read(a), a.state], [0x11, "none"]);
});

Deno.test("what an instruction asked before is known when it is executed again, until it is done", async () => {
  const { slots: [a], answers, read } = twoSlots();
  const both = () => [read(a), a.read("pio", 0x60, 1), a.read("pio", 0x301, 1)];
  assertEquals(both(), [undefined, undefined, undefined]);
  answers[0](1);
  await undefined;
  assertEquals(both(), [1, 0x77, undefined]);
  answers[1](2);
  await undefined;
  assertEquals([both(), answers.length], [[1, 0x77, 2], 2]);
  a.done();
  assertEquals([read(a), answers.length], [undefined, 3]);
});

Deno.test("an answer is dropped with the instruction that is given up, whether it came or will", async () => {
  const { slots: [a, b], answers, told, read } = twoSlots();
  read(a), read(b);
  a.abandon("because");
  answers[0](1), answers[1](2);
  await undefined;
  b.abandon("because");
  const dropped = "the late answer to the read of 1 byte at port 0x300 is dropped: because";
  assertEquals(told, [`0 ${dropped}`, "1 answered", `1 ${dropped}`]);
  assertEquals([a.state, b.state, a.waiting], ["none", "none", false]);
});

Deno.test("an answer that was not taken yet is saved, a request without one is not", async () => {
  const { slots: [a, b], answers, read } = twoSlots(), registry = new StateRegistry();
  a.register(registry.part("a")), b.register(registry.part("b"));
  read(a), read(b);
  answers[0](0x11);
  await undefined;
  const saved = registry.save();
  const { slots: [c, d], answers: later, read: readAgain } = twoSlots(),
    other = new StateRegistry();
  c.register(other.part("a")), d.register(other.part("b"));
  other.prepare(saved as unknown as Plain)();
  assertEquals(other.save(), saved);
  assertEquals([readAgain(c), readAgain(d), later.length], [0x11, undefined, 1]);
});
