import { assertEquals, assertThrows } from "@std/assert";
import { CR4, EFER } from "../../abi/x86/cr.ts";
import { configurations, hostOf, kernel } from "../testing/hosts.ts";

const SPIN = kernel("again: jmp again");
/** A feature, the bit it brings, and another edit that takes it away. */
const USED = [
  ["smep", "CR4.SMEP", "7.0.ebx=0"],
  ["pge", "CR4.PGE", "pge=0"],
  ["vme", "CR4.VME", "vme=0"],
  ["fxsr", "CR4.OSFXSR", "fxsr=0"],
  ["nx", "EFER.NXE", "nx=0"],
  ["syscall", "EFER.SCE", "syscall=0"],
] as const;

for (const way of configurations) {
  Deno.test(`a feature whose bit of CR4 or EFER is set stays: ${way.cpu}, ${way.paging}`, async () => {
    await using host = await hostOf(way, SPIN);
    const { dom } = host, { cpuid, vcpus: [{ regs }] } = dom;
    for (const [feature, bit, edit] of USED) {
      if (!cpuid.has(feature)) continue;
      const [register, name] = bit.split(".");
      const key = register.toLowerCase() as "cr4" | "efer";
      const mask = BigInt({ ...CR4, ...EFER }[name as keyof typeof CR4 | keyof typeof EFER]);
      const old = regs[key], rows = cpuid.text();
      regs[key] = old | mask;
      for (const refused of [() => cpuid.set(feature, false), () => cpuid.edit(edit)]) {
        const { message } = assertThrows(refused, Error);
        assertEquals(message.includes(`${bit}, which`) && message.includes(feature), true, message);
        assertEquals([cpuid.has(feature), cpuid.text()], [true, rows]);
      }
      // Others can go, and this one when its bit is clear.
      cpuid.set("rdrand", false);
      cpuid.set("rdrand", rows.includes("rdrand") || cpuid.has("rdrand"));
      regs[key] = old;
      cpuid.set(feature, false);
      assertEquals(cpuid.has(feature), false);
      cpuid.set(feature, true);
    }
  });
}
