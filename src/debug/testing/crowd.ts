/**
 * A guest of several vCPUs that work on one memory for ever, and check what they find: a spinlock, locked
 * counters, a page whose entry one changes and the others are told of, code that one changes and all call,
 * NMIs, timers, HLT, and a vCPU that is initialized and started up again.
 */
import { CR4 } from "../../abi/x86/cr.ts";
import type { GuestDomain } from "../domain.ts";
import { Hypervisor } from "../hypervisor.ts";
import type { StartOptions } from "../options.ts";
import type { Configuration } from "./hosts.ts";
import { assembleKernel, flat, gates, oneToOne, pagingOn, pic, startUpCode } from "./prologue.ts";

/** What the guest notes, and where (32-bit words). */
export const CROWD = {
  lock: 0x7000,
  /** Counted under the lock, without LOCK; with it; and by each vCPU for itself. */
  sum: 0x7004,
  atomic: 0x7008,
  own: 0x7100,
  /** Which vCPUs are up, and which have taken the last change of the page: bits. */
  up: 0x700c,
  taken: 0x7010,
  /** What the page begins with, and what the changed code gives. */
  tag: 0x7014,
  code: 0x7018,
  /** NMIs that were sent, and those that vCPU 0 had. */
  sent: 0x701c,
  nmis: 0x7020,
  /** Times that the last vCPU has begun. */
  begun: 0x7024,
  ticks: 0x7028,
  /** What was not as it should be; 0: nothing. */
  wrong: 0x702c,
} as const;
/** What `wrong` says. */
const WRONG: Readonly<Record<string, number>> = { page: 1, code: 2, nmi: 3 };

const STACKS = 0x28_0000, IDT = 0x2a_0000, PD = 0x30_0000, PT = 0x30_1000, POINTER = 0x7f00;
const PAGE = 0x2c_0000, FRAMES = [0x2d_0000, 0x2e_0000] as const;
const ICR = "edi + 0x300", TARGET = "edi + 0x310";

const source = (last: number): string => `
  cli
  mov esp, ${STACKS}
${flat()}
${gates(IDT + 8 * 2, "onNmi")}
${gates(IDT + 8 * 0x40, "onChange")}
${gates(IDT + 8 * 0x41, "onTick")}
${gates(IDT + 8 * 0xff, "onNothing")}
${pic(0xff, 0xff)}
${oneToOne(PT, 3)}
  mov dword [${PD}], ${PT + 3}
  mov dword [${PD + 4 * 0x3fb}], 0xfec00083
  mov dword [${FRAMES[0]}], 1
  mov dword [${FRAMES[1]}], 2
  mov dword [${PT + 4 * (PAGE >>> 12)}], ${FRAMES[0] | 3}
  mov dword [${CROWD.tag}], 1
  mov dword [${CROWD.code}], 100
  ; the others, some time later
  mov edi, 0xfee00000
  mov dword [${ICR}], 0xc4500
  mov ecx, 3000
  loop $
  mov dword [${ICR}], 0xc4608
  mov dword [${ICR}], 0xc4608
begin:
  mov eax, 1
  cpuid
  shr ebx, 24
  mov eax, ebx
  shl eax, 12
  mov esp, ${STACKS}
  sub esp, eax
  lidt [idtr]
${pagingOn(PD, CR4.PSE)}
  mov edi, 0xfee00000
  mov dword [edi + 0xf0], 0x1ff
  mov dword [edi + 0x320], 0x20041
  mov eax, ebx
  shl eax, 6
  add eax, 900
  mov [edi + 0x380], eax
  xor ebp, ebp
  cmp ebx, ${last}
  jne began
  inc dword [${CROWD.begun}]
began:
  lock bts dword [${CROWD.up}], ebx
  sti
round:
  inc ebp
acquire:
  mov eax, 1
  xchg [${CROWD.lock}], eax
  test eax, eax
  jz held
  pause
  jmp acquire
held:
  mov eax, [${CROWD.sum}]
  inc eax
  mov [${CROWD.sum}], eax
  lock inc dword [${CROWD.atomic}]
  inc dword [ebx * 4 + ${CROWD.own}]
  mov edx, ${WRONG.page}
  mov eax, [${PAGE}]
  cmp eax, [${CROWD.tag}]
  jne wrong
  mov edx, ${WRONG.code}
  call changed
  cmp eax, [${CROWD.code}]
  jne wrong
  mov eax, ebp
  add eax, ebx
  test al, 3
  jnz sameCode
  inc dword [${CROWD.code}]
  mov eax, [${CROWD.code}]
  mov [changed + 1], eax
sameCode:
  test bp, 7
  jnz samePage
change:
  xor dword [${CROWD.tag}], 3
  mov eax, ${FRAMES[0] | 3}
  test dword [${CROWD.tag}], 1
  jnz first
  mov eax, ${FRAMES[1] | 3}
first:
  mov dword [${CROWD.taken}], 0
  mov [${PT + 4 * (PAGE >>> 12)}], eax
  invlpg [${PAGE}]
  mov ecx, [${CROWD.up}]
  btr ecx, ebx
  mov dword [${ICR}], 0xc4040
taking:
  pause
  mov eax, [${CROWD.taken}]
  and eax, ecx
  cmp eax, ecx
  jne taking
samePage:
  mov eax, ebp
  and eax, 15
  cmp eax, 5
  jne noNmi
  test ebx, ebx
  jz noNmi
  inc dword [${CROWD.sent}]
  mov dword [${TARGET}], 0
  mov dword [${ICR}], 0x4400
  mov ecx, [${CROWD.sent}]
sending:
  pause
  cmp [${CROWD.nmis}], ecx
  jne sending
noNmi:
  test ebx, ebx
  jnz release
  test bp, 31
  jnz release
anew:
  lock btr dword [${CROWD.up}], ${last}
  mov dword [${TARGET}], ${last << 24}
  mov dword [${ICR}], 0x4500
  mov ecx, 200
  loop $
  mov dword [${ICR}], 0x4608
starting:
  pause
  test dword [${CROWD.up}], ${1 << last}
  jz starting
release:
  mov dword [${CROWD.lock}], 0
  mov al, bl
  out 0x80, al
  mov eax, ebp
  and eax, 31
  cmp eax, 9
  jne quiet
  mov dx, 0x3fd
  in al, dx
  mov dx, 0x3f8
  test ebx, ebx
  jnz who
  test al, 1
  jz who
  ; what was typed, in capitals
  in al, dx
  sub al, 0x20
  out dx, al
who:
  mov al, bl
  add al, 0x61
  out dx, al
  rdtsc
  mov ecx, 0x1b
  rdmsr
quiet:
  mov eax, ebp
  and eax, 15
  cmp al, bl
  jne round
  hlt
  jmp round
changed:
  mov eax, 100
  ret
onNmi:
  push eax
  push edx
  mov edx, ${WRONG.nmi}
  mov eax, [0xfee00020]
  shr eax, 24
  jnz wrong
  inc dword [${CROWD.nmis}]
  pop edx
  pop eax
  iretd
onChange:
  push eax
  invlpg [${PAGE}]
  mov eax, [0xfee00020]
  shr eax, 24
  lock bts dword [${CROWD.taken}], eax
  mov dword [0xfee000b0], 0
  pop eax
  iretd
onTick:
  lock inc dword [${CROWD.ticks}]
  mov dword [0xfee000b0], 0
onNothing:
  iretd
wrong:
  mov [${CROWD.wrong}], edx
  cli
  hlt
  jmp wrong
other:
  mov ax, 16
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov fs, ax
  mov gs, ax
  jmp begin
gdt:
  dd 0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300
gdtr:
  dw 23
  dd gdt
idtr:
  dw 0x7ff
  dd ${IDT}`;

/** A host with the guest before its first instruction; with short turns if nothing else is said. */
export async function crowdOf(
  { cpu, paging }: Configuration,
  vcpus: number,
  more: Partial<StartOptions> = {},
): Promise<{ hv: Hypervisor; dom: GuestDomain } & AsyncDisposable> {
  const hv = await Hypervisor.start({
    cpu,
    memory: "24M",
    interleave: { min: 1, max: 60 },
    ...more,
  });
  const { bytes, symbols } = assembleKernel(source(vcpus - 1));
  const dom = await hv.createDomain({
    name: "guest",
    type: paging === "bare" ? "bare" : "hvm",
    paging: paging === "bare" ? undefined : paging,
    kernel: bytes,
    memory: "4M",
    vcpus,
  });
  const gdt = Number(symbols.get("gdt"));
  dom.memory.write(0x8000, startUpCode(POINTER, Number(symbols.get("other"))));
  dom.memory.write(
    POINTER,
    new Uint8Array(Uint32Array.of((gdt << 16 | 23) >>> 0, gdt >>> 16).buffer),
  );
  return { hv, dom, [Symbol.asyncDispose]: () => hv.close() };
}
