import { assert, assertEquals, assertThrows } from "@std/assert";
import { MSR } from "../abi/x86/msr.ts";
import { register } from "../machine/apic/registers.ts";
import type { Plain } from "../machine/record.ts";
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
  assertEquals(board.ports[2].signals, { nmi: 1, init: false, startup: -1 });
  assertEquals(send(0x4500, 2), ["signalled 2"]);
  assertEquals(
    board.ports[2].signals,
    { nmi: 0, init: true, startup: -1 },
    "INIT ends the rest",
  );
  assertEquals(send(0x469a, 2), ["signalled 2"]);
  assertEquals(board.ports[2].signals, { nmi: 0, init: true, startup: 0x9a });
  assertEquals(send(0xc4500, 0), ["signalled 1", "signalled 2"]);
  assertEquals(board.ports[2].signals.startup, -1);
  assertEquals(board.ports[0].signals, { nmi: 0, init: false, startup: -1 });
});

Deno.test("Board: fw_cfg and CMOS tell the number of processors", () => {
  for (const n of [1, 2, 16]) {
    const { board } = made(n);
    const item = (selector: number) => {
      board.ioWrite(0x510, 2, selector);
      return [board.ioRead(0x511, 1), board.ioRead(0x511, 1)];
    };
    assertEquals([item(5), item(15)], [[n, 0], [n, 0]]);
    board.ioWrite(0x70, 1, 0x5f);
    assertEquals(board.ioRead(0x71, 1), n - 1);
  }
});

Deno.test("Board: the 8259 interrupts the bootstrap processor alone, NMI's line is LINT1 of all", () => {
  const { board, write, told } = made(3);
  for (const [port, value] of [[0x20, 0x11], [0x21, 8], [0x21, 4], [0x21, 1], [0x21, 0]]) {
    board.ioWrite(port, 1, value);
  }
  for (let n = 1; n < 3; n++) {
    write(n, register.svr, 0x1ff);
    write(n, register.lvtLint0, 0x700);
    write(n, register.lvtLint1, n === 1 ? 0x400 : 0x10400);
  }
  board.pic.setLine(4, true);
  assertEquals(board.ports.map((port) => port.interruptPending()), [true, false, false]);
  board.ports[1].writeMsr(MSR.APIC_BASE, 0xfee0_0000n);
  assert(!board.ports[1].interruptPending(), "straight to the first only");
  board.ports[1].writeMsr(MSR.APIC_BASE, 0xfee0_0800n);
  write(1, register.svr, 0x1ff);
  write(1, register.lvtLint1, 0x400);
  assertEquals(board.ports.map((port) => port.acknowledge()), [12, -1, -1]);
  told.length = 0;
  for (const local of board.localApics) local.setLint(1, true);
  assertEquals(told, ["signalled 0", "signalled 1"], "2 has it masked");
});

Deno.test("Board: an ExtINT message makes any processor ask the 8259", () => {
  const { board, write } = made(2);
  for (const [port, value] of [[0x20, 0x11], [0x21, 8], [0x21, 4], [0x21, 1], [0x21, 0]]) {
    board.ioWrite(port, 1, value);
  }
  write(0, register.lvtLint0, 0x10700);
  board.ioApic.writeRegister(0x11, 1 << 24);
  board.ioApic.writeRegister(0x10, 0x700);
  board.pic.setLine(3, true);
  board.ioApic.setLine(0, true);
  assertEquals(board.ports.map((port) => port.interruptPending()), [false, true]);
  assertEquals(board.ports[1].acknowledge(), 11);
  assertEquals(board.ports[1].interruptPending(), false);
});

Deno.test("Board: each local APIC's state is a block of its own, saved and loaded apart", () => {
  const blocks = (board: Board) => {
    const found = new Map<string, { save(): Plain; load(state: Plain): void }>();
    const register = (block: { name: string }) => found.set(block.name, block as never);
    board.register({ register } as never);
    return found;
  };
  const one = made(3), other = made(3);
  one.write(2, register.svr, 0x1ff);
  one.write(0, register.icrHigh, 2 << 24);
  one.write(0, register.icrLow, 0x44);
  one.write(0, register.icrLow, 0x4400);
  const from = blocks(one.board), to = blocks(other.board);
  const names = [...from.keys()].filter((name) => name.startsWith("lapic"));
  assertEquals(names, ["lapic0", "lapic1", "lapic2"]);
  to.get("lapic2")!.load(structuredClone(from.get("lapic2")!.save()));
  assertEquals(other.board.ports[2].signals.nmi, 1);
  assertEquals(other.board.ports.map((port) => port.interruptPending()), [false, false, true]);
  assertEquals(other.board.localApics[0].state.icrHigh, 0);
  assertEquals(from.get("lapic1")!.save(), to.get("lapic1")!.save());
});

Deno.test("Board: a processor's timer runs by its own counter, and interrupts it alone", () => {
  const { board, read, write } = made(2);
  for (const n of [0, 1]) {
    write(n, register.svr, 0x1ff);
    write(n, register.lvtTimer, 0x40040);
    board.ports[n].writeMsr(MSR.TSC_DEADLINE, 1000n);
  }
  assertEquals(board.localApics.map((local) => local.deadline()), [1000, 1001]);
  assertEquals(board.deadline(), 1000);
  board.run(1000);
  assertEquals(board.ports.map((port) => port.interruptPending()), [true, false]);
  assertEquals([board.deadline(), board.ports[1].readMsr(MSR.TSC_DEADLINE)], [1001, 1000n]);
  assertEquals(read(1, register.lvtTimer), 0x40040);
});

Deno.test("Board: without CPUID's APIC no processor has one's MSRs; without x2APIC none the mode", () => {
  const none = made(2, ["apic"]);
  assertEquals(none.board.ports.map((port) => port.readMsr(MSR.APIC_BASE)), [undefined, undefined]);
  const { board } = made(2, ["x2apic"]);
  assertEquals(board.ports[1].readMsr(MSR.APIC_BASE), 0xfee0_0800n, "no bootstrap processor");
  assert(!board.ports[1].writeMsr(MSR.APIC_BASE, 0xfee0_0c00n));
  assert(made(2).board.ports[1].writeMsr(MSR.APIC_BASE, 0xfee0_0c00n));
});

Deno.test("Board: a copy has all processors' local APICs as they are", () => {
  const { board, write } = made(2);
  write(1, register.tpr, 0x30);
  const copy = board.copy();
  assertEquals(copy.localApics.map((local) => local.state), board.localApics.map((l) => l.state));
  copy.ports[1].cr8 = 0;
  assertEquals(board.ports[1].cr8, 3);
});

Deno.test("Board: another number of processors than 1 to 16 is refused", () => {
  for (const n of [0, 17, 2.5]) {
    assertThrows(() => made(n), RangeError, `from 1 to 16 was expected, ${n} was given`);
  }
});
