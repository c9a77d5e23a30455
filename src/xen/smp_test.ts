// Domains of several vCPUs in hardware virtual machines: started up, interrupted, and initialized again.
import { assert, assertEquals } from "@std/assert";
import { build, type DomainConfig } from "../builder/domain.ts";
import { assembleKernel } from "../debug/testing/hosts.ts";
import { assemble } from "../machine/isa/encode.ts";
import type { CpuModel } from "../machine/vendors.ts";
import { MSR } from "../abi/x86/msr.ts";
import { Host } from "./host.ts";
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
  pause
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
const START = assemble(
  `xor ax, ax
  mov ds, ax
  lgdt [${POINTERS}]
  mov eax, cr0
  or al, 1
  mov cr0, eax
  db 0x66, 0xea
  dd 0x9000
  dw 8`,
  { mode: 16 },
).bytes;
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
  dec ecx
  jnz count
  lock inc dword [${NOTE.done}]
  hlt
handler:
  lock inc dword [${NOTE.taken}]
  mov dword [0xfee000b0], 0
  iretd`,
  { mode: 32 },
);

interface Way {
  readonly cpu: CpuModel;
  readonly paging: "hap" | "shadow";
}
const WAYS: readonly Way[] = (["intel", "amd"] as const).flatMap((cpu) =>
  (["hap", "shadow"] as const).map((paging) => ({ cpu, paging }))
);

const configOf = (vcpus: number, { paging }: Pick<Way, "paging">): DomainConfig => ({
  name: "smp",
  type: "hvm",
  kernel: { file: "kernel", bytes: FIRST },
  memory: 4 << 20,
  vcpus,
  paging,
});

/** A host with the guest before its first instruction. */
async function guest(vcpus: number, way: Way) {
  const { cpu } = way;
  const host = new Host({ cpu, memory: 64 << 20, unixTime: 1_700_000_000, seed: 3 });
  const { domain } = await build(host, configOf(vcpus, way));
  const { memory } = domain;
  const words = (at: number, ...values: number[]) =>
    memory.write(at, new Uint8Array(Uint32Array.from(values).buffer));
  memory.write(0x8000, START);
  memory.write(0xa000, ANEW);
  memory.write(0x9000, OTHER.bytes);
  words(GDT, 0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300);
  const handler = Number(OTHER.symbols.get("handler"));
  words(IDT + 8 * 0x40, 0x8_0000 | handler, 0x8e00);
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

for (const way of WAYS) {
  for (const vcpus of [2, 5, 16]) {
    const name = `${way.cpu}, ${way.paging}, ${vcpus} vCPUs`;
    Deno.test(`vCPUs are started up, interrupted, begun anew, and count together (${name})`, async () => {
      const { host, domain, note } = await guest(vcpus, way), others = vcpus - 1;
      assertEquals(domain.vcpus.filter(({ online }) => online), [domain.vcpus[0]]);
      domain.resume();
      const done = () => note(NOTE.done) === others && domain.state.kind === "blocked";
      while (!done() && host.now < LIMIT) if (!host.runOnce(LIMIT)) host.idle();
      assertEquals(domain.state.kind, "blocked");
      assertEquals([note(NOTE.up), note(NOTE.anew), note(NOTE.done)], [others + 1, 0x5a, others]);
      // The last one, too, once more when all go on.
      assertEquals(note(NOTE.taken), (ROUNDS + 1) * others);
      assertEquals(note(NOTE.counted), COUNTS * vcpus);
      const ids = domain.memory.read(NOTE.ids, vcpus);
      assertEquals([...ids], Array.from({ length: vcpus }, (_, n) => n));
      for (const { count, exits } of domain.vcpus) assert(count > COUNTS && (exits.hlt ?? 0) > 0);
    });
  }

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
      { nmi: false, init: false, startup: -1 },
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

  Deno.test(`a run of several vCPUs repeats, saved and loaded at any place (${way.cpu}, ${way.paging})`, async () => {
    const [one, other] = [await guest(3, way), await guest(3, way)];
    one.domain.resume();
    for (let n = 1, time = 0; one.note(NOTE.done) < 2; n++) {
      assert(n < 500, `${time} ns`);
      runTo(one.host, time += 1000 + 79_199 * n % 300_000);
      if (n % 3) continue;
      one.domain.pause();
      const saved = saveHost(one.host);
      loadHost(other.host, saved);
      assertEquals(saveHost(other.host), saved);
      for (const { domain } of [one, other]) domain.resume();
      for (const { host } of [one, other]) runTo(host, time + 50_000);
      assertEquals(other.position(), one.position());
      one.domain.pause();
      loadHost(one.host, saved);
      one.domain.resume();
    }
  });
}
