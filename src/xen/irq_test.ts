import { assertEquals, assertThrows } from "@std/assert";
import { Machine } from "../machine/machine.ts";
import { HostInterrupts } from "./irq.ts";

Deno.test("the host's timer rings again after its interrupt was handled", () => {
  const machine = new Machine({ memory: 1 << 16 });
  const irq = new HostInterrupts(machine.cpu), { bus } = machine;
  let rung = 0;
  irq.handlers.set(0, () => rung++);
  for (const time of [100, 250, 251]) {
    irq.setTimer(time);
    bus.run(time - 1);
    assertEquals([bus.interruptPending(), bus.deadline()], [false, time], "not before its time");
    bus.run(time);
    assertEquals([bus.interruptPending(), bus.deadline()], [true, Infinity]);
    irq.handle(bus.acknowledge());
    assertEquals(bus.interruptPending(), false);
  }
  assertEquals(rung, 3);
  assertThrows(() => irq.handle(0x31), Error, "0x31");
});
