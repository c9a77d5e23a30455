import { assert, assertEquals } from "@std/assert";
import { MSR } from "../abi/x86/msr.ts";
import { register } from "../machine/apic/registers.ts";
import type { PlatformEvents } from "../xen/platform.ts";
import { Board } from "./board.ts";

/** A board, what it tells its domain, and its processors' accesses to their local APICs. */
function made(vcpus: number, absent: readonly string[] = []) {
  const told: string[] = [];
  const events: PlatformEvents = {
    now: () => 0,
    changed: () => {},
    stall: () => {},
    output: () => {},
    end: (reason, detail) => told.push(`${reason} ${detail}`),
    post: () => {},
    a20: () => {},
    signalled: (processor) => told.push(`signalled ${processor}`),
    priority: (cr8, processor) => told.push(`priority ${cr8} ${processor}`),
    timeOfTsc: (tsc, processor) => Number(tsc) + processor,
    has: (feature) => !absent.includes(feature),
  };
  const board = new Board(events, { unixTime: 0, memory: 4 << 20, vcpus, e820: [] });
  const at = (number: number) => 0xfee00000 + number * 16;
  return {
    board,
    told,
    read: (processor: number, number: number) => board.mmioRead(at(number), 4, processor),
    write: (processor: number, number: number, value: number) =>
      board.mmioWrite(at(number), 4, value, processor),
  };
}

Deno.test("Board: each processor finds its own local APIC at FEE00000h", () => {
  const { board, read, write, told } = made(3);
  assertEquals([0, 1, 2].map((n) => read(n, register.id)), [0, 1 << 24, 2 << 24]);
  assertEquals(board.ports.map(({ id }) => id), [0, 1, 2]);
  told.length = 0;
  write(1, register.tpr, 0x50);
  assertEquals([0, 1, 2].map((n) => read(n, register.tpr)), [0, 0x50, 0]);
  assertEquals([board.ports[1].cr8, told], [5, ["priority 5 1"]]);
  assert(board.ports[2].writeMsr(MSR.APIC_BASE, 0xfed0_0800n));
  assertEquals(read(2, register.id), 0xffff_ffff, "it is elsewhere now");
  assertEquals(board.mmioRead(0xfed0_0020, 4, 2), 2 << 24);
  assertEquals(board.mmioRead(0xfed0_0020, 4, 1), 0xffff_ffff, "for its own processor alone");
  assertEquals(read(1, register.id), 1 << 24);
});

Deno.test("Board: an access over the end of a local APIC's page goes byte by byte, each processor's", () => {
  const { board } = made(2);
  board.ports[1].writeMsr(MSR.APIC_BASE, 0xfee0_1800n);
  const over = (processor: number) => board.mmioRead(0xfee0_0ffe, 4, processor);
  assertEquals([over(0), over(1)], [0xffff_0000, 0x0000_ffff], "zeroes are a local APIC's");
});

Deno.test("Board: NMI, INIT and start-up wait at the port of whom they are for", () => {
  const { board, write, told } = made(3);
  const send = (low: number, destination: number) => {
    write(0, register.icrHigh, destination << 24);
    write(0, register.icrLow, low);
    return told.splice(0).filter((text) => text.startsWith("signalled"));
  };
  told.length = 0;
  assertEquals(send(0x4400, 2), ["signalled 2"]);
  assertEquals(board.ports[2].signals, { nmi: true, init: false, startup: -1 });
  assertEquals(send(0x4500, 2), ["signalled 2"]);
  assertEquals(
    board.ports[2].signals,
    { nmi: false, init: true, startup: -1 },
    "INIT ends the rest",
  );
  assertEquals(send(0x469a, 2), ["signalled 2"]);
  assertEquals(board.ports[2].signals, { nmi: false, init: true, startup: 0x9a });
  assertEquals(send(0xc4500, 0), ["signalled 1", "signalled 2"]);
  assertEquals(board.ports[2].signals.startup, -1);
  assertEquals(board.ports[0].signals, { nmi: false, init: false, startup: -1 });
});
