// Instructions that leave a guest, at the end of the address space: RIP behind them is what it is on
// the bare processor, where the next fetch faults or goes on at 0.
import { assertEquals } from "@std/assert";
import { AT, HVM_WAYS, WayGuest, type WayMode, wayName, WAYS } from "../debug/testing/ways.ts";

interface Edge {
  readonly code: string;
  /** General registers before it. */
  readonly regs?: Readonly<Record<string, bigint>>;
  readonly modes?: readonly WayMode[];
  /** CR4 bits besides. */
  readonly cr4?: bigint;
  /** That vendor's hypercall: undefined on the bare processor, and CPUID's like in a domain. */
  readonly hypercall?: "intel" | "amd";
}

const MODES = ["long", "compatibility", "pae", "two", "protected16", "real"] as const;
const PAGED: readonly WayMode[] = ["long", "compatibility", "pae", "two"];
const PROTECTED: readonly WayMode[] = [...PAGED, "protected16"];
const OSXSAVE = 0x4_0000n;
const data = BigInt(AT.notes);

const edges: readonly Edge[] = [
  { code: "cpuid" },
  { code: "rdmsr", regs: { rcx: 0x277n } },
  { code: "wrmsr", regs: { rcx: 0x277n, rax: 0x0007_0406n, rdx: 0x0007_0406n } },
  { code: "in al, 0x80" },
  { code: "in eax, dx", regs: { rdx: 0x80n } },
  { code: "out 0x80, al" },
  { code: "insb", regs: { rdx: 0x80n, rdi: data } },
  { code: "rep insb", regs: { rdx: 0x80n, rdi: data, rcx: 3n } },
  { code: "outsb", regs: { rdx: 0x80n, rsi: data } },
  { code: "rep outsd", regs: { rdx: 0x80n, rsi: data, rcx: 3n } },
  { code: "db 0x0f, 0x22, 0xc0", regs: { rax: 0x8005_0031n }, modes: PAGED },
  { code: "db 0x0f, 0x22, 0xc0", regs: { rax: 0x6000_0010n }, modes: ["real"] },
  { code: "db 0x0f, 0x22, 0xd8", regs: { rax: BigInt(AT.root) }, modes: PAGED },
  { code: "db 0x0f, 0x22, 0xe0", regs: { rax: 0xb0n }, modes: ["long", "compatibility", "pae"] },
  { code: "db 0x0f, 0x22, 0xe0", regs: { rax: 0x90n }, modes: ["two", "protected16", "real"] },
  { code: "db 0x0f, 0x20, 0xc0" },
  { code: "db 0x0f, 0x20, 0xd8" },
  { code: "db 0x0f, 0x20, 0xe0" },
  { code: "db 0x44, 0x0f, 0x22, 0xc0", regs: { rax: 5n }, modes: ["long"] },
  { code: "db 0x44, 0x0f, 0x20, 0xc0", modes: ["long"] },
  { code: "db 0x0f, 0x23, 0xc0", regs: { rax: 0x1234n } },
  { code: "db 0x0f, 0x21, 0xf0" },
  { code: "clts" },
  { code: "lmsw ax", regs: { rax: 0xbn }, modes: PROTECTED },
  { code: "smsw ax" },
  { code: "invlpg [0x5000]" },
  { code: "rdtsc" },
  { code: "rdtscp" },
  { code: "pause" },
  { code: "wbinvd" },
  { code: "invd" },
  { code: "xsetbv", regs: { rax: 3n, rdx: 0n, rcx: 0n }, cr4: OSXSAVE },
  { code: "xgetbv", regs: { rcx: 0n }, cr4: OSXSAVE },
  { code: "db 0x0f, 0x01, 0xc1", hypercall: "intel" },
  { code: "db 0x0f, 0x01, 0xd9", hypercall: "amd" },
  { code: "monitor" },
  { code: "mwait" },
  // Of a counter that nobody has: a domain has none.
  { code: "rdpmc", regs: { rcx: 9n } },
  { code: "rdrand eax" },
  { code: "rdseed eax" },
  { code: `sgdt [${AT.notes}]` },
  { code: `sidt [${AT.notes}]` },
  { code: "sldt ax", modes: PROTECTED },
  { code: "str ax", modes: PROTECTED },
  { code: "lldt ax", regs: { rax: 0n }, modes: PROTECTED },
  // The 64-bit local APIC, ROM's hole, and tables that shadow paging keeps from writes.
  { code: "mov eax, [rbx]", regs: { rbx: 0xfee0_0030n }, modes: ["long"] },
  { code: "mov [rbx], eax", regs: { rbx: 0xfee0_0080n, rax: 0n }, modes: ["long"] },
  { code: "mov eax, [0xfee00030]", modes: ["compatibility", "pae", "two"] },
  { code: "mov [0xfee00080], eax", modes: ["compatibility", "pae", "two"] },
  { code: "mov al, [bx]", regs: { rbx: 0xfffn }, modes: ["protected16", "real"] },
  { code: `mov [${AT.root + 0x3ff8}], eax`, modes: PAGED },
  { code: "int 0x20" },
  { code: "int3" },
  { code: "pushfq\n", modes: ["long"] },
  { code: "pushfd", modes: ["compatibility", "pae", "two"] },
  { code: "vmxoff", modes: ["long", "pae"] },
  { code: "stgi", modes: ["long", "pae"] },
];

const WIDTH: Readonly<Record<WayMode, 2 | 4 | 8>> = {
  long: 8,
  compatibility: 8,
  pae: 4,
  two: 4,
  flat32: 4,
  protected16: 4,
  real: 2,
};

/** What one instruction at the end of a mode's addresses comes to. */
function outcome(g: WayGuest, mode: WayMode, { code, regs, cr4 = 0n }: Edge): unknown {
  const base = mode === "two" ? 0x10n : PAGED.includes(mode) ? 0x20n : 0n;
  g.enterAtEnd(mode, code, {
    regs: { rsp: BigInt(AT.stack), ...regs },
    cr4: base | cr4,
  });
  return {
    ended: g.run(),
    rip: g.reg("rip"),
    vector: g.reg("rbx") & 0xffn,
    rsp: g.reg("rsp"),
    stack: g.stack(WIDTH[mode], 4),
  };
}

for (const { cpu } of WAYS.filter(({ type }) => type === "bare")) {
  // Nothing of a hypervisor's: the next fetch is #GP(0) behind the lower half, and behind a limit.
  Deno.test(`the bare processor faults behind the last address of 64-bit code (${cpu})`, async () => {
    const g = await WayGuest.make({ cpu, type: "bare", paging: "hap" });
    assertEquals(outcome(g, "long", { code: "cpuid" }), {
      ended: "blocked",
      rip: BigInt(AT.handlers + 13 * 16 + 6),
      vector: 13n,
      rsp: BigInt(AT.stack - 48),
      stack: [0n, 0x8000_0000_0000n, 32n, 0x1_0002n],
    });
    const { vector } = outcome(g, "pae", { code: "cpuid" }) as { vector: bigint };
    assertEquals(vector, 0x77n, "32-bit addresses go round");
  });
}

for (const way of HVM_WAYS) {
  Deno.test(`an instruction that leaves the guest may be the last of all addresses (${wayName(way)})`, async () => {
    const g = await WayGuest.make(way);
    const bare = await WayGuest.make({ cpu: way.cpu, type: "bare", paging: "hap" });
    for (const edge of edges) {
      for (const mode of edge.modes ?? MODES) {
        const like = edge.hypercall === way.cpu ? { code: "cpuid\nnop" } : edge;
        const what = `${edge.code} in ${mode}`;
        assertEquals([what, outcome(g, mode, edge)], [what, outcome(bare, mode, like)]);
      }
    }
  });
}
