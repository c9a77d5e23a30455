import { assertEquals } from "@std/assert";
import { checkById } from "../../checks.ts";
import { Cpuid } from "../../cpuid.ts";
import type { Machine } from "../../machine.ts";
import { SEGMENT, segment, V } from "../../state.ts";
import { flatMachine } from "../../testing.ts";

const STAR = 0x001b_0008_0000_0000n, LSTAR = 0xffff_8000_0000_1000n, CSTAR = 0x7000n;

/** 64-bit code about to run, with the registers of SYSCALL set. */
function machine(code: string, vendor: "intel" | "amd" = "intel"): Machine {
  const m = flatMachine(code, { long: true, cpu: vendor }), { cpu } = m;
  cpu.hooks.cpuid = new Cpuid(vendor).install(cpu.i32);
  cpu.set("efer", 0xd01n);
  cpu.set("star", STAR);
  cpu.set("lstar", LSTAR);
  cpu.set("cstar", CSTAR);
  cpu.set("sfmask", 0x4_7700n);
  cpu.set("rflags", 0x4_0a47n | 0x1_0000n);
  cpu.hooks.fault = () => true;
  return m;
}
const selector = ({ cpu }: Machine, n: number) => cpu.i32[(segment(n) + SEGMENT.selector) >> 2];
const attributes = ({ cpu }: Machine, n: number) => cpu.i32[(segment(n) + SEGMENT.attributes) >> 2];
/** Puts the processor at privilege 3, in 64-bit or compatibility mode. */
function user(m: Machine, long = true): Machine {
  const flat = { base: 0n, limit: 0xffff_ffff };
  m.cpu.setSegment(1, { selector: 0x2b, attributes: long ? 0xa0fb : 0xc0fb, ...flat });
  for (const n of [0, 2, 3]) m.cpu.setSegment(n, { selector: 0x23, attributes: 0xc0f3, ...flat });
  m.cpu.system.refresh();
  return m;
}
/** What one instruction comes to: "budget", or the fault's vector and check. */
function one(m: Machine): string {
  const stop = m.cpu.run(1);
  if (stop !== "fault") return stop;
  return `#${m.cpu.lastFault?.vector} ${checkById(m.cpu.i32[V.check >> 2]).name}`;
}

Deno.test("SYSCALL and SYSRET: addresses, flags, selectors", () => {
  const enter = user(machine("syscall"));
  assertEquals(one(enter), "budget");
  const { cpu } = enter;
  assertEquals([cpu.get("rip"), cpu.get("rcx")], [LSTAR, 0x1002n]);
  // R11 has the flags without RF; those of SFMASK are cleared.
  assertEquals([cpu.get("r11"), cpu.get("rflags")], [0x4_0a47n, 0x0847n]);
  assertEquals([selector(enter, 1), selector(enter, 2)], [8, 16]);
  assertEquals([attributes(enter, 1), attributes(enter, 2)], [0xa09b, 0xc093]);

  const leave = (code: string, rcx: bigint, r11 = 0x4_0a47n) => {
    const m = machine(code);
    m.cpu.set("rcx", rcx);
    m.cpu.set("r11", r11);
    return m;
  };
  const back = leave("db 0x48\nsysret", 0x1234_5678_9000n, 0xffff_ffffn);
  assertEquals(one(back), "budget");
  assertEquals(back.cpu.get("rip"), 0x1234_5678_9000n);
  assertEquals(back.cpu.get("rflags"), 0x3c_7fd7n, "VM, RF and reserved bits stay 0");
  assertEquals([selector(back, 1), selector(back, 2)], [0x2b, 0x23]);
  assertEquals([attributes(back, 1), attributes(back, 2)], [0xa0fb, 0xc0f3]);
  const narrow = leave("sysret", 0xf_1234_5678n);
  assertEquals(one(narrow), "budget");
  assertEquals(narrow.cpu.get("rip"), 0x1234_5678n);
  assertEquals([selector(narrow, 1), selector(narrow, 2)], [0x1b, 0x23]);
  assertEquals(attributes(narrow, 1), 0xc0fb);

  assertEquals(one(leave("db 0x48\nsysret", 1n << 47n)), "#13 sysexit.canonical");
  assertEquals(one(user(leave("db 0x48\nsysret", 0x1000n))), "#13 privilege.cpl");
});

Deno.test("SYSCALL in compatibility mode goes to CSTAR on AMD, and is undefined on Intel", () => {
  const amd = user(machine("syscall", "amd"), false);
  assertEquals(one(amd), "budget");
  assertEquals([amd.cpu.get("rip"), attributes(amd, 1)], [CSTAR, 0xa09b]);
  assertEquals(one(user(machine("syscall"), false)).slice(0, 2), "#6");
  const off = user(machine("syscall"));
  off.cpu.set("efer", 0xd00n);
  assertEquals(one(off).slice(0, 2), "#6");
});

Deno.test("SWAPGS exchanges, at privilege 0 alone", () => {
  const m = machine("swapgs\nswapgs");
  m.cpu.set("gs.base", 0x1111n);
  m.cpu.set("kernelGsBase", 0xffff_8000_0000_2222n);
  assertEquals(one(m), "budget");
  assertEquals([m.cpu.get("gs.base"), m.cpu.get("kernelGsBase")], [
    0xffff_8000_0000_2222n,
    0x1111n,
  ]);
  assertEquals(one(m), "budget");
  assertEquals(m.cpu.get("gs.base"), 0x1111n);
  assertEquals(one(user(machine("swapgs"))), "#13 privilege.cpl");
});
