/**
 * What CPUID says, by model of processor; each feature can be switched on and off by its name in
 * abi/x86/cpuid.ts (SDM 2 CPUID; APM 3 appendix E).
 */
import { CR4, EFER } from "../abi/x86/cr.ts";
import { type CpuidRegister, featureBits } from "../abi/x86/cpuid.ts";
import { LINK as MODEL_CELL } from "./segmentation/descriptor.ts";
import { CPU, V } from "./state.ts";

/** "common" shows the same on processors of both vendors, and neither's virtualization. */
export type CpuidModel = "intel" | "amd" | "common";

/** The four registers, unsigned 32-bit numbers. */
export type CpuidResult = Record<CpuidRegister, number>;

/** Parts of a result that follow the state of the processor. */
export interface CpuidState {
  /** CR4.OSXSAVE is set. */
  readonly osxsave: boolean;
  /** The local APIC is enabled in IA32_APIC_BASE. */
  readonly apicEnabled: boolean;
  readonly apicId: number;
  readonly xcr0: number;
}

const COMMON =
  "fpu vme de pse tsc msr pae mce cx8 sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 " +
  "sse3 ssse3 cx16 sse4_1 sse4_2 popcnt fsgsbase tsc_adjust smep erms smap umip " +
  "syscall nx pdpe1gb rdtscp lm lahf_lm constant_tsc";

interface Model {
  readonly vendor: string;
  readonly brand: string;
  /** Family, model, stepping as leaf 1 has them in EAX. */
  readonly signature: number;
  readonly features: string;
  readonly maxLeaf: number;
  readonly maxExtended: number;
}

const MODELS: Record<CpuidModel, Model> = {
  intel: {
    vendor: "GenuineIntel",
    brand: "xvm processor, Intel model",
    // Family 6, model 0x2c: the last one before AVX.
    signature: 0x0002_06c2,
    features: `${COMMON} vmx pcid invpcid`,
    maxLeaf: 0xb,
    maxExtended: 0x8000_0008,
  },
  amd: {
    vendor: "AuthenticAMD",
    brand: "xvm processor, AMD model",
    // Family 0x10, model 0xa.
    signature: 0x0010_0fa0,
    features: `${COMMON} svm 3dnowprefetch npt lbrv nrip_save tsc_scale vmcb_clean flushbyasid ` +
      "decodeassists pausefilter pfthreshold",
    maxLeaf: 7,
    maxExtended: 0x8000_000a,
  },
  common: {
    vendor: "XvmProcessor",
    brand: "xvm processor",
    signature: 0x0000_0600,
    features: COMMON,
    maxLeaf: 7,
    maxExtended: 0x8000_0008,
  },
};

/** Bytes of a text as little-endian 32-bit numbers. */
function words(text: string, count: number): number[] {
  const bytes = new Uint8Array(4 * count);
  new TextEncoder().encodeInto(text, bytes);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) => view.getUint32(4 * i, true));
}

const ZERO: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** Bits of CR4 and EFER that exist only with a feature. */
const CR4_BITS: Record<string, number> = {
  vme: CR4.VME | CR4.PVI,
  tsc: CR4.TSD,
  de: CR4.DE,
  pse: CR4.PSE,
  pae: CR4.PAE,
  mce: CR4.MCE,
  pge: CR4.PGE,
  fxsr: CR4.OSFXSR,
  sse: CR4.OSXMMEXCPT,
  umip: CR4.UMIP,
  vmx: CR4.VMXE,
  fsgsbase: CR4.FSGSBASE,
  pcid: CR4.PCIDE,
  xsave: CR4.OSXSAVE,
  smep: CR4.SMEP,
  smap: CR4.SMAP,
};
const EFER_BITS: Record<string, number> = {
  syscall: EFER.SCE,
  lm: EFER.LME | EFER.LMA,
  nx: EFER.NXE,
  svm: EFER.SVME,
  fxsr_opt: EFER.FFXSR,
};

/** Values for a processor that are its CPUID's. */
export class Cpuid {
  readonly #features: ReadonlySet<string>;
  readonly #model: Model;

  /**
   * @param model the processor's model
   * @param changes features to switch on or off, by name
   * @param physicalBits MAXPHYADDR, 36 to 52
   * @throws TypeError for a name that is no feature
   *
   * @example
   * ```ts
   * import { assert, assertEquals } from "@std/assert";
   * import { Cpuid } from "./cpuid.ts";
   * const cpuid = new Cpuid("intel", { sse2: false });
   * assertEquals(cpuid.read(1, 0).edx >>> 26 & 1, 0);
   * assert(cpuid.has("vmx"));
   * ```
   */
  constructor(
    readonly model: CpuidModel,
    changes: Readonly<Record<string, boolean>> = {},
    readonly physicalBits = 36,
  ) {
    this.#model = MODELS[model];
    const features = new Set(this.#model.features.split(" "));
    for (const [name, on] of Object.entries(changes)) {
      if (!Object.hasOwn(featureBits, name)) {
        throw new TypeError(`cpuid: "${name}" is no feature's name; see abi/x86/cpuid.ts`);
      }
      if (on) features.add(name);
      else features.delete(name);
    }
    this.#features = features;
  }

  has(feature: string): boolean {
    return this.#features.has(feature);
  }

  /** The features, sorted by name. */
  get features(): readonly string[] {
    return [...this.#features].sort();
  }

  /** Bits of CR4 that can be set. */
  get cr4Valid(): number {
    return this.#bits(CR4_BITS) | CR4.PCE;
  }
  /** Bits of EFER that exist. */
  get eferValid(): number {
    return this.#bits(EFER_BITS);
  }
  /** SYSCALL and SYSRET exist outside of 64-bit mode. */
  get legacySyscall(): boolean {
    return this.model === "amd" && this.has("syscall");
  }
  #bits(table: Record<string, number>): number {
    return Object.entries(table).reduce((bits, [n, b]) => this.has(n) ? bits | b : bits, 0);
  }

  /** The registers for leaf EAX and sub-leaf ECX. */
  read(leaf: number, subleaf: number, state?: CpuidState): CpuidResult {
    const { maxLeaf, maxExtended } = this.#model;
    const highest = this.has("xsave") ? Math.max(maxLeaf, 0xd) : maxLeaf;
    leaf >>>= 0;
    // Without SVM none of its features are there to be told.
    if (leaf === 0x8000_000a && !this.has("svm")) return { ...ZERO };
    if (leaf >= 0x8000_0000 ? leaf > maxExtended : leaf > highest) {
      // Intel's processors answer with the highest basic leaf, the others with zeros.
      if (this.model !== "intel") return { ...ZERO };
      leaf = highest;
    }
    const result = { ...ZERO, ...this.#fixed(leaf, subleaf >>> 0, highest, state) };
    for (const name of this.#features) {
      const f = featureBits[name];
      if (f.leaf === leaf && f.subleaf === (leaf === 7 || leaf === 0xd ? subleaf : 0)) {
        result[f.register] |= 1 << f.bit;
      }
    }
    if (leaf === 1 && state) {
      if (!state.apicEnabled) result.edx &= ~(1 << 9);
      if (state.osxsave && this.has("xsave")) result.ecx |= 1 << 27;
    }
    for (const r of ["eax", "ebx", "ecx", "edx"] as const) result[r] >>>= 0;
    return result;
  }

  /** All of a leaf but its feature bits. */
  #fixed(leaf: number, subleaf: number, highest: number, state?: CpuidState): Partial<CpuidResult> {
    const model = this.#model;
    const vendor = words(model.vendor, 3);
    switch (leaf) {
      case 0:
        return { eax: highest, ebx: vendor[0], edx: vendor[1], ecx: vendor[2] };
      case 1:
        // CLFLUSH line of 8 quadwords, one logical processor.
        return { eax: model.signature, ebx: (state?.apicId ?? 0) << 24 | 1 << 16 | 8 << 8 };
      case 2:
        return this.model === "intel" ? { eax: 0x665b_5001, edx: 0x007a_7040 } : {};
      case 4:
        return this.model === "intel" ? cacheLeaf(subleaf) : {};
      case 0xd:
        return xsaveLeaf(subleaf);
      case 0x8000_0000:
        return {
          eax: model.maxExtended,
          ...(this.model === "intel" ? {} : { ebx: vendor[0], edx: vendor[1], ecx: vendor[2] }),
        };
      case 0x8000_0001:
        return this.#extendedSignature();
      case 0x8000_0002:
      case 0x8000_0003:
      case 0x8000_0004: {
        const [eax, ebx, ecx, edx] = words(model.brand, 12).slice(4 * (leaf - 0x8000_0002));
        return { eax, ebx, ecx, edx };
      }
      case 0x8000_0005:
        return this.model === "amd" ? { ecx: 0x2002_0140, edx: 0x2002_0140 } : {};
      case 0x8000_0006:
        return { ecx: 0x0100_6040 };
      case 0x8000_0008:
        return { eax: 48 << 8 | this.physicalBits };
      case 0x8000_000a:
        // Revision 1, 256 address-space identifiers.
        return { eax: 1, ebx: 256 };
      default:
        return {};
    }
  }

  /** AMD repeats most of leaf 1's EDX there. */
  #extendedSignature(): Partial<CpuidResult> {
    if (this.model !== "amd") return {};
    let edx = 0;
    for (const name of this.#features) {
      const f = featureBits[name];
      if (f.leaf === 1 && f.register === "edx") edx |= 1 << f.bit;
    }
    return { eax: this.#model.signature, edx: edx & 0x0183_f3ff };
  }

  /**
   * Writes what depends on the model into the volatile cells of a processor, and gives the host
   * function `cpuid`, which reads EAX and ECX there and writes the four registers.
   */
  install(cells: Int32Array): () => void {
    const high = (0x000f_ffff_ffff_f000n >> BigInt(this.physicalBits)) << BigInt(this.physicalBits);
    const set64 = (at: number, value: bigint) => {
      cells[at >> 2] = Number(BigInt.asIntN(32, value));
      cells[(at >> 2) + 1] = Number(BigInt.asIntN(32, value >> 32n));
    };
    set64(V.reservedHigh, high);
    set64(MODEL_CELL.cr4Valid, BigInt(this.cr4Valid >>> 0));
    set64(MODEL_CELL.eferValid, BigInt(this.eferValid >>> 0));
    cells[MODEL_CELL.legacySyscall >> 2] = this.legacySyscall ? 1 : 0;
    // Results by what they depend on: software asks for the same few leaves again and again.
    const known = new Map<string, CpuidResult>();
    return () => {
      const leaf = cells[CPU.rax >> 2], subleaf = cells[CPU.rcx >> 2];
      const osxsave = (cells[CPU.cr4 >> 2] & CR4.OSXSAVE) !== 0;
      const apicEnabled = (cells[CPU.apicBase >> 2] & 0x800) !== 0;
      const key = `${leaf},${subleaf},${osxsave},${apicEnabled}`;
      let r = known.get(key);
      if (!r) {
        // Software can ask for any number of leaves that do not exist.
        if (known.size > 256) known.clear();
        const state = { osxsave, apicEnabled, apicId: 0, xcr0: cells[CPU.xcr0 >> 2] };
        known.set(key, r = this.read(leaf, subleaf, state));
      }
      const set = (at: number, value: number) => {
        cells[at >> 2] = value;
        cells[(at >> 2) + 1] = 0;
      };
      set(CPU.rax, r.eax);
      set(CPU.rbx, r.ebx);
      set(CPU.rcx, r.ecx);
      set(CPU.rdx, r.edx);
    };
  }
}

/** Deterministic cache parameters: 32 KB L1 data and code, 256 KB L2 (SDM 2 CPUID leaf 4). */
function cacheLeaf(subleaf: number): Partial<CpuidResult> {
  const caches = [[1, 1, 64], [2, 1, 64], [3, 2, 512]];
  const cache = caches[subleaf];
  if (!cache) return {};
  const [type, level, sets] = cache;
  // Eight ways, one partition, lines of 64 bytes, self-initializing.
  return { eax: type | level << 5 | 1 << 8, ebx: 7 << 22 | 63, ecx: sets - 1 };
}

/** XSAVE with x87 and SSE: 576 bytes. */
function xsaveLeaf(subleaf: number): Partial<CpuidResult> {
  if (subleaf === 0) return { eax: 3, ebx: 576, ecx: 576 };
  return {};
}
