// Real mode with a debugger on it: where breakpoints hit and steps lead is the same whatever stands in
// for real mode.
import { assert, assertEquals } from "@std/assert";
import { romOf } from "../testing/prologue.ts";
import { hostUnder, Hypervisor } from "../hypervisor.ts";
import { subjectOf } from "../domain.ts";

/** Interrupts, segments, strings and flags that virtual-8086 mode refuses; a timer interrupts. */
const PROGRAM = `bits 16
  org 0
  cli
  mov ax, 0x1000
  mov ss, ax
  mov sp, 0x8000
  push ax                   ; an INT that finds no shadow of its stack is injected, and not counted
  pop ax
  xor ax, ax
  mov ds, ax
  mov word [0x100], handler
  mov word [0x102], 0xf000
  mov word [0x20], timer
  mov word [0x22], 0xf000
  mov al, 0x34
  out 0x43, al
  mov al, 0x20
  out 0x40, al
  mov al, 0
  out 0x40, al
  mov al, 0x13
  out 0x20, al
  mov al, 8
  out 0x21, al
  mov al, 1
  out 0x21, al
  mov al, 0xfe
  out 0x21, al
  mov ax, 0x2000
  mov ds, ax
  mov es, ax
again:
  sti
  mov cx, 5
  xor si, si
  mov di, 0x40
  rep movsw
  int 0x40
  add [0x10], dx
  pushf
  pop bx
  cli
  mov ax, 0x3000
  mov es, ax
  inc word [es:0x20]
  jmp again
handler:
  add dx, 3
  iret
timer:
  push ax
  inc word [cs:0x8000]
  mov al, 0x20
  out 0x20, al
  pop ax
  inc bp
  iret`;

Deno.test("breakpoints, watches and steps in real mode are the same on both vendors and pagings", async () => {
  const { image, labels } = romOf(PROGRAM);
  const at = (label: string) => Number(labels.get(label));
  const outcome = async (cpu: "intel" | "amd", paging: "hap" | "shadow", quiet: boolean) => {
    await using hv = await Hypervisor.start({ cpu, memory: "16M" });
    const dom = await hv.createDomain({ kernel: image, memory: "4M", paging, cpuid: "common" });
    const [vcpu] = dom.vcpus, lines: string[] = [];
    const note = (what: string) =>
      lines.push(`${what} ${dom.statistics().instructions} ${vcpu.regs.rip} ${vcpu.regs.rflags}`);
    if (!quiet) {
      for (let n = 0; n < 5; n++) {
        await dom.until("execute", { address: at("handler") });
        note("handler");
        for (let s = 0; s < 7; s++) {
          await vcpu.step();
          note("step");
        }
        await dom.until("watch", { address: 0x3_0020, length: 2, write: true });
        note("watch");
        await dom.until("execute", { address: at("timer") });
        note("timer");
      }
      assert(new Set(lines).size === lines.length);
    }
    const host = hostUnder(hv);
    subjectOf(dom).inner.resume();
    while (host.machine.cpu.count < 400_000 && host.runOnce(400_000 - host.machine.cpu.count));
    return { lines, end: `${dom.statistics().instructions} ${dom.stateHash()}` };
  };
  const expected = await outcome("intel", "hap", false);
  assertEquals(expected.lines.length, 50);
  for (const [cpu, paging] of [["intel", "shadow"], ["amd", "hap"], ["amd", "shadow"]] as const) {
    assertEquals(await outcome(cpu, paging, false), expected, `${cpu}, ${paging}`);
    // The debugger has changed nothing.
    assertEquals((await outcome(cpu, paging, true)).end, expected.end, `${cpu}, ${paging}, alone`);
  }
});
