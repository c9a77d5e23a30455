// What CPUID does not show: on the bare processor it does not exist; in a domain the hardware's own
// controls see to that, and where there is none `dom.cpuid` says so.
import { assertEquals } from "@std/assert";
import { Subject } from "../debug/subject.ts";
import { CpuidTable } from "../debug/views/cpuid.ts";
import { AT, type Way, WayGuest, type WayMode, wayName, WAYS } from "../debug/testing/ways.ts";

const UD = 6n, GP = 13n, PF = 14n, NONE = 0x55n;

interface Hidden {
  readonly feature: string;
  readonly code: string;
  readonly regs?: Readonly<Record<string, bigint>>;
  readonly mode?: WayMode;
  readonly cr4?: bigint;
  /** Whose hardware can take it away. */
  readonly control: "both" | "intel" | "none";
}

const XSAVE = "xor edx, edx\nxor ecx, ecx\nmov eax, 3\nxsetbv\n";
const hidden: readonly Hidden[] = [
  { feature: "rdtscp", code: "rdtscp", control: "both" },
  {
    feature: "invpcid",
    code: `mov eax, 2\ninvpcid eax, [${AT.notes}]`,
    control: "both",
  },
  { feature: "rdrand", code: "rdrand eax", control: "intel" },
  { feature: "rdseed", code: "rdseed eax", control: "intel" },
  { feature: "tsc", code: "rdtsc", control: "both" },
  { feature: "tsc", code: "rdtscp", control: "both" },
  { feature: "msr", code: "rdmsr", regs: { rcx: 0x277n }, control: "both" },
  { feature: "msr", code: "wrmsr", regs: { rcx: 0x8bn, rax: 0n, rdx: 0n }, control: "both" },
  { feature: "fsgsbase", code: "rdfsbase rax", mode: "long", control: "both" },
  { feature: "xsave", code: "xgetbv", regs: { rcx: 0n }, control: "both" },
  {
    feature: "xsaves",
    code: `${XSAVE}db 0x0f, 0xc7, 0x2d\ndd ${AT.notes}`,
    cr4: 0x4_0000n,
    control: "intel",
  },
  {
    feature: "xsavec",
    code: `${XSAVE}db 0x0f, 0xc7, 0x25\ndd ${AT.notes}`,
    cr4: 0x4_0000n,
    control: "none",
  },
  { feature: "popcnt", code: "popcnt eax, ecx", control: "none" },
  { feature: "movbe", code: `movbe eax, [${AT.notes}]`, control: "none" },
  { feature: "sse4_2", code: "crc32 eax, cl", control: "none" },
  { feature: "cx8", code: `cmpxchg8b [${AT.notes}]`, control: "none" },
  { feature: "cmov", code: "cmove eax, ecx", control: "none" },
  { feature: "smap", code: "stac", control: "none" },
];

/** The vector that code ends with, NONE if it runs through. */
function run(g: WayGuest, { code, regs, mode = "flat32", cr4 = 0n }: Hidden): bigint {
  const base = mode === "long" ? 0x20n : 0n;
  g.enter(mode, `${code}\nmov ebx, ${NONE}\nhlt`, {
    regs: { rsp: BigInt(AT.stack), rbx: 0n, ...regs },
    cr4: base | cr4,
  });
  const state = g.run();
  assertEquals(state, "blocked", code);
  return g.reg("rbx");
}
const takesAway = ({ type, cpu }: Way, { control }: Hidden) =>
  type === "bare" || control === "both" || control === cpu;
const has = (way: Way, feature: string) => feature !== "invpcid" || way.cpu === "intel";

for (const way of WAYS) {
  const name = wayName(way);

  Deno.test(`an instruction that CPUID does not show is #UD, from the moment it does not (${name})`, async () => {
    const g = await WayGuest.make(way),
      { cpuid } = g.domain,
      table = new CpuidTable(new Subject(g.host, g.domain));
    for (const each of hidden) {
      const { feature, code } = each;
      const there = has(way, feature);
      // These want a bit of CR4 that is clear.
      const byBit = feature === "fsgsbase" || feature === "xsave";
      if (there && !byBit) assertEquals([code, run(g, each)], [code, NONE]);
      const all = Object.fromEntries(cpuid.features.map((f) => [f, true]));
      if (there) cpuid.edit({ features: { [feature]: false } });
      const away = takesAway(way, each);
      assertEquals([feature, code, run(g, each)], [feature, code, away ? UD : NONE]);
      assertEquals([feature, table.executes.includes(feature)], [feature, there && !away]);
      cpuid.edit({ features: all });
      if (there && !byBit) assertEquals([code, run(g, each)], [code, NONE]);
      assertEquals(table.executes.includes(feature), false);
    }
  });

  Deno.test(`one that the other vendor's processor has not is #UD (${name})`, async () => {
    const model = way.cpu === "intel" ? "opteron" : "nehalem", code = "rdtscp";
    const g = await WayGuest.make(way, { model, features: { rdtscp: false } });
    assertEquals(run(g, { feature: "rdtscp", code, control: "both" }), UD);
  });

  Deno.test(`an MSR of what CPUID does not show is #GP (${name})`, async () => {
    const g = await WayGuest.make(way), { cpuid } = g.domain;
    const msrs: Record<string, number[]> = {
      lm: [0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102],
      syscall: [0xc000_0081],
      sep: [0x174, 0x175, 0x176],
      tsc_adjust: [0x3b],
      rdtscp: [0xc000_0103],
      pat: [0x277],
      mtrr: [0xfe, 0x200, 0x20f, 0x250, 0x258, 0x268, 0x2ff],
      mca: [0x179, 0x17a],
      xsaves: [0xda0],
      apic: [0x1b],
      x2apic: [],
    };
    for (const [feature, numbers] of Object.entries(msrs)) {
      const all = Object.fromEntries(cpuid.features.map((f) => [f, true]));
      for (const show of [true, false]) {
        if (!show) cpuid.edit({ features: { [feature]: false } });
        for (const number of numbers) {
          const read = {
            feature,
            code: "rdmsr",
            regs: { rcx: BigInt(number) },
            control: "both",
          } as const;
          const what = `${feature} 0x${number.toString(16)}`;
          assertEquals([what, run(g, read)], [what, show ? NONE : GP]);
          // Written back as it was.
          const write = { ...read, code: "mov esi, ecx\nrdmsr\nmov ecx, esi\nwrmsr" };
          if (![0xfe, 0x179].includes(number)) {
            assertEquals([what, run(g, write)], [what, show ? NONE : GP]);
          }
        }
      }
      cpuid.edit({ features: all });
    }
  });

  Deno.test(`large pages that CPUID does not show have a reserved bit, but over nested tables (${name})`, async () => {
    const g = await WayGuest.make(way), { cpuid } = g.domain;
    const own = way.type === "bare" || way.paging === "shadow";
    const read = (mode: WayMode) => {
      g.enter(mode, `mov eax, [0x40000000 + ${AT.notes}]\nmov ebx, ${NONE}\nhlt`, {
        regs: { rsp: BigInt(AT.stack), rbx: 0n },
      });
      // 1 GByte at 1 GByte; 4 MBytes there from 4 GBytes on, where there is no memory.
      if (mode === "long") g.write64(AT.root + 0x1008, 0x83n);
      else g.write(AT.root + 4 * 256, new Uint8Array(Uint32Array.of(0x2083).buffer));
      assertEquals(g.run(), "blocked");
      return [g.reg("rbx"), g.reg("rbx") === PF ? g.stack(mode === "long" ? 8 : 4, 1)[0] : 0n];
    };
    for (const [feature, mode] of [["pdpe1gb", "long"], ["pse36", "two"]] as const) {
      assertEquals([feature, ...read(mode)], [feature, NONE, 0n]);
      cpuid.edit({ features: { [feature]: false } });
      assertEquals([feature, ...read(mode)], [feature, ...(own ? [PF, 9n] : [NONE, 0n])]);
      assertEquals(new CpuidTable(new Subject(g.host, g.domain)).executes.includes(feature), !own);
      cpuid.edit({ features: { [feature]: true } });
      assertEquals([feature, ...read(mode)], [feature, NONE, 0n]);
    }
  });
}
