/**
 * The rules of VMRUN (APM 2 15.5.1, 15.20, 15.25.4) a second time, as plain predicates over field
 * values. Names are those of the machine's checks.
 */
import { bit, bits, memoryTypes } from "./rules.ts";

export interface SvmSurroundings {
  /** Width of physical addresses in bits. */
  readonly width: number;
  /** Bits of CR4 and EFER that the processor has. */
  readonly cr4: bigint;
  readonly efer: bigint;
  /** Machine memory. */
  readonly ram: DataView;
}

/** The rules that the contents of a VMCB break; undefined if the guest can be entered. */
export function svmExpectation(
  get: (field: string) => bigint,
  { width, ram, ...valid }: SvmSurroundings,
): { checks: ReadonlySet<string> } | undefined {
  const checks = new Set<string>();
  const no = (name: string, broken: boolean) => {
    if (broken) checks.add(`svm.${name}`);
  };
  const efer = get("efer"), cr0 = get("cr0"), cr3 = get("cr3"), cr4 = get("cr4");
  const pg = bit(cr0, 31), pe = bit(cr0, 0), pae = bit(cr4, 5), lme = bit(efer, 8);
  const far = (address: bigint) => address >> BigInt(width) !== 0n;
  no("efer.svme", !bit(efer, 12));
  no("cr0.nw", !bit(cr0, 30) && bit(cr0, 29));
  no("cr0.high", cr0 >> 32n !== 0n);
  no("cr3", far(cr3));
  no("cr4", (cr4 & ~valid.cr4) !== 0n);
  no("efer", (efer & ~valid.efer) !== 0n);
  no("dr6", get("dr6") >> 32n !== 0n);
  no("dr7", get("dr7") >> 32n !== 0n);
  no("long.pae", lme && pg && !pae);
  no("long.pe", lme && pg && !pe);
  // Attributes as in the VMCB: L is bit 9, D bit 10.
  const cs = get("csAttributes");
  no("long.cs", lme && pg && pae && bit(cs, 9) && bit(cs, 10));
  no("intercept.vmrun", !bit(get("intercepts2"), 0));
  no("asid", get("asid") === 0n);
  for (const [name, size] of [["iopm", 0x3000n], ["msrpm", 0x2000n]] as const) {
    const base = get(`${name}Base`) & ~0xfffn;
    no(name, far(base + size - 1n));
  }
  const event = get("eventInjection");
  if (bit(event, 31)) {
    const type = bits(event, 10, 8), vector = Number(bits(event, 7, 0));
    no("inject.type", ![0n, 2n, 3n, 4n].includes(type));
    const code64 = lme && pg && bit(cs, 9);
    no("inject.mode", type === 3n && (vector === 4 || vector === 5) && code64);
    no("inject.vector", type === 3n && !EXCEPTIONS.has(vector));
  }
  if (bit(get("nestedControl"), 0)) {
    no("nested.cr3", far(get("nestedCr3")));
    no("nested.pat", !memoryTypes(get("pat")));
  } else if (pg && pae && !lme) {
    const table = Number(cr3 & 0xffff_ffe0n);
    for (let n = 0; n < 4; n++) {
      const entry = table < ram.byteLength ? ram.getBigUint64(table + 8 * n, true) : ~0n;
      const reserved = (entry & 0x1e6n) !== 0n || far(BigInt.asUintN(64, entry));
      no("pdpte", bit(entry, 0) && reserved);
    }
  }
  return checks.size ? { checks } : undefined;
}

/** Vectors of exceptions (APM 2 table 8-1; 9 has a name there), with #HV, #VC, #SX; not the NMI's. */
const EXCEPTIONS = new Set([
  ...[0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21],
  ...[28, 29, 30],
]);
