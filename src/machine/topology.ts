/**
 * What CPUID tells of the other processors of a package: cores of one thread each, with caches of their
 * own, APIC ids from 0 on (SDM 3A 9.9; APM 3 E.4.7, E.4.16 and E.4.17). One alone says nothing.
 */
import type { CpuidRegister } from "../abi/x86/cpuid.ts";
import { GUEST_PROCESSORS } from "../abi/limits.ts";

/** Leaves that give a level of topology by sub-leaf, and the x2APIC id in EDX. */
export const LEVEL_LEAVES = { topology: 0xb, extended: 0x1f } as const;
/** AMD's: cache parameters as in leaf 4, and APIC id, core and node. */
export const AMD_LEAVES = { caches: 0x8000_001d, ids: 0x8000_001e } as const;
/** Levels of leaves Bh and 1Fh, bits 15 to 8 of ECX. */
const THREAD = 1 << 8, CORE = 2 << 8;

/** Registers of a leaf and sub-leaf: bits that come to what it says else. */
export type TopologyRow = readonly [
  leaf: number,
  subleaf: number,
  bits: Partial<Record<CpuidRegister, number>>,
];

/**
 * A cache's parameters as leaf 4 has them: lines of 64 bytes, one partition, self-initializing, for one
 * core.
 *
 * @param type 1 of data, 2 of code, 3 of both
 */
export const cache = (
  type: number,
  level: number,
  ways: number,
  sets: number,
): { eax: number; ebx: number; ecx: number } => ({
  eax: type | level << 5 | 1 << 8,
  ebx: ways - 1 << 22 | 63,
  ecx: sets - 1,
});
/** What 80000005h and 80000006h of the AMD model say: 32 KB of 2 ways twice, 256 KB of 8. */
const AMD_CACHES = [cache(1, 1, 2, 256), cache(2, 1, 2, 256), cache(3, 2, 8, 512)];

/** @throws {RangeError} for a number of processors that no guest can have */
export function checkProcessors(processors: number): void {
  const { min, max } = GUEST_PROCESSORS;
  if (Number.isInteger(processors) && processors >= min && processors <= max) return;
  throw new RangeError(
    `processors: a whole number from ${min} to ${max} was expected, ${processors} was given`,
  );
}

/** Bits of an APIC id that tell processors of a package apart. */
const idBits = (processors: number) => 32 - Math.clz32(processors - 1);

/** Features that follow from there being several processors. */
export function topologyFeatures(
  like: "intel" | "amd" | "none",
  processors: number,
  maxLeaf: number,
): readonly string[] {
  if (processors === 1) return [];
  if (like !== "amd") return ["ht"];
  // AMD's processors that have leaf Bh have its own extensions too.
  return ["ht", "cmp_legacy", ...maxLeaf >= LEVEL_LEAVES.topology ? ["topoext"] : []];
}

/** What the leaves say besides, that is the same on each of the processors. */
export function topologyRows(
  like: "intel" | "amd" | "none",
  processors: number,
  maxLeaf: number,
): readonly TopologyRow[] {
  if (processors === 1) return [];
  const bits = idBits(processors);
  const rows: TopologyRow[] = [];
  for (const leaf of Object.values(LEVEL_LEAVES)) {
    rows.push([leaf, 0, { ebx: 1, ecx: THREAD }], [leaf, 1, {
      eax: bits,
      ebx: processors,
      ecx: CORE,
    }]);
  }
  if (like === "intel") {
    const cores = (1 << bits) - 1 << 26;
    for (const subleaf of [0, 1, 2]) rows.push([4, subleaf, { eax: cores }]);
  }
  if (like !== "amd") return rows;
  rows.push([0x8000_0008, 0, { ecx: bits << 12 | processors - 1 }]);
  if (maxLeaf < LEVEL_LEAVES.topology) return rows;
  rows.push([0x8000_0000, 0, { eax: AMD_LEAVES.ids }]);
  AMD_CACHES.forEach((registers, n) => rows.push([AMD_LEAVES.caches, n, registers]));
  return rows;
}
