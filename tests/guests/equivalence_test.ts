// One guest in three ways, and one guest observed and not.
//
// Bare and HVM, with nested and with shadow paging, with the same CPUID ("common"): registers, memory and time are equal at every count
// of instructions, timer interrupts included, for what runs from memory and ports that both have:
// an instruction that exits counts as one and takes 1 ns, as on the bare processor. A Linux boot
// to GUEST-READY is equal too, to the byte: there is no difference left to explain. A HLT that is the
// last instruction of a run has blocked an HVM domain already, a bare one when it is run on.
import { assert, assertEquals } from "@std/assert";
import { guestsFolder } from "../../repl/guests/images.ts";
import { type GuestDomain, subjectOf } from "../../src/debug/domain.ts";
import { hostUnder, Hypervisor } from "../../src/debug/hypervisor.ts";
import { registerLines } from "../../src/debug/views/visible.ts";
import { demoGuest } from "../../src/builder/demo.ts";
import { assemble } from "../../src/machine/isa/encode.ts";
import { TO_FLAT } from "../../src/machine/testing.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

type Type = "bare" | "hvm" | "shadow";

/** A ROM: real mode to paged protected mode, faults, a ring 3 visit, a loop over memory; no timer. */
const PROGRAM = `
bits 16
org 0
start:
  cli
  mov ax, 0x1000
  mov ss, ax
  mov sp, 0x8000
  xor eax, eax
  cpuid
  push ebx
  push ecx
  mov eax, 1
  cpuid
  push edx
${TO_FLAT}
  mov esp, 0x18000
  ; 4-MB pages, all to themselves; one more that is read-only
  mov cr3, eax
  mov edi, 0x20000
  mov eax, 0x83
fill:
  mov [edi], eax
  add edi, 4
  add eax, 0x400000
  cmp edi, 0x21000
  jb fill
  mov dword [0x20008], 0x81
  ; every vector ends in one handler that leaves a note and goes past the instruction
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
  mov eax, 0x20000
  mov cr3, eax
  mov eax, cr4
  or eax, 0x10
  mov cr4, eax
  mov eax, cr0
  or eax, 0x80010000
  mov cr0, eax
  mov ebx, 0x30000
  mov esi, 0
again:
  mov [0x800000], eax      ; #PF: read-only, 5 bytes
  nop
  nop
  nop
  ud2
  mov ecx, 0x174
  rdmsr
  add eax, 0x11
  wrmsr
  mov dx, 0x3f8
  mov al, 'x'
  out dx, al
  mov dx, 0x3fd
  in al, dx
  add esi, eax
  mov eax, esi
  imul eax, eax, 0x10dcd
  mov [ebx + esi * 4], eax
  inc dword [0x30000]
  cmp dword [0x30000], 200
  jb again
  hlt

handler:
  inc dword [0x31000]
  add ebx, 4
  mov edx, [esp]
  mov [ebx], edx
  cmp edx, 3                ; the error code of the #PF; a #UD leaves its address there
  jne noCode
  add esp, 4
  add dword [esp], 3
noCode:
  add dword [esp], 2
  iretd

align 8
gdt:
  dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:
  dw 23
  dd 0xf0000 + gdt
`;

function rom(): Uint8Array {
  const { bytes } = assemble(PROGRAM, { mode: 16 });
  const image = new Uint8Array(0x10000);
  image.set(bytes);
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return image;
}

const CPUS = ["intel", "amd"] as const;

async function make(
  type: Type,
  kernel: Uint8Array | string,
  more: object = {},
  cpu: CpuModel = "intel",
) {
  const hv = await Hypervisor.start({ memory: type === "bare" ? "64M" : "192M", cpu });
  const how = type === "shadow" ? { type: "hvm", paging: "shadow" } as const : { type };
  const dom = await hv.createDomain({ ...how, kernel, memory: "16M", cpuid: "common", ...more });
  return { hv, dom };
}

/** Runs a domain to a count of instructions, or until it halts for good. */
function runTo(hv: Hypervisor, dom: GuestDomain, count: number): void {
  const { inner } = subjectOf(dom), host = hostUnder(hv), { cpu } = host.machine;
  if (inner.state.kind === "paused") inner.setState({ kind: "running" });
  while (inner.count < count && !inner.ended) {
    host.runOnce(count - inner.count);
    if (inner.state.kind !== "blocked" || inner.count >= count) continue;
    const next = Math.min(inner.platform!.deadline(), host.machine.bus.deadline());
    if (next === Infinity || !(vcpuFlags(dom) & 0x200n)) return;
    cpu.skipTo(next);
    host.handleInterrupts();
    inner.platform!.run(cpu.now);
  }
}

const vcpuFlags = (dom: GuestDomain): bigint => subjectOf(dom).vcpus[0].file.get("rflags") ?? 0n;

/** Pages whose bytes differ. */
function differing(a: GuestDomain, b: GuestDomain): number[] {
  const pages: number[] = [];
  for (let gpa = 0; gpa < subjectOf(a).inner.memory.size; gpa += 4096) {
    const [x, y] = [a, b].map((dom) => subjectOf(dom).inner.memory);
    if (x.machineAddress(gpa) < 0 || y.machineAddress(gpa) < 0) continue;
    const [p, q] = [x, y].map((memory) => new Uint32Array(memory.read(gpa, 4096).buffer));
    for (let i = 0; i < 1024; i++) {
      if (p[i] !== q[i]) {
        pages.push(gpa);
        break;
      }
    }
  }
  return pages;
}

/** A test on each vendor's host. */
function forEach(name: string, body: (cpu: CpuModel) => Promise<void>): void {
  for (const cpu of CPUS) Deno.test(`${name}, ${cpu}`, () => body(cpu));
}

/** All kinds side by side: the same at each count. */
async function sideBySide(cpu: CpuModel, kernel: Uint8Array, counts: readonly number[]) {
  const bare = await make("bare", kernel, {}, cpu), hvm = await make("hvm", kernel, {}, cpu);
  const shadow = await make("shadow", kernel, {}, cpu);
  const seen = ({ hv, dom }: typeof bare) => ({
    count: subjectOf(dom).inner.count,
    time: hostUnder(hv).machine.cpu.now,
    registers: registerLines(subjectOf(dom).vcpus[0].file),
    text: dom.console.text,
  });
  for (const count of counts) {
    for (const { hv, dom } of [bare, hvm, shadow]) runTo(hv, dom, count);
    for (const [name, other] of [["hvm", hvm], ["shadow", shadow]] as const) {
      assertEquals(seen(other), seen(bare), `${name} at ${count}`);
      assertEquals(differing(bare.dom, other.dom), [], `${name} at ${count}`);
    }
  }
  return { bare, hvm, shadow };
}

forEach(
  "a program of faults and exits is the same bare, in HVM and under shadow paging",
  async (cpu) => {
    const counts = [6, 7, 100, 1500, 6000, 6001, 1e6];
    const { bare, hvm, shadow } = await sideBySide(cpu, rom(), counts);
    const notes = new DataView(subjectOf(bare.dom).inner.memory.read(0x30000, 0x1004).buffer);
    assertEquals(notes.getUint32(0, true), 200);
    // A #PF and a #UD in each round.
    assertEquals(notes.getUint32(0x1000, true), 400);
    assert(hvm.dom.exits.io >= 400 && hvm.dom.exits.msr >= 400);
    for (const { hv } of [bare, hvm, shadow]) await hv.close();
  },
);

forEach(
  "the demo guest with its timer is the same bare, in HVM and under shadow paging",
  async (cpu) => {
    const { image } = demoGuest(), counts = [1000, 9339, 10_000, 54_321, 300_000];
    const { bare, hvm, shadow } = await sideBySide(cpu, image, counts);
    assert(hvm.dom.exits.hlt > 1000);
    for (const { hv } of [bare, hvm, shadow]) await hv.close();
  },
);

const CMDLINE = "console=ttyS0 nokaslr mitigations=off cryptomgr.notests noisapnp quiet";
const folder = guestsFolder();
const KERNEL = `${folder}/vmlinux-686-pae`, RAMDISK = `${folder}/tiny-i386.cpio.gz`;
const missing = [KERNEL, RAMDISK].find((path) => !exists(path));
const linux = { ramdisk: RAMDISK, cmdline: CMDLINE, memory: "128M" };

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** A test that needs the guest's images. */
function guestTest(name: string, fn: () => Promise<void>): void {
  const why = missing ? `: skipped, no ${missing} (xvm guests fetch)` : "";
  Deno.test({ name: name + why, ignore: missing !== undefined, fn });
}

guestTest(
  "Linux 686-pae boots to the same state bare, in HVM, and there under shadow paging",
  async () => {
    const both = [];
    for (const type of ["bare", "hvm", "shadow"] as const) {
      const made = await make(type, KERNEL, linux), { hv, dom } = made;
      // In steps of ten million: a look at the text costs little then.
      while (!dom.console.text.includes("GUEST-READY") && subjectOf(dom).inner.count < 1e9) {
        runTo(hv, dom, subjectOf(dom).inner.count + 10e6);
      }
      both.push(made);
    }
    const [b, h, s] = both.map(({ hv, dom }) => ({
      text: dom.console.text,
      count: subjectOf(dom).inner.count,
      time: hostUnder(hv).machine.cpu.now,
      registers: registerLines(subjectOf(dom).vcpus[0].file),
    }));
    assert(b.text.includes("GUEST-READY"), b.text.slice(-1000));
    assertEquals(h, b);
    assertEquals(differing(both[0].dom, both[1].dom), []);
    assertEquals(s, b);
    assertEquals(differing(both[0].dom, both[2].dom), []);
    for (const { hv } of both) await hv.close();
  },
);

for (const [type, cpu] of [["hvm", "intel"], ["shadow", "intel"], ["shadow", "amd"]] as const) {
  guestTest(
    `a boot that is traced and intercepted has the hashes of one that is not, ${type}, ${cpu}`,
    async () => {
      const run = async (observe: boolean) => {
        const { hv, dom } = await make(type, KERNEL, linux, cpu);
        let events = 0;
        if (observe) {
          const note = () => void events++;
          for (const kind of OBSERVED) dom.trace(kind, {}, note);
          if (type === "shadow") dom.trace("shadow-write", {}, note);
          dom.trace("execute", { address: 0xc100_0000 }, note);
          dom.trace("watch", { address: 0xc1a0_0000, length: 8 }, note);
        }
        const hashes: string[] = [];
        for (const count of [1e6, 10e6, 25e6, 50e6]) {
          runTo(hv, dom, count);
          hashes.push(
            `${subjectOf(dom).inner.count} ${dom.stateHash()} ${hostUnder(hv).machine.cpu.now}`,
          );
        }
        await hv.close();
        return { hashes, events };
      };
      const alone = await run(false), observed = await run(true);
      assertEquals(observed.hashes, alone.hashes);
      assert(observed.events > 1000, `${observed.events} events`);
    },
  );
}

/** Every intercept that a trace can ask for and that Linux meets in its first instructions. */
const OBSERVED = [
  "cpuid",
  "msr",
  "io",
  "cr",
  "dr",
  "exception",
  "invlpg",
  "descriptor-table",
  "rdtsc",
  "hlt",
  "wbinvd",
  "pause",
  "nested-page-fault",
  "mmio",
  "external-interrupt",
] as const;
