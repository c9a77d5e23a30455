import { assert, assertEquals, assertThrows } from "@std/assert";
import { featureBits } from "../abi/x86/cpuid.ts";
import { Cpuid } from "./cpuid.ts";
import { cpuidModels, MODELS } from "./cpuid_models.ts";
import { guestCpuid, guestLimits } from "./features.ts";
import { V } from "./state.ts";

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
  const dynamic = new Set(["osxsave", "ospke"]);
  for (const [name, f] of Object.entries(featureBits)) {
    if (dynamic.has(name)) continue;
    const leaf = (on: boolean) => new Cpuid("amd", { [name]: on }).read(f.leaf, f.subleaf);
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

Deno.test("a feature takes those that need it along, and cannot be had without what it needs", () => {
  const cpuid = new Cpuid("intel", { sse: false });
  for (const f of ["sse2", "sse3", "sse4_2"]) assert(!cpuid.has(f), f);
  assertThrows(
    () => cpuid.edit({ features: { sse3: true } }),
    TypeError,
    "sse3 needs sse2, which is off",
  );
  assert(!cpuid.has("sse3"), "a refused edit changes nothing");
});

Deno.test("limits: models lose what is refused, and edits that ask for it are refused by name", () => {
  const cpuid = new Cpuid("goldmont", {}, guestLimits("intel"));
  for (const f of ["aes", "sha_ni", "vmx"]) assert(!cpuid.has(f), f);
  for (const f of ["movbe", "rdrand", "xsaves", "tsc_deadline_timer"]) assert(cpuid.has(f), f);
  for (const f of ["avx", "aes"]) {
    assertThrows(
      () => cpuid.edit({ features: { [f]: true } }),
      TypeError,
      `${f} cannot be switched`,
    );
  }
  assertThrows(() => cpuid.edit({ features: { vmx: true } }), TypeError, "virtualization inside");
  assertThrows(
    () => cpuid.edit({ leaves: { "7.0": { ebx: 1 << 5 } } }),
    TypeError,
    "0x7.0 ebx cannot be 0x20: avx2",
  );
});

Deno.test("a system on AMD's processor alone may have SVM, if it asks for it", () => {
  assert(!guestCpuid("amd", {}, true).has("svm"));
  const cpuid = guestCpuid("amd", { features: { svm: true } }, true);
  assert(cpuid.has("svm") && cpuid.has("npt") && cpuid.has("nrip_save"));
  assertEquals(cpuid.read(0x8000_000a, 0).ebx, 256);
  assertThrows(() => guestCpuid("amd", { features: { svm: true } }), TypeError, "inside a guest");
  assertThrows(() => guestCpuid("intel", { features: { vmx: true } }, true), TypeError, "inside");
});

Deno.test("leaves are edited whole, and refused where they cannot be so", () => {
  const cpuid = new Cpuid("common", {}, guestLimits("amd"));
  cpuid.edit({ leaves: { "0x40000000": { eax: 0x4000_0001, ebx: 7 }, "1": { eax: 0x0002_06c2 } } });
  assertEquals(cpuid.read(0x4000_0000, 0), { eax: 0x4000_0001, ebx: 7, ecx: 0, edx: 0 });
  assertEquals(cpuid.read(1, 0).eax, 0x0002_06c2);
  const { ebx } = cpuid.read(7, 0);
  cpuid.edit({ leaves: { "7": { ebx: ebx & ~(1 << 20) } } });
  assert(!cpuid.has("smap") && bit(cpuid.cr4Valid, 21) === 0);
  const refused: [Parameters<Cpuid["edit"]>[0]["leaves"], string][] = [
    [{ "0x123": { eax: 1 } }, "there is no leaf 0x123"],
    [{ "1": { eex: 1 } as never }, 'not "eex"'],
    [{ "1": { eax: -1 } }, "0 to 0xffffffff was expected"],
    [{ "1.2": { eax: 1 } }, "leaf 0x1 has no sub-leaves"],
    [{ "7": { edx: 1 << 26 } }, "bit 26 is no feature of this machine"],
    [{ "0x80000008": { eax: 0x3030 } }, "the machine gives it"],
    [{ "0xd": { ebx: 1 } }, "the machine gives it"],
    [{ "0": { eax: 0x100 } }, "the last leaf is"],
    // Two processors of one id: no edit can ask for that.
    [{ "1": { ebx: 0x0500_0800 } }, "bits 0x5000000 are of the APIC id"],
    [{ "0xb": { edx: 3 } }, "bits 0x3 are of the APIC id"],
    [{ "0xb.1": { edx: 3 } }, "of the APIC id"],
    [{ "0x1f": { edx: 1 } }, "of the APIC id"],
    [{ "0x8000001e": { eax: 2 } }, "of the APIC id"],
    [{ "0x8000001e": { ebx: 2 } }, "of the APIC id"],
    [{ one: { eax: 1 } }, "a leaf was expected"],
  ];
  for (const [leaves, message] of refused) {
    assertThrows(() => cpuid.edit({ leaves }), TypeError, message);
  }
  cpuid.edit({ leaves: { "1": { ebx: 0x1000 }, "0x8000001e": { ebx: 0x100 } } });
  assertEquals(cpuid.read(1, 0, { apicId: 3 }).ebx, 0x0300_1000);
});

Deno.test("several processors need an APIC", () => {
  for (const vendor of ["intel", "amd"] as const) {
    for (const bare of [false, true]) {
      const features = { apic: false };
      assert(!guestCpuid(vendor, { features }, bare).has("apic"));
      assertThrows(
        () => guestCpuid(vendor, { features }, bare, 3),
        TypeError,
        "cpuid: apic is off, and without it only the first of 3 processors can be started",
      );
    }
  }
});

Deno.test("a table that was saved and loaded says the same", () => {
  const cpuid = new Cpuid("intel", { rdrand: false });
  const other = new Cpuid("intel");
  other.load(cpuid.save());
  assertEquals(other.rows(), cpuid.rows());
  assertEquals(other.save(), cpuid.save());
});

Deno.test("every model is valid, and common shows no vendor", () => {
  for (const model of cpuidModels) {
    for (const vendor of ["intel", "amd"] as const) {
      const cpuid = new Cpuid(model, {}, guestLimits(vendor));
      for (const name of MODELS[model].features.split(" ")) assert(name in featureBits, name);
      assert(cpuid.has("lm") || model === "opteron", model);
    }
  }
  const rows = (vendor: "intel" | "amd") => new Cpuid("common", {}, guestLimits(vendor)).rows();
  assertEquals(rows("intel"), rows("amd"));
});

Deno.test("what follows the processor's state is put in when it is read", () => {
  const cpuid = new Cpuid("amd");
  const state = { osxsave: true, apicEnabled: false, apicId: 3 };
  const one = cpuid.read(1, 0, state);
  assertEquals([bit(one.edx, 9), bit(one.ecx, 27), one.ebx >>> 24], [0, 1, 3]);
  assertEquals(bit(cpuid.read(0x8000_0001, 0, state).edx, 9), 0);
  assertEquals(bit(cpuid.read(0x8000_0001, 0).edx, 9), 1);
  assertEquals(cpuid.read(0xb, 1, state).edx, 3);
  assertEquals(cpuid.read(0xd, 0), { eax: 3, ebx: 576, ecx: 576, edx: 0 });
});

Deno.test("MXCSR.MM is there where CPUID shows misaligned SSE", () => {
  const cells = new Int32Array(0x2000);
  const cpuid = new Cpuid("amd");
  cpuid.install(cells);
  assertEquals(cells[V.noMisaligned >> 2], 0);
  cpuid.edit({ features: { misalignsse: false } });
  assertEquals(cells[V.noMisaligned >> 2], 1);
});
