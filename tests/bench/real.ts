/**
 * Real mode, in instructions a second: where the hardware has none of its own (VMX under shadow
 * paging) the hypervisor stands in for it.
 */
import process from "node:process";
import { build } from "../../src/builder/domain.ts";
import { assemble } from "../../src/machine/isa/encode_assembler.ts";
import { Host } from "../../src/xen/host.ts";
import { median } from "./measure.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

const TO_PROTECTED = `cli
    db 0x2e
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    `;

/** Loops of a ROM, with DS = ES = 2000h and SS:SP = 1000:8000; vector 40h returns. */
export const REAL_LOOPS = {
  "arithmetic": `add ax, bx
    rol bx, 3
    push ax
    xor ax, [si]
    mov [si+2], ax
    pop dx
    add dx, bx
    call inner
    dec cx
    jnz again
    jmp again
  inner: inc di
    ret`,
  "segments and strings": `mov ax, 0x2000
    mov ds, ax
    mov ax, 0x3000
    mov es, ax
    xor si, si
    xor di, di
    mov cx, 32
    rep movsw
    lodsb
    stosb
    les bx, [si]
    push es
    pop ds
    jmp again`,
  "INT, CLI and STI": `cli
    pushf
    pop ax
    sti
    mov bx, ax
    int 0x40
    add bx, dx
    push cs
    push after
    retf
  after: inc cx
    jmp again`,
  "ports": `mov cx, 200
  work: add ax, cx
    xor [si], ax
    dec cx
    jnz work
    in al, 0x61
    out 0x80, al
    jmp again`,
  "big real mode": `mov eax, [esi]
    add eax, ecx
    mov [esi+4], eax
    push eax
    pop ebx
    int 0x40
    dec ecx
    jmp again`,
  "on the way to protected mode": `add ax, [si]
    mov [si+2], ax
    rol ax, 3
    push ax
    pop bx
    dec cx
    jmp again`,
} as const;
/** What comes before some of them. */
const BEFORE: Partial<Record<RealLoop, string>> = {
  "big real mode": `mov bx, 16
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
    mov esi, 0x200000
    mov ecx, 0`,
  "on the way to protected mode": "xor si, si",
};
export type RealLoop = keyof typeof REAL_LOOPS;

function rom(loop: RealLoop): Uint8Array {
  const before = BEFORE[loop];
  const code = assemble(
    `bits 16
    org 0
    mov ax, 0x1000
    mov ss, ax
    mov sp, 0x8000
    xor ax, ax
    mov ds, ax
    mov word [0x100], handler
    mov word [0x102], 0xf000
    mov ax, 0x2000
    mov ds, ax
    mov es, ax
    ${before === undefined ? "" : TO_PROTECTED + before}
  again: ${REAL_LOOPS[loop]}
  handler: add dx, 3
    iret
  align 8
  gdt: dq 0, 0x00009b000000ffff, 0x00cf93000000ffff
  gdtr: dw 23
    dd 0xf0000 + gdt`,
    { mode: 16 },
  ).bytes;
  const image = new Uint8Array(0x10000);
  image.set(code);
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return image;
}

/** Millions of instructions a second of CPU time, as the median of `runs`. */
export async function realModeRate(
  runs: number,
  cpu: CpuModel,
  paging: "hap" | "shadow",
  loop: RealLoop,
  instructions = 4_000_000,
): Promise<number> {
  const host = new Host({ cpu, memory: 16 << 20, unixTime: 0, seed: 1 });
  const { domain } = await build(host, {
    name: "real",
    type: "hvm",
    kernel: { file: "rom", bytes: rom(loop) },
    memory: 4 << 20,
    vcpus: 1,
    paging,
  });
  domain.setState({ kind: "running" });
  const rates: number[] = [];
  // The first turn warms up.
  for (let run = 0; run <= runs; run++) {
    const started = process.cpuUsage(), { machine } = host, before = machine.cpu.count;
    while (machine.cpu.count - before < instructions && host.runOnce(100_000));
    const { user, system } = process.cpuUsage(started);
    if (run > 0) rates.push((machine.cpu.count - before) / (user + system));
  }
  if (domain.ended || domain.state.kind !== "running") throw new Error(domain.describe());
  return median(rates);
}
