// Domains of several vCPUs, on one processor and on several: started up, interrupted, and initialized again.
import { assert, assertEquals } from "@std/assert";
import { build, type DomainConfig } from "../builder/domain.ts";
import { assembleKernel } from "../debug/testing/hosts.ts";
import { startUpCode } from "../debug/testing/prologue.ts";
import { assemble } from "../machine/isa/encode.ts";
import type { CpuModel } from "../machine/vendors.ts";
import { MSR } from "../abi/x86/msr.ts";
import { Host } from "./host.ts";
import type { Interleave } from "./scheduler.ts";
import type { HvmEngine } from "./hvm.ts";
import { hostHash, loadHost, saveHost } from "./state.ts";

/** What the guest notes, and where. */
const NOTE = {
  up: 0x7000,
  taken: 0x7004,
  anew: 0x7008,
  counted: 0x700c,
  done: 0x7010,
  go: 0x7014,
  others: 0x7018,
  ticks: 0x701c,
  sent: 0x7020,
  began: 0x7024,
  ids: 0x7100,
} as const;
const GDT = 0x7e00, IDT = 0x6800, POINTERS = 0x7f00, ROUNDS = 10, COUNTS = 5000;
/** Time after which it has hung (ns). */
const LIMIT = 30e6;

/**
 * The first processor starts all others up, sends them interrupts and awaits each, begins the last one
 * anew elsewhere, and counts together with all of them.
 */
const FIRST = assembleKernel(`
  mov edi, 0xfee00000
  mov ebx, [${NOTE.others}]
  mov dword [edi + 0x300], 0xc4500
  mov ecx, 2000
  loop $
  rdtsc
  mov [${NOTE.sent}], eax
  mov dword [edi + 0x300], 0xc4608
  mov dword [edi + 0x300], 0xc4608
up:
  pause
  cmp [${NOTE.up}], ebx
  jne up
  mov ecx, ${ROUNDS}
  xor edx, edx
again:
  add edx, ebx
  mov dword [edi + 0x300], 0xc4040
taken:
  out 0x80, al
  cmp [${NOTE.taken}], edx
  jne taken
  dec ecx
  jnz again
  mov eax, ebx
  shl eax, 24
  mov [edi + 0x310], eax
  mov dword [edi + 0x300], 0x4500
  mov dword [edi + 0x300], 0x460a
  mov eax, ebx
  inc eax
anew:
  pause
  cmp [${NOTE.up}], eax
  jne anew
  mov dword [${NOTE.go}], 1
  mov dword [edi + 0x300], 0xc4040
  mov ecx, ${COUNTS}
count:
  lock inc dword [${NOTE.counted}]
  dec ecx
  jnz count
done:
  pause
  cmp [${NOTE.done}], ebx
  jne done
  cli
  hlt`).bytes;

/** At 8000h, in real mode. */
const START = startUpCode(POINTERS, 0x9000);
/** At A000h: notes that it began there, and goes on as the others. */
const ANEW = assemble(
  `xor ax, ax
  mov ds, ax
  mov dword [${NOTE.anew}], 0x5a
  db 0xea
  dw 0, 0x800`,
  { mode: 16 },
).bytes;
/** What is on in protected mode, and the handler of vector 40h. */
const OTHER = assemble(
  `org 0x9000
  mov ax, 0x10
  mov ds, ax
  mov ss, ax
  cmp dword [${NOTE.began}], 0
  jne known
  rdtsc
  mov [${NOTE.began}], eax
known:
  mov eax, 1
  cpuid
  shr ebx, 24
  mov [ebx + ${NOTE.ids}], bl
  mov eax, ebx
  shl eax, 7
  mov esp, 0x6000
  sub esp, eax
  lidt [${POINTERS + 8}]
  mov dword [0xfee000f0], 0x1ff
  mov dword [0xfee00320], 0x20041
  mov dword [0xfee00380], 150
  lock inc dword [${NOTE.up}]
wait:
  sti
  hlt
  cli
  cmp dword [${NOTE.go}], 1
  jne wait
  mov ecx, ${COUNTS}
count:
  lock inc dword [${NOTE.counted}]
  test cl, 0x7f
  jnz next
  out 0x80, al
next:
  dec ecx
  jnz count
  lock inc dword [${NOTE.done}]
  hlt
handler:
  lock inc dword [${NOTE.taken}]
  jmp end
tick:
  lock inc dword [${NOTE.ticks}]
end:
  mov dword [0xfee000b0], 0
  iretd`,
  { mode: 32 },
);

interface Way {
  readonly cpu: CpuModel;
  readonly paging: "bare" | "hap" | "shadow";
  /** Lengths of turns; short ones show more of what can come between. */
  readonly interleave?: Interleave;
}
const VENDORS = ["intel", "amd"] as const;
/** In a hardware virtual machine. */
const HVM: readonly Way[] = VENDORS.flatMap((cpu) =>
  (["hap", "shadow"] as const).map((paging) => ({ cpu, paging }))
);
const BARE: readonly Way[] = VENDORS.map((cpu) => ({ cpu, paging: "bare" }));
const SHORT: Interleave = { min: 1, max: 50 };

const configOf = (vcpus: number, { paging }: Pick<Way, "paging">): DomainConfig => ({
  name: "smp",
  type: paging === "bare" ? "bare" : "hvm",
  kernel: { file: "kernel", bytes: FIRST },
  memory: 4 << 20,
  vcpus,
  paging: paging === "bare" ? "hap" : paging,
});

/** A host with the guest before its first instruction. */
async function guest(vcpus: number, way: Way, cpus = 1) {
  const { cpu, paging, interleave } = way, size = paging === "bare" ? 4 << 20 : 64 << 20;
  const host = new Host({
    cpu,
    cpus,
    memory: size,
    unixTime: 1_700_000_000,
    seed: 3,
    interleave,
  });
  const { domain } = await build(host, configOf(vcpus, way));
  const { memory } = domain;
  const words = (at: number, ...values: number[]) =>
    memory.write(at, new Uint8Array(Uint32Array.from(values).buffer));
  memory.write(0x8000, START);
  memory.write(0xa000, ANEW);
  memory.write(0x9000, OTHER.bytes);
  words(GDT, 0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300);
  for (const [vector, name] of [[0x40, "handler"], [0x41, "tick"]] as const) {
    words(IDT + 8 * vector, 0x8_0000 | Number(OTHER.symbols.get(name)), 0x8e00);
  }
  words(POINTERS, GDT << 16 | 23, 0, IDT << 16 | 0x7ff, 0);
  words(NOTE.others, vcpus - 1);
  const note = (at: number) => new DataView(memory.read(at, 4).buffer).getUint32(0, true);
  const position = () => [
    host.now,
    domain.state.kind,
    ...domain.vcpus.map(({ count, runstate, exits }) => [count, runstate, exits]),
    hostHash(host),
  ];
  return { host, domain, note, position };
}

/** Runs up to a machine time, or until nothing will happen any more. */
function runTo(host: Host, time: number): void {
  while (host.now < time && (host.runOnce(time - host.now) || host.idle()));
}

/** [vCPUs, processors] */
const NUMBERS = [[2, 1], [5, 1], [16, 1], [2, 2], [5, 3], [16, 8]] as const;
const ALL: readonly (readonly [Way, vcpus: number, cpus: number])[] = [
  ...HVM.flatMap((way) => NUMBERS.map(([vcpus, cpus]) => [way, vcpus, cpus] as const)),
  ...BARE.flatMap((way) => [2, 5, 8].map((n) => [way, n, n] as const)),
  ...[...HVM, ...BARE].map((way) => [{ ...way, interleave: SHORT }, 3, 3] as const),
];

for (const [way, vcpus, cpus] of ALL) {
  const turns = way.interleave ? ", short turns" : "";
  const name = `${way.cpu}, ${way.paging}, ${vcpus} vCPUs on ${cpus}${turns}`;
  Deno.test(`vCPUs are started up, interrupted, begun anew, and count together (${name})`, async () => {
    const { host, domain, note } = await guest(vcpus, way, cpus), others = vcpus - 1;
    assertEquals(domain.vcpus.filter(({ online }) => online), [domain.vcpus[0]]);
    domain.resume();
    const done = () => note(NOTE.done) === others && domain.state.kind === "blocked";
    while (!done() && host.now < LIMIT) if (!host.runOnce(LIMIT)) host.idle();
    assertEquals(domain.state.kind, "blocked");
    assertEquals([note(NOTE.up), note(NOTE.anew), note(NOTE.done)], [others + 1, 0x5a, others]);
    // The last one, too, once more when all go on.
    assertEquals(note(NOTE.taken), (ROUNDS + 1) * others);
    assertEquals(note(NOTE.counted), COUNTS * vcpus);
    assert(note(NOTE.ticks) > 0, "their timers ring");
    assert(note(NOTE.began) > note(NOTE.sent), "what is sent arrives later");
    const ids = domain.memory.read(NOTE.ids, vcpus);
    assertEquals([...ids], Array.from({ length: vcpus }, (_, n) => n));
    for (const { count, exits } of domain.vcpus) {
      assert(count > COUNTS && (way.paging === "bare" || (exits.hlt ?? 0) > 0));
    }
    // None is ahead of the others by more than a turn, or what an access at its end takes.
    const times = host.processors.map(({ now }) => now);
    assert(Math.max(...times) - Math.min(...times) <= 12_000, times.join(" "));
  });
}

for (const way of HVM) {
  Deno.test(`a vCPU begins in real mode at its start-up's page, with the registers of INIT (${way.cpu}, ${way.paging})`, async () => {
    const { host, domain } = await guest(2, way), [, other] = domain.vcpus;
    const { ops, hvm, port } = other.engine as HvmEngine;
    // What it has been does not matter.
    ops.setRegister(hvm, "rsi", 0x1234n);
    ops.setRegister(hvm, "rflags", 0x203n);
    ops.setCr(hvm, 0, 0x6001_0011n);
    ops.setMsr(hvm, MSR.EFER, 0x800n);
    ops.setMsr(hvm, MSR.LSTAR, 0x5678n);
    ops.setSegment(hvm, "ds", {
      selector: 8,
      base: 0x1000n,
      limit: 0xffff_ffff,
      attributes: 0xc093,
    });
    ops.inject(hvm, { type: "external-interrupt", vector: 0x55 });
    other.wake();
    domain.vcpus[0].goOffline();
    domain.resume();
    port.signals.init = true;
    port.signals.startup = 0x9f;
    // INIT first, then the start-up; of its first instruction it gets no further.
    domain.memory.write(0x9f000, Uint8Array.of(0xeb, 0xfe));
    host.runOnce(1);
    assertEquals([other.runstate.state, other.count, port.signals.startup], ["offline", 0, 0x9f]);
    host.runOnce(1);
    assertEquals([other.runstate.state, other.count, port.signals], [
      "running",
      1,
      { nmi: 0, init: false, startup: -1 },
    ]);
    assertEquals(ops.getSegment(hvm, "cs"), {
      selector: 0x9f00,
      base: 0x9f000n,
      limit: 0xffff,
      attributes: ops.getSegment(hvm, "cs").attributes,
    });
    const { eax } = domain.cpuid.read(1, 0);
    const register = (name: "rip" | "rflags" | "rsi" | "rdx" | "dr7") => ops.getRegister(hvm, name);
    assertEquals([register("rip"), register("rflags"), register("rsi"), register("dr7")], [
      0n,
      2n,
      0n,
      0x400n,
    ]);
    assertEquals(register("rdx"), BigInt(eax));
    assertEquals([ops.getCr(hvm, 0), ops.getMsr(hvm, MSR.EFER)], [0x6000_0010n, 0n]);
    assertEquals([ops.getSegment(hvm, "ds").base, ops.pendingEvent(hvm)], [0n, undefined]);
    // MSRs stay.
    assertEquals(ops.getMsr(hvm, MSR.LSTAR), 0x5678n);
  });
}

for (
  const [way, cpus] of [
    ...HVM.flatMap((way) => [[way, 1], [way, 2]] as const),
    ...BARE.map((way) => [way, 3] as const),
  ]
) {
  Deno.test(`a run of several vCPUs repeats, saved and loaded at any place (${way.cpu}, ${way.paging}, on ${cpus})`, async () => {
    const [one, other] = [await guest(3, way, cpus), await guest(3, way, cpus)];
    one.domain.resume();
    let saves = 0;
    for (let n = 1, time = 0; one.note(NOTE.done) < 2; n++) {
      assert(n < 1000, `${time} ns`);
      runTo(one.host, time += 100 + 7919 * n % 3000);
      if (n % 3) continue;
      saves++;
      one.domain.pause();
      const saved = saveHost(one.host);
      loadHost(other.host, saved);
      assertEquals(saveHost(other.host), saved);
      for (const { domain } of [one, other]) domain.resume();
      for (const { host } of [one, other]) runTo(host, time + 15_000);
      assertEquals(other.position(), one.position());
      one.domain.pause();
      loadHost(one.host, saved);
      one.domain.resume();
    }
    assert(saves >= 5, `${saves}`);
  });
}

for (
  const [way, cpus] of [
    ...[...HVM, ...BARE].map((way) => [way, 3] as const),
    ...HVM.map((way) => [way, 1] as const),
  ]
) {
  Deno.test(`a run of several vCPUs is the same however it is cut (${way.cpu}, ${way.paging}, on ${cpus})`, async () => {
    const [one, ...others] = await Promise.all([1, 2, 3].map(() => guest(3, way, cpus)));
    const done = ({ domain }: typeof one) => domain.state.kind === "blocked";
    const finish = (run: typeof one, budget: () => number) => {
      run.domain.resume();
      while (!done(run) && run.host.now < LIMIT) if (!run.host.runOnce(budget())) run.host.idle();
      return [run.position(), run.host.turns.turns];
    };
    const whole = finish(one, () => LIMIT);
    assertEquals(one.domain.state.kind, "blocked");
    const { turns } = one.host.turns, ends = new Set(turns.map(({ end }) => end));
    // A bare processor is reset by who sends it INIT.
    const awaited = [
      "length",
      "wait",
      "wake",
      ...way.paging === "bare" ? [] : ["offline"],
    ] as const;
    assertEquals(awaited.filter((end) => !ends.has(end as typeof turns[0]["end"])), []);
    for (const { id, count } of one.domain.vcpus) {
      const own = turns.filter(({ vcpu }) => vcpu === id);
      assertEquals(own.reduce((sum, { instructions }) => sum + instructions, 0), count);
    }
    for (const [n, other] of others.entries()) {
      let x = n + 1;
      assertEquals(finish(other, () => 1 + (x = x * 48271 % 2147483647) % (n ? 3000 : 40)), whole);
    }
  });
}
