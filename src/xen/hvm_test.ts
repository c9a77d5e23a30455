// What the hypervisor does for a guest: small programs in a domain with its real board. Each ends
// with HLT and interrupts off; what it found lies from 30000h on.
import { assertEquals } from "@std/assert";
import { build, type BuiltDomain } from "../builder/domain.ts";
import { assemble } from "../machine/isa/encode.ts";
import { Host } from "./host.ts";
import type { HvmEngine } from "./hvm.ts";
import { TO_FLAT } from "../machine/testing.ts";

const HOSTS = ["intel", "amd"] as const;
const NOTES = 0x30000;

/** Real mode to flat 32-bit code; every vector notes its number at [edi], and goes on at EBP. */
const START = `
bits 16
org 0
  cli
${TO_FLAT}
  mov esp, 0x18000
  mov edi, 0x21000
  xor ecx, ecx
gates:
  lea eax, [0xf0000 + ecx*8 + stubs]
  and eax, 0xffff
  or eax, 0x80000
  mov [edi], eax
  mov dword [edi + 4], 0xf8e00
  add edi, 8
  inc ecx
  cmp ecx, 48
  jb gates
  mov word [0x22000], 383
  mov dword [0x22002], 0x21000
  lidt [0x22000]
  mov edi, ${NOTES}
  ; the 8259s at 20h and 28h, all but the timer masked; the timer every 100 microseconds
  mov al, 0x11
  out 0x20, al
  mov al, 0x20
  out 0x21, al
  mov al, 4
  out 0x21, al
  mov al, 1
  out 0x21, al
  mov al, 0xfe
  out 0x21, al
  jmp main
handler:
  pop eax
  mov [edi], eax
  add edi, 4
  cmp eax, 32
  jae interrupt
  mov esp, 0x18000
  jmp ebp
interrupt:
  mov al, 0x20
  out 0x20, al
  iretd
timer:
  mov al, 0x34
  out 0x43, al
  mov al, 119
  out 0x40, al
  mov al, 0
  out 0x40, al
  ret
done:
  cli
  hlt
align 8
gdt:
  dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:
  dw 23
  dd 0xf0000 + gdt
align 8
stubs:
${Array.from({ length: 48 }, (_, n) => `  push ${n}\n  jmp handler\n  align 8`).join("\n")}
main:
`;

/** A ROM with the program at its reset vector. */
function rom(program: string): Uint8Array {
  const { bytes } = assemble(`${START}${program}\njmp done`, { mode: 16 });
  const image = new Uint8Array(0x10000);
  image.set(bytes);
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return image;
}

class Run {
  private constructor(readonly host: Host, readonly built: BuiltDomain) {}

  /** Runs a program until it halts for good, or its instructions are used up. */
  static async of(cpu: typeof HOSTS[number], program: string, budget = 100_000): Promise<Run> {
    const host = new Host({ cpu, memory: 8 << 20, unixTime: 1_700_000_000, seed: 3 });
    const built = await build(host, {
      name: "test",
      type: "hvm",
      kernel: { file: "rom", bytes: rom(program) },
      memory: 2 << 20,
      vcpus: 1,
      paging: "hap",
    });
    const run = new Run(host, built), { domain } = built, { machine } = host;
    domain.setState({ kind: "running" });
    while (machine.cpu.count < budget && !domain.ended) {
      if (host.runOnce(budget - machine.cpu.count)) continue;
      const { ops, hvm } = run.engine;
      if (domain.state.kind !== "blocked" || !(ops.getRegister(hvm, "rflags") & 0x200n)) break;
      const next = Math.min(domain.platform!.deadline(), machine.bus.deadline());
      if (next === Infinity) break;
      machine.cpu.skipTo(next);
      host.handleInterrupts();
      domain.platform!.run(next);
    }
    assertEquals(domain.state.kind, "blocked", domain.describe());
    return run;
  }
  get engine(): HvmEngine {
    return this.built.domain.vcpus[0].engine as HvmEngine;
  }
  get exits(): Record<string, number> {
    return this.built.domain.exits;
  }
  /** Vectors in the order they came, to the first 0. */
  get vectors(): number[] {
    const words = new Uint32Array(this.built.domain.memory.read(NOTES, 256).buffer);
    return [...words.subarray(0, words.indexOf(0))];
  }
  reg(name: "rax" | "rbx" | "rcx" | "rdx" | "rsi"): bigint {
    return this.engine.ops.getRegister(this.engine.hvm, name);
  }
}

/** RDMSR or WRMSR of `msr`; goes on behind it, also from a fault. */
const access = (msr: number, value?: bigint): string => {
  const label = `after${counter++}`;
  const set = value === undefined ? "" : `
    mov eax, ${value & 0xffff_ffffn}
    mov edx, ${value >> 32n}`;
  return `
    mov ebp, 0xf0000 + ${label}
    mov ecx, ${msr}${set}
    ${value === undefined ? "rdmsr" : "wrmsr"}
  ${label}:`;
};
let counter = 0;

for (const cpu of HOSTS) {
  Deno.test(`WRMSR of what a guest may not write is #GP (${cpu})`, async () => {
    const refused = [
      access(0xc000_0080, 2n),
      access(0xc000_0080, 1n << 40n),
      access(0xc000_0082, 1n << 47n),
      access(0xc000_0102, 1n << 63n),
      access(0xfe, 0n),
      access(0x277, 0x100n << 8n | 2n << 3n),
      access(0x1234_5678, 0n),
      access(0x1234_5678),
    ];
    const run = await Run.of(cpu, refused.join(""));
    assertEquals(run.vectors, refused.map(() => 13));
    const allowed = [
      access(0xc000_0080, 1n),
      access(0xc000_0082, 0xffff_8000_0000_0000n),
      access(0x277, 0x0007_0406_0007_0406n),
    ];
    assertEquals((await Run.of(cpu, allowed.join(""))).vectors, []);
  });

  Deno.test(`RDMSR gives both halves, and clears the upper ones (${cpu})`, async () => {
    const value = 0x0000_7fff_8765_4321n;
    const clear = "mov eax, 1\nmov edx, 1\n";
    const run = await Run.of(cpu, access(0xc000_0082, value) + clear + access(0xc000_0082));
    assertEquals([run.reg("rax"), run.reg("rdx")], [0x8765_4321n, 0x7fffn]);
  });

  Deno.test(`a guest that sets its TSC reads on from there (${cpu})`, async () => {
    const run = await Run.of(
      cpu,
      `${access(0x10, 0x5_0000_0000n)}
      rdtsc
      mov ebx, edx
      mov esi, eax
      ${access(0x10)}`,
    );
    assertEquals(run.reg("rbx"), 5n);
    // A few instructions; RDMSR reads what RDTSC does.
    const near = (value: bigint) => value < 100n;
    assertEquals([near(run.reg("rsi")), run.reg("rdx"), near(run.reg("rax"))], [true, 5n, true]);
    assertEquals(run.reg("rax") > run.reg("rsi"), true);
  });

  Deno.test(`MOV to CR4 of a bit the guest's processor has not is #GP (${cpu})`, async () => {
    const run = await Run.of(
      cpu,
      `
      mov ebp, 0xf0000 + first
      mov eax, 0x80000000
      mov cr4, eax
    first:
      mov ebp, 0xf0000 + second
      mov eax, 0x2000
      mov cr4, eax
    second:
      mov eax, 0x10
      mov cr4, eax
      mov ebx, cr4
      mov esi, cr0`,
    );
    // VMXE is a bit of the host's that the guest's processor does not have.
    assertEquals(run.vectors, [13, 13]);
    assertEquals([run.reg("rbx"), run.reg("rsi")], [0x10n, 0x6000_0011n]);
  });

  Deno.test(`IN of a byte keeps the rest of EAX (${cpu})`, async () => {
    const run = await Run.of(
      cpu,
      `
      mov al, 0x5a
      out 0x21, al
      mov eax, 0x12345678
      in al, 0x21
      mov ebx, eax
      mov eax, 0x12345678
      mov dx, 0x100
      in ax, dx
      mov esi, eax
      mov eax, 0x12345678
      in eax, dx`,
    );
    assertEquals(run.reg("rbx"), 0x1234_565an);
    assertEquals([run.reg("rsi"), run.reg("rax")], [0x1234_ffffn, 0xffff_ffffn]);
  });

  Deno.test(`HLT waits for the timer's interrupt, once for each (${cpu})`, async () => {
    const run = await Run.of(
      cpu,
      `
      call timer
      mov esi, 5
    again:
      sti
      hlt
      dec esi
      jnz again`,
    );
    assertEquals(run.vectors, [32, 32, 32, 32, 32]);
    assertEquals(run.exits.hlt, 6);
  });

  Deno.test(`the timer interrupts a guest that runs, by host interrupts (${cpu})`, async () => {
    const run = await Run.of(
      cpu,
      `
      call timer
      sti
      mov ecx, 0x1e000
    again:
      dec ecx
      jnz again`,
      600_000,
    );
    // The edge when the timer's mode is set; then one every 99.7 of 246 microseconds.
    assertEquals(run.vectors, [32, 32, 32]);
    assertEquals(run.exits["external-interrupt"] >= 2, true);
  });

  Deno.test(`an interrupt that comes with IF clear is delivered behind STI's shadow (${cpu})`, async () => {
    const run = await Run.of(
      cpu,
      `
      call timer
      mov ecx, 0x19000
    again:
      dec ecx
      jnz again
      mov ebx, [edi]
      mov esi, edi
      sti
      mov ebx, edi
      nop
      sub esi, ebx`,
      600_000,
    );
    // None while IF is clear, none before the instruction behind STI.
    assertEquals([run.vectors, run.reg("rsi"), run.reg("rbx")], [[32], 0n, BigInt(NOTES)]);
    assertEquals(run.exits["interrupt-window"], 1);
  });
}
