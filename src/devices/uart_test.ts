import { assert, assertEquals } from "@std/assert";
import { checkSaveLoad, runTo, TestContext } from "./testing.ts";
import { serialPorts, Uart } from "./uart.ts";

function made(): { uart: Uart; context: TestContext; sent: number[]; text: () => string } {
  const context = new TestContext();
  const sent: number[] = [];
  const uart = new Uart(context, { ...serialPorts.com1, output: (byte) => sent.push(byte) });
  return { uart, context, sent, text: () => String.fromCharCode(...sent) };
}
const [DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => 0x3f8 + i);
const FCR = IIR;

Deno.test("Uart sends at once and is empty again", () => {
  const { uart, text } = made();
  for (const byte of new TextEncoder().encode("hello")) {
    assertEquals(uart.read(LSR, 1), 0x60);
    uart.write(DATA, 1, byte);
  }
  assertEquals(text(), "hello");
});

Deno.test("Uart raises the transmitter's interrupt when enabled and after each byte", () => {
  const { uart, context } = made();
  uart.write(MCR, 1, 0x08);
  uart.write(IER, 1, 2);
  assert(context.lines[4]);
  assertEquals(uart.read(IIR, 1), 0x02);
  assertEquals(uart.read(IIR, 1), 0x01, "reading IIR clears it");
  assert(!context.lines[4]);
  uart.write(DATA, 1, 65);
  assert(context.lines[4]);
  context.edges.length = 0;
  uart.write(DATA, 1, 66);
  assertEquals(context.edges.map(([, level]) => level), [false, true], "each byte has its edge");
  uart.write(IER, 1, 0);
  assert(!context.lines[4]);
});

Deno.test("Uart's interrupt needs OUT2", () => {
  const { uart, context } = made();
  uart.write(IER, 1, 2);
  assert(!context.lines[4]);
  uart.write(MCR, 1, 8);
  assert(context.lines[4]);
});

Deno.test("Uart receives without FIFO, one byte at a time, losing none", () => {
  const { uart, context } = made();
  uart.write(MCR, 1, 8);
  uart.write(IER, 1, 1);
  uart.receive("ab");
  assert(context.lines[4]);
  assertEquals(uart.read(IIR, 1), 4);
  assertEquals(uart.read(DATA, 1), 97);
  assertEquals(uart.read(LSR, 1), 0x61);
  assertEquals(uart.read(DATA, 1), 98);
  assertEquals(uart.read(LSR, 1), 0x60);
  assert(!context.lines[4]);
});

Deno.test("Uart interrupts at the FIFO's trigger level, and below it after four characters' time", () => {
  const { uart, context } = made();
  uart.write(FCR, 1, 0x81); // level 8
  uart.write(LCR, 1, 0x83);
  uart.write(DATA, 1, 1);
  uart.write(IER, 1, 0);
  uart.write(LCR, 1, 0x03); // 8 bits, 115200 baud
  uart.write(MCR, 1, 8);
  uart.write(IER, 1, 1);
  uart.receive("1234567");
  assert(!context.lines[4]);
  const character = 10 * 1e9 / 115200;
  assertEquals(uart.characterTime(), Math.round(character));
  runTo(uart, context, Math.floor(3.9 * character));
  assertEquals(uart.read(IIR, 1), 0xc1);
  runTo(uart, context, Math.ceil(4.1 * character));
  assert(context.lines[4]);
  assertEquals(uart.read(IIR, 1), 0xcc);
  uart.receive("8");
  assertEquals(uart.read(IIR, 1), 0xc4);
  uart.read(DATA, 1);
  assertEquals(uart.read(IIR, 1), 0xc1);
});

Deno.test("Uart keeps what does not fit into the FIFO", () => {
  const { uart } = made();
  uart.write(FCR, 1, 1);
  const sent = "x".repeat(100) + "!";
  uart.receive(sent);
  assertEquals(uart.state.fifo.length, 16);
  let text = "";
  while (uart.read(LSR, 1) & 1) text += String.fromCharCode(uart.read(DATA, 1));
  assertEquals(text, sent);
});

Deno.test("Uart in loopback returns data and modem lines, and overruns", () => {
  const { uart, sent } = made();
  uart.write(MCR, 1, 0x1a);
  assertEquals(uart.read(MSR, 1) & 0xf0, 0x90, "as Linux's autoconfig expects");
  assertEquals(uart.read(MSR, 1) & 0x0f, 0, "changes are cleared by reading");
  uart.write(DATA, 1, 0x5a);
  uart.write(DATA, 1, 0xa5);
  assertEquals(uart.read(LSR, 1), 0x63);
  assertEquals(uart.read(LSR, 1), 0x61);
  assertEquals(uart.read(DATA, 1), 0xa5);
  assertEquals(sent, []);
  uart.write(MCR, 1, 0);
  assertEquals(uart.read(MSR, 1), 0xb2, "DSR changed; DCD and CTS were looped");
});

Deno.test("Uart is a 16550A to Linux's probes", () => {
  const { uart } = made();
  for (const value of [0x00, 0x0f, 0xff]) {
    uart.write(IER, 1, value);
    assertEquals(uart.read(IER, 1), value & 15);
  }
  uart.write(IER, 1, 0);
  uart.write(SCR, 1, 0xa5);
  assertEquals(uart.read(SCR, 1), 0xa5);
  uart.write(FCR, 1, 1);
  assertEquals(uart.read(IIR, 1) >> 6, 3);
  uart.write(FCR, 1, 0);
  assertEquals(uart.read(IIR, 1) >> 6, 0);
  uart.write(LCR, 1, 0x80);
  uart.write(DATA, 1, 0x34);
  uart.write(IER, 1, 0x12);
  assertEquals([uart.read(DATA, 1), uart.read(IER, 1)], [0x34, 0x12]);
  assertEquals(uart.state.divisor, 0x1234);
});

Deno.test("Uart passes a break on as a zero with BI", () => {
  const { uart, context } = made();
  uart.write(MCR, 1, 8);
  uart.write(IER, 1, 4);
  uart.receiveBreak();
  assert(context.lines[4]);
  assertEquals(uart.read(IIR, 1), 6);
  assertEquals(uart.read(LSR, 1), 0x71);
  assert(!context.lines[4]);
  assertEquals(uart.read(DATA, 1), 0);
});

Deno.test("Uart survives save and load", () => {
  checkSaveLoad((context) => new Uart(context, serialPorts.com2), {
    rounds: 40,
    extra: (uart, random) =>
      random.next(4) ? uart.receive(new Uint8Array(random.next(40))) : uart.receiveBreak(),
  });
});
