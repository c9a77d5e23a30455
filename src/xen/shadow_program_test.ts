// One program that does to its paging what kernels do not, over nested and under shadow tables: the
// state at the end is the same.
import { assert, assertEquals } from "@std/assert";
import { hostUnder, Hypervisor } from "../debug/hypervisor.ts";
import { assemble } from "../machine/isa/encode.ts";
import type { HvmEngine } from "./hvm.ts";
import { checkPool } from "./shadow_testing.ts";
import { TO_FLAT } from "../machine/testing.ts";
import { subjectOf } from "../debug/domain.ts";
import type { CpuModel } from "../machine/vendors.ts";

/** Real mode to protected mode; every vector ends at `handler`, which notes CR2 and the error code. */
const HEAD = `
bits 16
org 0
start:
  cli
${TO_FLAT}
  mov esp, 0x18000
  mov ebp, 0x50000          ; notes
  mov edi, 0x21000
  mov ecx, 32
gates:
  mov eax, 0xf0000 + handler
  and eax, 0xffff
  or eax, 0x80000
  mov [edi], eax
  mov dword [edi + 4], 0xf8e00
  add edi, 8
  loop gates
  mov word [0x22000], 0xff
  mov dword [0x22002], 0x21000
  lidt [0x22000]
`;
/** The instruction after a fault is where EBX says. */
const TAIL = `
  hlt
handler:
  mov eax, cr2
  mov [ebp], eax
  mov eax, [esp]
  mov [ebp + 4], eax
  add ebp, 8
  cmp eax, 0x100
  ja noCode
  add esp, 4
noCode:
  mov [esp], ebx
  iretd
align 8
gdt:
  dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
  dw 0x67, 0x3000, 0x8900, 0
  dw 0x67, 0x3100, 0x8900, 0
gdtr:
  dw 39
  dd 0xf0000 + gdt
`;
const TABLES = `
  ; 0x10000: a directory, 4-MB identity pages and one table of small pages at 4 MB
  mov edi, 0x10000
  mov eax, 0x83
fill:
  mov [edi], eax
  add edi, 4
  add eax, 0x400000
  cmp edi, 0x11000
  jb fill
  mov dword [0x10004], 0x11007
  mov edi, 0x11000
  mov eax, 0x60007
small:
  mov [edi], eax
  add edi, 4
  add eax, 0x1000
  cmp edi, 0x11040
  jb small
  ; 0x12000: the same with another table, whose pages are the same in reverse
  mov esi, 0x10000
  mov edi, 0x12000
  mov ecx, 1024
  cld
  rep movsd
  mov dword [0x12004], 0x13007
  mov edi, 0x13000
  mov eax, 0x6f007
reverse:
  mov [edi], eax
  add edi, 4
  sub eax, 0x1000
  cmp edi, 0x13040
  jb reverse
  mov eax, cr4
  or eax, 0x10
  mov cr4, eax
  mov eax, 0x10000
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80010000
  mov cr0, eax
`;
const after = (label: string) => `mov ebx, 0xf0000 + ${label}`;

const PROGRAMS: Readonly<Record<string, string>> = {
  "writes to tables, seen at once": `${TABLES}
  mov dword [0x400000], 0x11
  mov dword [0x401000], 0x22
  mov eax, [0x11000]        ; the entries change places
  xchg eax, [0x11004]
  mov [0x11000], eax
  mov ecx, [0x400000]
  mov edx, [0x401000]
  mov byte [0x11001], 0     ; a byte of an entry
  invlpg [0x400000]
  mov esi, [0x400000]
  lock cmpxchg [0x11008], eax
  ${after("gone")}
  mov dword [0x1100c], 0
  mov eax, [0x403000]
gone:
  mov edi, 0x11000          ; many in a row, then the pages themselves
  mov ecx, 16
  mov eax, 0x70007
again:
  stosd
  add eax, 0x1000
  loop again
  mov dword [0x40f123], 0x33
  mov eax, [0x7f123]`,
  "a write to tables across two entries": `${TABLES}
  mov eax, [0x400000]
  mov eax, [0x401000]
  mov dword [0x62000], 0x22
  mov dword [0x63000], 0x33
  ; 0x60067, 0x61067 become 0x62067, 0x63067: the high half of one, the low half of the other
  mov byte [0x11001], 0x20
  mov dword [0x11002], 0x30670006
  mov ecx, [0x400000]
  mov edx, [0x401000]`,
  "pages that are read, then written": `${TABLES}
  mov eax, [0x404000]
  mov dword [0x404000], 0x44
  mov ecx, [0x11010]
  mov eax, [0x800000]        ; a large page, in both its halves
  mov dword [0x800000], 0x55
  mov edx, [0x10008]
  mov dword [0xa00000], 0x66
  mov esi, [0x800000]
  mov edi, [0xa00000]
  mov dword [0x15000], 0x60067
  mov dword [0x1000c], 0x15007
  mov eax, [0xc00000]        ; the page is a table now
  mov dword [0x60000], 0x77  ; tables that are read in a page that may be written
  mov eax, [0x10008]
  mov eax, [0x11010]`,
  "ROM in a page that may be written": `${TABLES}
  mov dword [0x11010], 0xf0067
  mov ecx, [0x404000]
  mov dword [0x404000], 0x1234
  mov edx, [0x404000]`,
  "accessed and dirty bits, cleared and set again": `${TABLES}
  mov ecx, 3
once:
  mov eax, [0x402000]
  mov [0x403000], eax
  mov esi, [0x11008]
  add [0x50800], esi
  mov esi, [0x1100c]
  add [0x50804], esi
  and dword [0x11008], ~0x60
  and dword [0x1100c], ~0x40
  invlpg [0x402000]
  invlpg [0x403000]
  loop once
  mov esi, [0x10000]
  mov [0x50808], esi`,
  "a supervisor and CR0.WP": `${TABLES}
  mov dword [0x11000], 0x60005
  ${after("protected")}
  mov dword [0x400000], 1
protected:
  mov eax, cr0
  and eax, ~0x10000
  mov cr0, eax
  mov dword [0x400004], 2
  inc dword [0x400004]
  mov eax, cr0
  or eax, 0x10000
  mov cr0, eax
  ${after("again")}
  mov dword [0x400008], 3
again:
  mov eax, [0x400004]`,
  "task switches that load CR3": `${TABLES}
  mov dword [0x400000], 0x1234
  mov esi, 0xf0000 + gdt      ; descriptors that can become busy
  mov edi, 0x16000
  mov ecx, 10
  cld
  rep movsd
  mov word [0x22008], 39
  mov dword [0x2200a], 0x16000
  lgdt [0x22008]
  mov dword [0x313c], 0x50080
  mov dword [0x311c], 0x12000   ; CR3
  mov dword [0x3120], 0xf0000 + second
  mov dword [0x3124], 2
  mov dword [0x3138], 0x17000
  mov dword [0x3148], 16
  mov dword [0x314c], 8
  mov dword [0x3150], 16
  mov dword [0x3154], 16
  mov dword [0x3158], 16
  mov dword [0x315c], 16
  mov dword [0x3160], 0
  mov ax, 24
  ltr ax
  mov dword [0x301c], 0x10000
  call 32:0
  mov ecx, [0x400000]
  mov edx, cr3
  jmp done
second:
  mov eax, [0x40f000]
  mov [0x50800], eax
  mov eax, cr3
  mov [0x50804], eax
  mov dword [0x400000], 0x99
  iretd
done:
  nop`,
  "a table that maps itself": `${TABLES}
  mov dword [0x10ffc], 0x10007
  mov eax, [0xffffffe0]
  mov ecx, [0xffc01000]
  mov dword [0xffc01008], 0x68007
  mov dword [0x402000], 0x77
  mov edx, [0x68000]
  ${after("unmapped")}
  mov dword [0xfffff004], 0
  mov eax, [0x402000]
unmapped:
  mov dword [0xfffff004], 0x11007
  mov esi, [0x402000]`,
  "modes turned while paging is on": `${TABLES}
  mov eax, [0x400000]
  mov dword [0x60010], 0x77
  mov dword [0x800000], 0x60067
  mov dword [0x800010], 0x88
  mov eax, cr4
  and eax, ~0x10             ; no large pages: the first directory entry leads to a table at 0
  mov edi, 0x14000
  mov ecx, 1024
  mov edx, 7
identity:
  mov [edi], edx
  add edi, 4
  add edx, 0x1000
  loop identity
  mov dword [0x10000], 0x14007
  mov cr4, eax
  mov esi, [0x800010]        ; what was a large page is a table
  mov dword [0x15000], 5
  mov eax, cr0
  and eax, 0x7fffffff
  mov cr0, eax
  mov dword [0x400000], 0x61
  mov eax, cr0
  or eax, 0x80000000
  mov cr0, eax
  mov ecx, [0x400000]`,
  "a directory in ROM": `
  mov eax, cr4
  or eax, 0x10
  mov cr4, eax
  mov eax, 0xf0000 + directory
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80010000
  mov cr0, eax
  mov dword [0x60000], 0x41
  mov ecx, [0x60000]
  ${after("above")}
  mov esi, [0x400000]
above:
  nop
  jmp over
align 4096
directory:
  dd 0x83
align 4096
over:
  nop`,
  "PAE: pointers are loaded by CR3 alone": `
  mov dword [0x10000], 0x11001
  mov dword [0x10004], 0
  mov dword [0x10008], 0x12001
  mov dword [0x11000], 0x83
  mov dword [0x12000], 0x83
  mov dword [0x13000], 0x2000e3
  mov eax, cr4
  or eax, 0x20
  mov cr4, eax
  mov eax, 0x10000
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80010000
  mov cr0, eax
  mov dword [0x60000], 0x41
  mov ecx, [0x40060000]
  mov dword [0x10008], 0x13001
  mov edx, [0x40060000]      ; still the old one
  mov eax, 0x10000
  mov cr3, eax
  mov esi, [0x40060000]
  ${after("none")}
  mov eax, [0x80000000]
none:
  mov dword [0x10010], 3     ; a reserved bit: MOV to CR3 faults
  ${after("reserved")}
  mov eax, 0x10000
  mov cr3, eax
reserved:
  mov eax, cr3`,
};

function rom(program: string): Uint8Array {
  const { bytes } = assemble(`${HEAD}${program}${TAIL}`, { mode: 16 });
  const image = new Uint8Array(0x10000);
  image.set(bytes);
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return image;
}

/** The end of a program: registers, and what lies in its memory. */
async function end(
  program: string,
  cpu: CpuModel,
  how: { paging: "hap" | "shadow"; shadowMemory?: number },
) {
  const hv = await Hypervisor.start({ memory: "64M", cpu });
  const dom = await hv.createDomain({ kernel: rom(program), memory: "16M", ...how });
  const { inner } = subjectOf(dom);
  inner.setState({ kind: "running" });
  for (let n = 0; n < 20 && inner.state.kind === "running"; n++) hostUnder(hv).runOnce(10_000);
  const [vcpu] = subjectOf(dom).vcpus;
  const registers = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rip", "cr0", "cr3", "cr4"]
    .map((name) => `${name} ${vcpu.file.get(name)?.toString(16)}`);
  const state = {
    kind: inner.state.kind,
    count: inner.count,
    registers,
    notes: [...new Uint32Array(dom.memory.read(0x50000, 64).slice().buffer)],
    hash: dom.stateHash(),
  };
  const writes = dom.shadow?.counts.writes ?? 0;
  const { shadow } = inner.vcpus[0].engine as HvmEngine;
  if (shadow) checkPool(shadow);
  await hv.close();
  return { state, writes };
}

for (const cpu of ["intel", "amd"] as const) {
  for (const [name, program] of Object.entries(PROGRAMS)) {
    // AMD's processors keep no pointers with nested paging (APM 2 15.25.10); without, they do.
    const like = name.startsWith("PAE") ? "intel" : cpu;
    Deno.test(`${name}: the same over nested and under shadow tables, ${cpu}`, async () => {
      const nested = await end(program, like, { paging: "hap" });
      assertEquals(nested.state.kind, "blocked", JSON.stringify(nested.state));
      const shadow = await end(program, cpu, { paging: "shadow" });
      assertEquals(shadow.state, nested.state);
      const tiny = await end(program, cpu, { paging: "shadow", shadowMemory: 16 * 4096 });
      assertEquals(tiny.state, nested.state);
      if (/tables|table that/.test(name)) assert(shadow.writes > 0);
    });
  }
}

for (const cpu of ["intel", "amd"] as const) {
  for (const paging of ["hap", "shadow"] as const) {
    Deno.test(`a table written from outside shows at the next access, ${paging}, ${cpu}`, async () => {
      const hv = await Hypervisor.start({ memory: "64M", cpu });
      const program = `${TABLES}
        mov dword [0x60000], 6
        mov dword [0x61000], 7
      again:
        mov eax, [0x400000]
        jmp again`;
      const dom = await hv.createDomain({ kernel: rom(program), memory: "16M", paging });
      subjectOf(dom).inner.setState({ kind: "running" });
      hostUnder(hv).runOnce(20_000);
      const { file } = subjectOf(dom).vcpus[0];
      assertEquals(file.get("rax"), 6n);
      dom.memory.write(0x11000n, Uint8Array.of(0x67, 0x10, 6, 0));
      hostUnder(hv).runOnce(100);
      assertEquals(file.get("rax"), 7n);
      await hv.close();
    });
  }
}
