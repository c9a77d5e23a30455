// HLT ends by what the processor can take, and by nothing else: in every way to run a guest.
import { assertEquals } from "@std/assert";
import { AT, type Way, WayGuest, wayName, WAYS } from "../debug/testing/ways.ts";

/** The 8259s at 20h and 28h, IRQ 0 alone let through; the timer every 100 microseconds. */
const PIC = (mask: number) => `
  mov al, 0x11
  out 0x20, al
  mov al, 0x20
  out 0x21, al
  mov al, 4
  out 0x21, al
  mov al, 1
  out 0x21, al
  mov al, ${mask}
  out 0x21, al
  mov al, 0x34
  out 0x43, al
  mov al, 119
  out 0x40, al
  mov al, 0
  out 0x40, al
`;
const APIC = 0xfee0_0000;
const register = (offset: number, value: number) => `mov dword [${APIC + offset}], ${value}\n`;
/** The local APIC's timer, periodic, at a vector; the 8259 is cut off. */
const TIMER = (vector: number) =>
  register(0x350, 0x1_0000) + register(0xf0, 0x1ff) + register(0x3e0, 0xb) +
  register(0x320, 0x2_0000 | vector) + register(0x380, 5000);

const HANDLERS = 0xe000;

/** Runs code that ends in a loop of HLTs, each counted in ESI; lets time pass; HLTs that ended. */
async function halts(way: Way, code: string, then?: (g: WayGuest) => void): Promise<WayGuest> {
  const g = await WayGuest.make(way);
  g.enter("flat32", `xor esi, esi\nxor edi, edi\n${code}\nagain:\nhlt\ninc esi\njmp again`);
  // Handlers count in EDI and end what they serve: both controllers.
  [2, 0x20, 0x40, 0x50].forEach((vector, n) => {
    const eoi = vector === 2
      ? ""
      : vector === 0x20
      ? "mov al, 0x20\nout 0x20, al"
      : register(0xb0, 0);
    const at = HANDLERS + 0x40 * n;
    g.write(at, g.assemble("flat32", `add edi, ${vector}\n${eoi}\niretd`));
    g.write64(AT.idt + 8 * vector, BigInt(at) | 8n << 16n | 0x8e00n << 32n);
  });
  g.run(10_000);
  then?.(g);
  g.idle(20);
  return g;
}

for (const way of WAYS) {
  const name = wayName(way);

  Deno.test(`HLT with IF clear stays where it is, whatever is pending (${name})`, async () => {
    const g = await halts(way, PIC(0xfe));
    assertEquals(g.domain.platform!.ports[0].interruptPending(), true);
    const { count } = g.domain;
    assertEquals([g.reg("rsi"), g.reg("rdi"), g.halted], [0n, 0n, true]);
    assertEquals(g.host.runOnce(1_000_000), undefined, "nobody can run");
    assertEquals([g.domain.count, g.reg("rsi"), g.halted], [count, 0n, true]);
  });

  Deno.test(`an NMI ends HLT with IF clear, and not while one is being handled (${name})`, async () => {
    const g = await halts(way, PIC(0xfe), (g) => g.nmi());
    assertEquals([g.reg("rsi"), g.reg("rdi"), g.halted], [1n, 2n, true]);
    g.nmi();
    g.run();
    assertEquals([g.reg("rsi"), g.reg("rdi"), g.halted], [2n, 4n, true]);
    // A handler that halts hears no other.
    g.write(HANDLERS, g.assemble("flat32", "mov ebx, 0x99\nhlt\nhlt\nmov ebx, 0x98\nhlt"));
    g.nmi();
    g.run();
    g.nmi();
    g.run();
    g.idle(20);
    assertEquals([g.reg("rbx"), g.halted], [0x99n, true]);
  });

  Deno.test(`of NMIs that come together one is taken and one waits; while one is handled, one waits (${name})`, async () => {
    const three = (g: WayGuest) => [1, 2, 3].forEach(() => g.nmi());
    const g = await halts(way, PIC(0xfe), three);
    assertEquals([g.reg("rsi"), g.reg("rdi"), g.halted], [1n, 4n, true]);
    // A handler that waits for a word from outside.
    const GO = 0xf000;
    const wait = `inc edi\nwait:\ncmp byte [${GO}], 0\nje wait\niretd`;
    g.write(HANDLERS, g.assemble("flat32", wait));
    g.nmi();
    g.run(100);
    assertEquals(g.reg("rdi"), 5n);
    three(g);
    g.run(100);
    g.write(GO, Uint8Array.of(1));
    g.run();
    assertEquals([g.reg("rdi"), g.halted], [6n, true]);
  });

  Deno.test(`STI holds an NMI back for one instruction, as it does interrupts (${name})`, async () => {
    const g = await WayGuest.make(way);
    g.enter("flat32", "sti\nnop\nnop\nnop\nhlt");
    g.write(HANDLERS, g.assemble("flat32", "mov eax, [esp]\ncli\nhlt"));
    g.write64(AT.idt + 8 * 2, BigInt(HANDLERS) | 8n << 16n | 0x8e00n << 32n);
    const from = g.reg("rip");
    g.run(1);
    assertEquals(g.reg("rip"), from + 1n);
    g.nmi();
    g.run(1000);
    assertEquals(g.reg("rax"), from + 2n);
  });

  Deno.test(`STI; HLT ends at each interrupt (${name})`, async () => {
    const g = await halts(way, `${PIC(0xfe)}sti`);
    assertEquals(g.reg("rdi"), g.reg("rsi") * 0x20n);
    assertEquals(g.reg("rsi") >= 10n, true);
  });

  Deno.test(`HLT stays for what the 8259 or the local APIC masks (${name})`, async () => {
    for (
      const [what, code] of [
        ["8259 mask", `${PIC(0xff)}sti`],
        ["LINT0 mask", `${PIC(0xfe)}${register(0xf0, 0x1ff)}${register(0x350, 0x1_0000)}sti`],
        ["TPR above the vector", `${TIMER(0x40)}${register(0x80, 0x50)}sti`],
        ["TPR in the vector's class", `${TIMER(0x4f)}${register(0x80, 0x40)}sti`],
        ["LVT mask", `${TIMER(0x40)}${register(0x320, 0x3_0040)}sti`],
      ]
    ) {
      const g = await halts(way, code);
      assertEquals([what, g.reg("rsi"), g.reg("rdi"), g.halted], [what, 0n, 0n, true]);
    }
    // Below the vector it comes.
    const g = await halts(way, `${TIMER(0x40)}${register(0x80, 0x30)}sti`);
    assertEquals([g.reg("rsi") >= 3n, g.reg("rdi")], [true, g.reg("rsi") * 0x40n]);
  });

  Deno.test(`HLT stays while the interrupt in service is not below the pending one (${name})`, async () => {
    // The handler of 50h ends nothing and halts with IF set: 40h is below it.
    const g = await WayGuest.make(way);
    g.enter(
      "flat32",
      `xor esi, esi\n${TIMER(0x40)}
      ${register(0x300, 0x4_4050)}sti\nnop\nnop\nhlt`,
    );
    g.write(0xe000, g.assemble("flat32", "sti\nhlt\nmov esi, 1\nhlt"));
    g.write64(AT.idt + 8 * 0x50, BigInt(0xe000) | 8n << 16n | 0x8e00n << 32n);
    g.run(10_000);
    g.idle(20);
    assertEquals([g.reg("rip"), g.reg("rsi"), g.halted], [0xe002n, 0n, true]);
  });

  Deno.test(`a guest that halts with interrupts off ends, though its timer goes on (${name})`, async () => {
    const { host, domain } = await halts(way, PIC(0xfe));
    const ended = new Promise<string>((resolve) =>
      domain.onState.add(() => domain.ended && resolve(domain.describe()))
    );
    host.interactive = true;
    host.wake();
    assertEquals(await ended, "hang (halted with interrupts off)");
  });

  Deno.test(`a guest that halts with interrupts off waits for an NMI that will come (${name})`, async () => {
    // IRQ 0 through LINT0 as an NMI; the 8259 is served by its handler.
    const g = await halts(way, `${PIC(0xfe)}${register(0xf0, 0x1ff)}${register(0x350, 0x400)}`);
    assertEquals([g.domain.platform!.ports[0].unmaskable, g.domain.ended], [true, false]);
    assertEquals([g.reg("rsi") >= 1n, g.reg("rdi")], [true, g.reg("rsi") * 2n]);
  });
}
