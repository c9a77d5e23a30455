import { assert, assertEquals, assertThrows } from "@std/assert";
import { featureBits } from "../abi/x86/cpuid.ts";
import { Cpuid } from "./cpuid.ts";

const bit = (value: number, n: number) => value >>> n & 1;

Deno.test("models: vendor and what is theirs alone", () => {
  const vendor = (model: "intel" | "amd" | "common") => {
    const { ebx, edx, ecx } = new Cpuid(model).read(0, 0);
    return new TextDecoder().decode(new Uint8Array(Uint32Array.of(ebx, edx, ecx).buffer));
  };
  assertEquals([vendor("intel"), vendor("amd"), vendor("common")], [
    "GenuineIntel",
    "AuthenticAMD",
    "XvmProcessor",
  ]);
  assertEquals(bit(new Cpuid("intel").read(1, 0).ecx, 5), 1);
  assertEquals(bit(new Cpuid("amd").read(0x8000_0001, 0).ecx, 2), 1);
  for (const f of ["vmx", "svm"]) assert(!new Cpuid("common").has(f));
});

Deno.test("the features of common are in both other models", () => {
  const intel = new Cpuid("intel"), amd = new Cpuid("amd");
  for (const f of new Cpuid("common").features) assert(intel.has(f) && amd.has(f), f);
});

Deno.test("every feature can be switched on and off", () => {
  const dynamic = new Set(["osxsave", "apic"]);
  for (const [name, f] of Object.entries(featureBits)) {
    if (dynamic.has(name)) continue;
    const leaf = (on: boolean) =>
      new Cpuid("amd", { [name]: on, xsave: name === "xsave" ? on : true }).read(f.leaf, f.subleaf);
    assertEquals(
      [bit(leaf(true)[f.register], f.bit), bit(leaf(false)[f.register], f.bit)],
      [1, 0],
      name,
    );
  }
  assertThrows(() => new Cpuid("intel", { ssse4: true }), TypeError, "ssse4");
});

Deno.test("bits of CR4 and EFER follow the features", () => {
  const cpuid = new Cpuid("intel", { smap: false, nx: false });
  assertEquals(bit(cpuid.cr4Valid, 21), 0);
  assertEquals(bit(cpuid.eferValid, 11), 0);
  assertEquals(bit(cpuid.cr4Valid, 20), 1);
});

Deno.test("leaves beyond the last, and the brand text", () => {
  const intel = new Cpuid("intel");
  assertEquals(intel.read(0x1000, 0), intel.read(intel.read(0, 0).eax, 0));
  assertEquals(new Cpuid("amd").read(0x1000, 0), { eax: 0, ebx: 0, ecx: 0, edx: 0 });
  const words = [2, 3, 4].flatMap((n) => {
    const { eax, ebx, ecx, edx } = intel.read(0x8000_0000 + n, 0);
    return [eax, ebx, ecx, edx];
  });
  const text = new TextDecoder().decode(new Uint8Array(Uint32Array.from(words).buffer));
  assertEquals(text.replaceAll("\0", ""), "xvm processor, Intel model");
});
