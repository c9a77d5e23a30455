// Iterations of REP INS and REP OUTS that are done in one exit: nobody can tell from one exit for each.
import { assert, assertEquals } from "@std/assert";
import type { HvmOps } from "../hvm/ops.ts";
import type { Host } from "./host.ts";
import type { HvmEngine } from "./hvm.ts";
import { attention } from "./world_attention.ts";
import { randomSlices } from "./testing_slices.ts";
import { GuestDigest } from "../debug/digest.ts";
import { type GuestDomain, subjectOf } from "../debug/domain.ts";
import { type Configuration, hostOf, kernel, virtual } from "../debug/testing/hosts.ts";
import { Random } from "../debug/testing/states.ts";
import { HVM_WAYS, WayGuest, type WayMode, wayName } from "../debug/testing/ways.ts";
import { hostUnder } from "../debug/hypervisor.ts";
import { CR4 } from "../abi/x86/cr.ts";
import { flat, gates, oneToOne, pagingOn, pic, timer } from "../debug/testing/prologue.ts";

/**
 * A guest that does little else. The PIT interrupts every 60 accesses or so; every handler notes the
 * registers it finds. A page of the buffer is taken away in each round, and comes with the #PF. The
 * UART's scratch register is what INS reads where the value matters, the PIT where the time does.
 */
const GUEST = kernel(`
  mov esp, 0x90000
${flat()}
${gates(0x204000, "other", 256)}
${gates(0x204008, "debug")}
${gates(0x204068, "protection")}
${gates(0x204070, "page_fault")}
${gates(0x204100, "timer")}
${gates(0x204120, "timer")}
${gates(0x204180, "back")}
  mov word [0x204184], 0xee00
  lidt [idtr]
${oneToOne(0x201000, 7)}
  mov dword [0x200000], 0x201007
  mov dword [0x200fec], 0xfec00083
${pagingOn(0x200000, CR4.PSE | CR4.DE)}
  mov dword [0x206004], 0x8f000
  mov dword [0x206008], 16
  mov word [0x206066], 0x68
  mov ax, 40
  ltr ax
  mov edi, 0x300000
  mov ecx, 0x10000
  mov al, 0x20
.text:
  stosb
  inc al
  and al, 0x7f
  or al, 0x20
  loop .text
${pic(0xee)}
  mov al, 0xff
  out 0xa1, al
  mov al, 8
  mov dx, 0x3fc
  out dx, al
${timer(70)}
  sti
round:
  and dword [0x201000 + 4 * 0x305], -2
  invlpg [0x305000]
  cld
  mov dx, 0x3f8
  mov esi, 0x304f80
  mov ecx, 200
  rep outsb
  std
  mov esi, 0x3050a0
  mov ecx, 300
  rep outsb
  mov dx, 0x80
  mov esi, 0x30500e
  mov ecx, 70
  rep outsw
  cld
  mov dx, 0x300
  mov ecx, 40
  rep outsd
  xor ecx, ecx
  rep outsb
  and dword [0x201000 + 4 * 0x305], -2
  invlpg [0x305000]
  mov dx, 0x40
  mov edi, 0x304fe1
  mov ecx, 100
  rep insb
  std
  mov edi, 0x305011
  mov ecx, 50
  rep insw
  mov edi, 0x305ffe
  mov ecx, 30
  rep insd
  cld
; 16-bit addresses, around.
  mov edi, 0x7000fff0
  mov ecx, 0x12340020
  db 0x67, 0xf3, 0x6c
  mov dx, 0x3f8
  mov esi, 0x7000ffe0
  mov ecx, 0x12340030
  db 0x67, 0xf3, 0x6e
; An interrupt waits: for IF, for the end of a shadow, for the task priority.
  cli
  mov esi, 0x300000
  mov ecx, 150
  rep outsb
  mov ecx, 90
  sti
  rep outsb
  mov ecx, 90
  mov ax, ss
  mov ss, ax
  rep outsb
  mov edi, 0xfee00080
  mov dx, 0x300
  mov ecx, 1
  rep insd
  mov dx, 0x3f8
  mov ecx, 120
  rep outsb
  mov dword [0xfee00080], 0
; A device in memory.
  mov esi, 0xfee00020
  mov dx, 0x300
  mov ecx, 9
  rep outsd
; The transmitter interrupts.
  mov dx, 0x3f9
  mov al, 2
  out dx, al
  dec edx
  mov esi, 0x300000
  mov ecx, 30
  rep outsb
  inc edx
  xor eax, eax
  out dx, al
  dec edx
; Traps: steps, data, ports, the instruction itself.
  mov esi, 0x300000
  mov ecx, 12
  pushfd
  or dword [esp], 0x100
  popfd
  rep outsb
  pushfd
  and dword [esp], 0xfffffeff
  popfd
  mov eax, 0x300040
  mov dr0, eax
  mov eax, 0x30003
  mov dr7, eax
  mov dx, 0x40
  mov edi, 0x300020
  mov ecx, 60
  rep insb
  mov eax, 0x3f8
  mov dr0, eax
  mov eax, 0x20003
  mov dr7, eax
  mov dx, 0x3f8
  mov esi, 0x300000
  mov ecx, 10
  rep outsb
  mov eax, traced
  mov dr0, eax
  mov eax, 3
  mov dr7, eax
  mov ecx, 90
traced:
  rep outsb
  xor eax, eax
  mov dr7, eax
; It writes over itself: NOPs. Then over its page's entry: not present.
  mov byte [itself], 0xf3
  mov byte [itself + 1], 0x6c
  mov dx, 0x3ff
  mov al, 0x90
  out dx, al
  mov edi, itself - 5
  mov ecx, 40
  call below
  mov al, 0x66
  out dx, al
  std
  mov edi, 0x201000 + 4 * (unmapped >> 12)
  mov ecx, 3
  call unmapped
  cld
; Ports allowed by the task state, until the instruction takes them away.
  mov dword [after], denied
  mov al, 0xff
  out dx, al
  mov [0x206010], esp
  push 0x23
  push 0x8e000
  pushfd
  push 0x1b
  push user
  iretd
user:
  mov eax, 0x23
  mov ds, ax
  mov es, ax
  mov dx, 0x3f8
  mov esi, 0x300000
  mov ecx, 100
  rep outsb
  mov dx, 0x3ff
  mov edi, 0x206068 + 0x7f - 6
  mov ecx, 20
  rep insb
denied:
  int 0x30
returned:
  inc dword [0x380ff8]
  jmp round
; [esp] is the return address.
below:
  times 8 nop
itself:
  rep insb
  times 8 nop
  ret
; What it interrupts, in a ring of notes.
note:
  pushad
  push ds
  mov eax, 16
  mov ds, ax
  mov ebx, [0x380ffc]
  and ebx, 0xfc0
  mov [0x381000 + ebx], ecx
  mov [0x381004 + ebx], esi
  mov [0x381008 + ebx], edi
  mov eax, [esp + 40]
  mov [0x38100c + ebx], eax
  mov eax, [esp + 44]
  mov [0x381010 + ebx], eax
  mov eax, [esp + 48]
  mov [0x381014 + ebx], eax
  rdtsc
  mov [0x381018 + ebx], eax
  mov eax, dr6
  mov [0x38101c + ebx], eax
  add dword [0x380ffc], 64
  pop ds
  popad
  ret
other:
  call note
  iretd
timer:
  call note
  push eax
  mov al, 0x20
  out 0x20, al
  pop eax
  iretd
debug:
  call note
  or dword [esp + 8], 0x10000
  push eax
  xor eax, eax
  mov dr6, eax
  pop eax
  iretd
page_fault:
  call note
  push eax
  mov eax, cr2
  shr eax, 12
  or dword [ss:0x201000 + 4 * eax], 1
  pop eax
  add esp, 4
  iretd
protection:
  call note
  push eax
  mov eax, [ss:after]
  mov [esp + 8], eax
  pop eax
  add esp, 4
  iretd
back:
  mov eax, 16
  mov ds, ax
  mov es, ax
  mov esp, 0x90000
  mov dword [0x206068 + 0x79], 0
  mov dword [0x206068 + 0x7d], 0
  mov dword [0x206068 + 0x81], 0
  mov dword [0x206068 + 0x85], 0
  sti
  jmp returned
align 8
gdt: dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00cffa000000ffff, 0x00cff2000000ffff
  dq 0x0000892060000fff
gdtr: dw 47
  dd gdt
idtr: dw 2047
  dd 0x204000
after: dd 0
; Two pages on: it changes the entry before its own, too.
align 4096
times 4096 db 0
unmapped:
  rep insb
  ret
`);

const engineOf = (dom: GuestDomain): HvmEngine => subjectOf(dom).inner.vcpus[0].engine as HvmEngine;

/** Each iteration is an exit: an observer that looks at each, and wants nothing. */
function oneByOne(engine: HvmEngine): void {
  const nothing = () => undefined;
  engine.hooks.push({
    attached: nothing,
    detaching: nothing,
    started: nothing,
    begin: () => Infinity,
    ran: nothing,
    breakpoint: nothing,
    done: nothing,
    stepEnded: nothing,
    exit: nothing,
    exits: undefined,
  });
}
/** How often the guest was entered, from now on. */
function counting(engine: HvmEngine): () => number {
  let entries = 0;
  const enter: HvmOps["enter"] = (v, options) => {
    entries++;
    return ops.enter(v, options);
  };
  const { ops } = engine;
  Object.assign(engine, { ops: { ...ops, enter } });
  return () => entries;
}

/** All that can be told of a guest. */
const told = (dom: GuestDomain) => ({
  hash: dom.stateHash(),
  statistics: dom.statistics(),
  console: dom.console.text,
  rest: GuestDigest.of(dom).hash,
});

/** Runs up to a machine time, as exactly as instructions allow. */
function runTo({ host }: { readonly host: Host }, time: number): void {
  const { cpu } = host.machine;
  do if (host.attention !== attention) host.attention.begin(); while (
    cpu.now < time && host.runOnce(time - cpu.now)
  );
}

/** Two hosts at the same places, `times` times: one as it is, one with an exit for each iteration. */
async function sameAtRandom(
  c: Configuration,
  image: Uint8Array,
  times: number,
  most: number,
  cut = false,
): Promise<void> {
  await using one = await hostOf(c, image);
  await using all = await hostOf(c, image);
  for (const { dom } of [one, all]) subjectOf(dom).inner.setState({ kind: "running" });
  const some = counting(engineOf(one.dom)), each = counting(engineOf(all.dom));
  oneByOne(engineOf(all.dom));
  if (cut) hostUnder(one.hv).attention = randomSlices(3, 2);
  const random = new Random(0x1234_5679);
  for (let n = 0, time = 0; n < times; n++) {
    time = hostUnder(one.hv).machine.cpu.now + 1 + random.below(most);
    for (const { dom } of [one, all]) runTo(subjectOf(dom), time);
    const [a, b] = [told(one.dom), told(all.dom)];
    assertEquals(a, b, `place ${n}, after ${time} ns`);
    if (n % 7 === 3) {
      for (const { hv, dom } of [one, all]) {
        subjectOf(dom).inner.pause();
        hv.load(hv.save());
        subjectOf(dom).inner.resume();
      }
    }
    if (n % 9 === 8) { for (const { dom } of [one, all]) engineOf(dom).nmi(); }
  }
  const rounds = new DataView(one.dom.memory.read(0x380ff8, 8).buffer);
  assert(rounds.getUint32(0, true) > 3, "the guest goes round");
  assert(rounds.getUint32(4, true) > 64 * 100, "it is interrupted");
  if (!cut) assert(some() < each() / 2, `${some()} entries, ${each()} one by one`);
}

for (const c of virtual) {
  const name = `${c.cpu}, ${c.paging}`;
  Deno.test(`REP INS and OUTS: many iterations in an exit are as one by one (${name})`, () =>
    sameAtRandom(c, GUEST, 150, 150_000));
}

Deno.test("so they are however the host's slices end", () =>
  sameAtRandom(virtual[0], GUEST, 100, 150_000, true));

/** Strings there and back, the last up to a page that is not there or an address that is none. */
const STRINGS: Readonly<Record<"16" | "32" | "64", string>> = {
  "16": `
    mov dx, 0x3f8
    mov si, 0xff80
    mov cx, 0x90
    sti
    rep outsb
    std
    mov cx, 0x80
    rep outsw
    cld
    mov dx, 0x3ff
    mov al, 0x5a
    out dx, al
    mov di, 0xffd1
    mov cx, 60
    cli
    sti
    rep insw`,
  "32": `
    mov dx, 0x3f8
    mov esi, 0x1ff0
    mov ecx, 0x90
    sti
    rep outsb
    std
    mov ecx, 0x80
    rep outsw
    cld
    mov dx, 0x3ff
    mov al, 0x5a
    out dx, al
    mov edi, 0x1fff81
    mov ecx, 300
    cli
    sti
    rep insw`,
  "64": `
    mov dx, 0x3f8
    mov rsi, 0xffffffffc0001ff0
    mov rcx, 0x90
    sti
    rep outsb
    std
    mov rcx, 0x80
    rep outsw
    cld
    mov dx, 0x3ff
    mov al, 0x5a
    out dx, al
    mov rdi, 0xfffffff9
    mov ecx, 20
    db 0x67
    rep insb
    mov rdi, 0x7ffffffffff8
    mov rcx, 300
    cli
    sti
    rep insb`,
};
/** The vector that ends it. */
const LAST: Readonly<Record<WayMode, number>> = {
  real: 13,
  protected16: 6,
  flat32: 6,
  two: 6,
  pae: 14,
  compatibility: 14,
  long: 13,
};
const widthOf = (mode: WayMode) =>
  mode === "long" ? "64" : mode === "real" || mode === "protected16" ? "16" : "32";

/** Where a guest is and what it has done. */
function state(g: WayGuest): unknown {
  const names = ["rip", "rflags", "rcx", "rdx", "rbx", "rsi", "rdi", "rsp", "cr2"] as const;
  return {
    registers: names.map((name) => g.reg(name).toString(16)),
    shadow: g.engine!.ops.interruptShadow(g.engine!.hvm),
    time: [g.domain.count, g.host.machine.cpu.now, g.domain.state.kind],
    exits: { ...g.domain.exits },
    output: g.domain.output.since(0),
    memory: g.domain.memory.read(0, 0x1_0000),
  };
}

for (const way of HVM_WAYS) {
  Deno.test(`so they are in every mode, up to a fault or an NMI (${wayName(way)})`, async () => {
    const one = await WayGuest.make(way), all = await WayGuest.make(way);
    oneByOne(all.engine!);
    const some = counting(one.engine!), each = counting(all.engine!), random = new Random(4711);
    for (const mode of Object.keys(LAST) as WayMode[]) {
      for (let run = 0; run < 8; run++) {
        // Now and then an NMI comes, or the fault has no handler.
        const nmi = run % 3 === 2 ? random.below(8) : -1, crash = run % 5 === 1;
        const idt = crash ? { idtr: { base: 0x10_0000n, limit: 0 } } : undefined;
        for (const g of [one, all]) g.enter(mode, `${STRINGS[widthOf(mode)]}\nud2`, idt);
        for (let n = 0; n < 100 && one.domain.state.kind === "running"; n++) {
          // The first place is behind STI.
          const more = n === 0 ? 4 : 1000 * (1 + random.below(run === 0 ? 1000 : 80));
          const time = one.host.machine.cpu.now + more;
          for (const g of [one, all]) {
            runTo(g, time);
            if (n === nmi && g.domain.state.kind === "running") g.nmi();
          }
          assertEquals(state(one), state(all), `${mode}, run ${run}, place ${n}`);
        }
        const vector = Number(one.reg("rbx")), ended = one.domain.describe();
        if (crash) assertEquals(ended, "crash (triple fault)", mode);
        else {assert(
            one.halted && (vector === LAST[mode] || nmi >= 0),
            `${mode}: ${vector}, ${ended}`,
          );}
      }
    }
    assert(some() < each() / 2, `${some()} entries, ${each()} one by one`);
  });
}
