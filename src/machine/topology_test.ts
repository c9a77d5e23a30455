import { assert, assertEquals, assertThrows } from "@std/assert";
import { Cpuid, type CpuidModel } from "./cpuid.ts";
import { cpuidModels } from "./cpuid_models.ts";
import { guestCpuid } from "./features.ts";
import { CPU } from "./state.ts";

const made = (vendor: "intel" | "amd", processors: number, model: CpuidModel = vendor) =>
  guestCpuid(vendor, { model }, false, processors);
const field = (value: number, high: number, low: number) =>
  value >>> low & 2 ** (high - low + 1) - 1;
/** Ids that are reserved for so many processors. */
const power = (n: number) => 2 ** Math.ceil(Math.log2(n));
const all = Array.from({ length: 16 }, (_, n) => n + 1);

Deno.test("a single processor's CPUID tells of no other, whatever the model", () => {
  for (const model of cpuidModels) {
    const one = made("amd", 1, model), plain = guestCpuid("amd", { model });
    assertEquals(one.save(), plain.save());
    assertEquals(field(one.read(1, 0).ebx, 23, 16), 1);
    assert(!one.has("cmp_legacy") && !one.has("topoext"));
    assertEquals(one.read(0xb, 0), { eax: 0, ebx: 0, ecx: 0, edx: 0 });
    assertEquals(one.read(0x8000_0008, 0).ecx, 0);
  }
});

Deno.test("leaf 1: initial APIC id, number of processors, HTT", () => {
  for (const vendor of ["intel", "amd"] as const) {
    for (const n of all.slice(1)) {
      const cpuid = made(vendor, n);
      assert(cpuid.has("ht"));
      for (let apicId = 0; apicId < n; apicId++) {
        const { ebx } = cpuid.read(1, 0, { apicId });
        assertEquals([ebx >>> 24, field(ebx, 23, 16), field(ebx, 15, 8)], [apicId, n, 8]);
      }
    }
  }
});

Deno.test("leaves Bh and 1Fh: a thread a core, cores of one package, the x2APIC id everywhere", () => {
  for (const vendor of ["intel", "amd", "common"] as const) {
    for (const n of all.slice(1)) {
      const cpuid = made("intel", n, vendor);
      const shift = Math.log2(power(n));
      const levels = (leaf: number) =>
        [0, 1, 2, 3].map((sub) => cpuid.read(leaf, sub, { apicId: n - 1 }));
      const expected = [
        { eax: 0, ebx: 1, ecx: 0x100, edx: n - 1 },
        { eax: shift, ebx: n, ecx: 0x201, edx: n - 1 },
        { eax: 0, ebx: 0, ecx: 2, edx: n - 1 },
        { eax: 0, ebx: 0, ecx: 3, edx: n - 1 },
      ];
      assertEquals(levels(0xb), expected);
      // All ids of the package, and no others, are the same above its bits.
      for (let id = 0; id < n; id++) assertEquals(id >> shift, 0);
      cpuid.edit({ leaves: { "0": { eax: 0x1f } } });
      assertEquals(levels(0x1f), expected);
    }
  }
});

Deno.test("leaf 4 of Intel's: ids reserved for cores, caches of one core", () => {
  for (const n of all) {
    const cpuid = made("intel", n), one = made("intel", 1);
    for (const subleaf of [0, 1, 2]) {
      const { eax } = cpuid.read(4, subleaf);
      assertEquals(field(eax, 31, 26) + 1, power(n));
      assertEquals(field(eax, 25, 14), 0);
      assertEquals(eax & 0x3fff, one.read(4, subleaf).eax & 0x3fff);
    }
    assertEquals(cpuid.read(4, 3).eax, 0, "no more");
  }
});

Deno.test("80000008h and 8000001Eh of AMD's: cores, bits of ids, core and node", () => {
  for (const n of all.slice(1)) {
    const cpuid = made("amd", n);
    const { ecx } = cpuid.read(0x8000_0008, 0);
    assertEquals([field(ecx, 7, 0) + 1, 2 ** field(ecx, 15, 12)], [n, power(n)]);
    assert(cpuid.has("cmp_legacy") && cpuid.has("topoext"));
    assertEquals(cpuid.read(0x8000_0000, 0).eax, 0x8000_001e);
    assertEquals(cpuid.read(0x8000_001e, 0, { apicId: n - 1 }), {
      eax: n - 1,
      ebx: n - 1,
      ecx: 0,
      edx: 0,
    });
    const intel = made("intel", n);
    assertEquals(intel.read(0x8000_0008, 0).ecx, 0);
    assert(!intel.has("cmp_legacy") && !intel.has("topoext"));
  }
  assertEquals(made("intel", 4).read(0x8000_0000, 0).eax, 0x8000_0008);
});

Deno.test("8000001Dh of AMD's says of caches what 80000005h and 80000006h do", () => {
  const cpuid = made("amd", 4);
  const caches = [0, 1, 2].map((subleaf) => {
    const { eax, ebx, ecx } = cpuid.read(0x8000_001d, subleaf);
    const size = (field(ebx, 31, 22) + 1) * (field(ebx, 11, 0) + 1) * (ecx + 1);
    return { type: eax & 31, level: field(eax, 7, 5), sharing: field(eax, 25, 14), size };
  });
  const { ecx: data, edx: code } = cpuid.read(0x8000_0005, 0),
    { ecx: second } = cpuid.read(0x8000_0006, 0);
  assertEquals(caches, [
    { type: 1, level: 1, sharing: 0, size: (data >>> 24) * 1024 },
    { type: 2, level: 1, sharing: 0, size: (code >>> 24) * 1024 },
    { type: 3, level: 2, sharing: 0, size: (second >>> 16) * 1024 },
  ]);
  assertEquals(cpuid.read(0x8000_001d, 3).eax, 0);
});

Deno.test("AMD's processors from before leaf Bh have no extended topology", () => {
  for (const model of ["opteron", "phenom"] as const) {
    const cpuid = made("amd", 4, model);
    assert(cpuid.has("ht") && cpuid.has("cmp_legacy") && !cpuid.has("topoext"));
    assertEquals(cpuid.read(0x8000_0008, 0).ecx, 0x2003);
    assertEquals(cpuid.read(0x8000_001e, 0, { apicId: 3 }).eax, 0);
    assertEquals(cpuid.read(0xb, 0, { apicId: 3 }).edx, 0);
  }
});

Deno.test("each processor's CPUID instruction gives its own APIC id", () => {
  for (const vendor of ["intel", "amd"] as const) {
    const cpuid = made(vendor, 3);
    const ids = [0, 1, 2].map((apicId) => {
      const cells = new Int32Array(0x2000), run = cpuid.install(cells, apicId);
      const ask = (leaf: number) => {
        cells[CPU.rax >> 2] = leaf;
        cells[CPU.rcx >> 2] = 0;
        run();
        return cells;
      };
      return [ask(1)[CPU.rbx >> 2] >>> 24, ask(0xb)[CPU.rdx >> 2]];
    });
    assertEquals(ids, [[0, 0], [1, 1], [2, 2]]);
  }
});

Deno.test("several processors survive save and load, and an edit that goes wrong", () => {
  const cpuid = made("amd", 16), other = made("amd", 16);
  assertEquals(cpuid.problem(cpuid.save()), undefined);
  other.load(cpuid.save());
  assertEquals(other.rows({ apicId: 9 }), cpuid.rows({ apicId: 9 }));
  const before = cpuid.save();
  assertThrows(() => cpuid.edit({ features: { sse: false, nonsense: true } }), TypeError);
  assertEquals(cpuid.save(), before);
  cpuid.edit({ features: { ht: false } });
  assert(!cpuid.has("ht"));
});

Deno.test("another number of processors than 1 to 16 is refused", () => {
  for (const processors of [0, 17, 2.5, NaN, -1]) {
    assertThrows(
      () => new Cpuid("intel", {}, undefined, processors),
      RangeError,
      `processors: a whole number from 1 to 16 was expected, ${processors} was given`,
    );
  }
});
