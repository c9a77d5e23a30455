// AMD's performance counters of the bare processor: their interrupt by the local APIC, and saved states.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { EVENT, EVENT_SELECT as B } from "../machine/counters.ts";
import { RecordError } from "../machine/record.ts";
import { advance } from "../debug/lockstep.ts";
import { hostOf, kernel } from "../debug/testing/hosts.ts";
import { AT, WayGuest } from "../debug/testing/ways.ts";
import { subjectOf } from "../debug/domain.ts";

const ALL = B.enable | B.user | B.system, INTERRUPT = ALL | B.interrupt;
const wrmsr = (number: number, low: number, high = 0) =>
  `mov ecx, ${number}\nmov eax, ${low >>> 0}\nmov edx, ${high}\nwrmsr\n`;

/** Sends an interrupt by an LVT entry after 1000 of an event, out of a loop. */
const counted = (entry: number, event: number) => `
  mov dword ptr [0xfee000f0], 0x1ff
  mov dword ptr [0xfee00340], ${entry}
  sti
  ${wrmsr(0xc001_0006, -1000, -1)}
  ${wrmsr(0xc001_0002, INTERRUPT | event)}
  mov ebx, 0x99
  mov esi, 10000
again: dec esi
  jnz again
  hlt`;

Deno.test("an overflow comes by the local APIC's entry: as NMI, by a vector, or not at all", async () => {
  const g = await WayGuest.make({ cpu: "amd", type: "bare", paging: "hap" });
  for (const event of [EVENT.instructions, EVENT.clocks]) {
    for (const [entry, vector] of [[0x400, 2n], [0x21, 0x21n], [0x1_0400, 0x99n]] as const) {
      g.enter("flat32", counted(entry, event), { regs: { rsp: BigInt(AT.stack) } });
      // The bare processor's reset is not the APIC's.
      g.domain.platform!.reset();
      assertEquals(g.run(50_000), "blocked");
      const what = `entry ${entry.toString(16)}, event ${event.toString(16)}`;
      // Two instructions before the loop, and 499 rounds of it.
      const left = vector === 0x99n ? 0n : 10_000n - 499n;
      assertEquals([g.reg("rbx"), g.reg("rsi")], [vector, left], what);
    }
  }
});

/** Three counters, by privilege level too; a fault in each round, and an NMI every 777 instructions. */
const GUEST = kernel(`
  lgdt [gdtr]
  jmp 8:flat
flat: mov esp, 0x180000
  lidt [idtr]
  mov dword ptr [0xfee000f0], 0x1ff
  mov dword ptr [0xfee00340], 0x400
  ${wrmsr(0xc001_0004, -777, -1)}
  ${wrmsr(0xc001_0000, INTERRUPT | EVENT.instructions)}
  ${wrmsr(0xc001_0001, ALL | EVENT.clocks)}
  ${wrmsr(0xc001_0002, B.enable | B.system | EVENT.instructions)}
again: ud2
  out 0x80, al
  jmp again
invalid: add dword ptr [esp], 2
  iretd
overflow: push eax
  push ecx
  push edx
  inc dword ptr [0x200000]
  ${wrmsr(0xc001_0004, -777, -1)}
  pop edx
  pop ecx
  pop eax
  iretd
gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr: dw 23
  dd gdt
idt: dq 0, 0
  dw overflow - 0x100000, 8, 0x8e00, 0x10
  dq 0, 0, 0
  dw invalid - 0x100000, 8, 0x8e00, 0x10
idtr: dw 0x7f
  dd idt`);

Deno.test("counters that count are saved and loaded: save, run on, load, run on = run on", async () => {
  await using one = await hostOf({ cpu: "amd", paging: "bare" }, GUEST);
  await using other = await hostOf({ cpu: "amd", paging: "bare" }, GUEST);
  const overflows = () => new DataView(one.dom.memory.read(0x20_0000, 4).buffer).getUint32(0, true);
  for (const piece of [50, 700, 76, 1, 1, 1, 1001]) {
    advance(one.dom, piece);
    const saved = one.hv.save();
    advance(one.dom, 2000);
    const expected = one.hv.stateHash();
    for (const { hv, dom } of [one, other]) {
      hv.load(saved);
      for (const part of [333, 1, 666, 1000]) advance(dom, part);
      assertEquals(hv.stateHash(), expected);
    }
  }
  assert(overflows() > 10, `${overflows()} overflows`);
});

Deno.test("a saved counter of more than 48 bits is refused", async () => {
  await using one = await hostOf({ cpu: "amd", paging: "bare" }, GUEST);
  const { cpu } = subjectOf(one.dom).inner.vcpus[0], before = one.hv.save();
  cpu.set("perfCtr1", 1n << 48n);
  const wrong = one.hv.save();
  one.hv.load(before);
  assertThrows(
    () => one.hv.load(wrong),
    RecordError,
    "the processor's perfCtr1 is 0x1000000000000",
  );
});
