/**
 * CPUID of a domain as a table that can be edited: at creation, at the prompt, during a run.
 *
 * @module
 */
import { type CpuidRegister, featureBits } from "../../abi/x86/cpuid.ts";
import {
  type CpuidEdit,
  type CpuidModel,
  type CpuidResult,
  type CpuidRow,
  leafText,
  parseLeaf,
} from "../../machine/cpuid.ts";
import { executesUnseen } from "../../xen/hidden.ts";
import type { Subject } from "../subject.ts";
import { flag, options as optionsOf, text, u32, type ValueCheck, wrongType } from "../check.ts";
import { bold, INSPECT, type InspectOptions, tableText } from "../values.ts";

/** The processor a domain sees: a model, and changes of its features and leaves. */
export interface CpuidOptions extends CpuidEdit {
  /** Where the table begins; the host's own processor if not given. */
  readonly model?: CpuidModel;
}

/** What xl calls some features, where it is another name than Linux's. */
const ALIASES: Readonly<Record<string, string>> = {
  cmpxchg8: "cx8",
  cmpxchg16: "cx16",
  clfsh: "clflush",
  sysenter: "sep",
  page1gb: "pdpe1gb",
  tsc_deadline: "tsc_deadline_timer",
  invtsc: "constant_tsc",
  lahfsahf: "lahf_lm",
};
const REGISTERS: readonly CpuidRegister[] = ["eax", "ebx", "ecx", "edx"];

function featureName(given: string): string {
  const name = given.toLowerCase().replaceAll(/[.-]/g, "_");
  return Object.hasOwn(ALIASES, name) ? ALIASES[name] : name;
}

/**
 * Reads what xl's `cpuid=` takes: a model (or "host"), then changes, as in
 * `"host,rdrand=0,sse4.2=0,0x40000000.eax=0x40000001"`.
 *
 * @param text a feature's value is 0, 1, or x for the model's own; a register's is a whole number
 * @throws {TypeError} for what cannot be read
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseCpuid } from "./cpuid.ts";
 * assertEquals(parseCpuid("common,sse4.2=0,7.ecx=4"), {
 *   model: "common",
 *   features: { sse4_2: false },
 *   leaves: { "7": { ecx: 4 } },
 * });
 * ```
 */
export function parseCpuid(text: string): CpuidOptions {
  const features: Record<string, boolean> = {};
  const leaves: Record<string, Partial<CpuidResult>> = {};
  let model: CpuidModel | undefined;
  text.split(/[,\s]+/).filter((part) => part).forEach((part, i) => {
    const [name, value, more] = part.split("=");
    if (value === undefined && i === 0) {
      if (name !== "host") model = name as CpuidModel;
      return;
    }
    if (!name || !value || more !== undefined) {
      throw new TypeError(`cpuid: feature=0 or leaf.register=value was expected, not "${part}"`);
    }
    const register = REGISTERS.find((r) => name.toLowerCase().endsWith(`.${r}`));
    if (!register) {
      const on = { "0": false, "1": true, x: undefined }[value.toLowerCase()];
      if (on !== undefined) features[featureName(name)] = on;
      else if (value.toLowerCase() !== "x") {
        throw new TypeError(`cpuid: ${name} can be 0, 1 or x (the model's own), not "${value}"`);
      }
      return;
    }
    if (!/^(0x[0-9a-f]+|\d+)$/i.test(value)) {
      throw new TypeError(`cpuid: ${name}: a whole number was expected, not "${value}"`);
    }
    const leaf = name.slice(0, -4);
    (leaves[leaf] ??= {})[register] = Number(value);
  });
  return { model, features, leaves };
}

/**
 * A domain's CPUID: what it says, and how to change it.
 *
 * @example
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.demo();
 * const { cpuid } = hv.domains[0];
 * cpuid.set("rdrand", false);
 * cpuid.set("0x40000000", { eax: 0x40000001, ebx: 0x206d7678 });
 * if (cpuid.features.includes("rdrand")) throw new Error("unexpected");
 * if (cpuid.read(0x40000000).ebx !== 0x206d7678) throw new Error("unexpected");
 * ```
 */
export class CpuidTable {
  readonly #subject: Subject;

  /** @ignore Made by the domain. */
  constructor(subject: Subject) {
    this.#subject = subject;
  }

  /** The model it was made from. */
  get model(): CpuidModel {
    return this.#subject.inner.cpuid.model;
  }
  /** Names of the features it shows, sorted. */
  get features(): readonly string[] {
    return this.#subject.inner.cpuid.features;
  }
  /** Whether it shows a feature. */
  has(feature: string): boolean {
    text(feature, "cpuid.has");
    return this.#subject.inner.cpuid.has(featureName(feature));
  }
  /**
   * Features that it does not show and that the guest's processor has all the same: hardware has no
   * control for them. Empty for a bare guest, whose processor has what CPUID shows.
   */
  get executes(): readonly string[] {
    const { engine } = this.#subject;
    return engine ? executesUnseen(engine) : [];
  }
  /** Every leaf that is not all zeros. */
  get rows(): readonly CpuidRow[] {
    return this.#subject.inner.cpuid.rows().map(({ leaf, subleaf }) => ({
      leaf,
      subleaf,
      ...this.read(leaf, subleaf),
    }));
  }

  /**
   * What CPUID gives the guest's first vCPU now, four unsigned 32-bit numbers.
   *
   * @param leaf what EAX asks for, 32 bits
   * @param subleaf what ECX asks for
   */
  read(leaf: number, subleaf = 0): CpuidResult {
    this.#subject.mustLive("cpuid.read");
    u32(leaf, "cpuid.read leaf");
    u32(subleaf, "cpuid.read subleaf");
    return this.#subject.vcpus[0].cpuid(leaf, subleaf);
  }

  /**
   * Switches a feature on or off, or writes registers of a leaf, whole. It holds from the guest's next
   * CPUID on; features that need one switched off go with it. A feature stays while the guest has set
   * a bit of CR4 or EFER that exists with it alone.
   *
   * @param what a feature's name, or a leaf: `"7.0"`, `0x40000000`
   * @throws {TypeError} for what does not exist, or what this machine cannot do
   * @throws {Error} naming the bit that the guest has set and the feature it needs
   */
  set(what: string | number, value: boolean | Partial<CpuidResult>): void {
    if (typeof value === "boolean") {
      return this.edit({ features: { [featureName(String(what))]: value } });
    }
    if (typeof value !== "object" || value === null) {
      throw wrongType("cpuid.set", "true, false or { eax, … }", value);
    }
    const leaf = typeof what === "string" ? what : leafText(u32(what, "cpuid.set leaf"));
    this.edit({ leaves: { [leaf]: value } });
  }

  /** What any vCPU has set of CR4 and EFER. */
  #modes(): { cr4: number; efer: number } {
    return this.#subject.vcpus.map(({ modes }) => modes)
      .reduce((a, b) => ({ cr4: a.cr4 | b.cr4, efer: a.efer | b.efer }));
  }

  /**
   * Several changes at once, or as text: `"rdrand=0,7.ecx=4"`; all of them or none.
   *
   * @throws {TypeError} as {@linkcode CpuidTable.set}
   * @throws {Error} as {@linkcode CpuidTable.set}
   */
  edit(edit: CpuidEdit | string): void {
    this.#subject.mustLive("cpuid.edit");
    const { features, leaves } = typeof edit === "string"
      ? parseCpuid(`host,${edit}`)
      : CPUID_EDIT(edit, "cpuid.edit");
    const { cpuid } = this.#subject.inner, { cr4, efer } = this.#modes();
    const before = cpuid.withoutFeature(cr4, efer).map(({ bit }) => bit);
    cpuid.edit({ features, leaves }, () => {
      const used = cpuid.withoutFeature(cr4, efer).find(({ bit }) => !before.includes(bit));
      if (!used) return;
      throw new Error(
        `cpuid: ${used.feature} cannot be switched off now: the guest has set ${used.bit}, which ` +
          `exists with it alone; it can while that bit is clear`,
      );
    });
    this.#subject.host.world.enter("cpuid", this.#subject.id, { features, leaves });
  }

  /** A leaf with its sub-leaves, features spelled out; all of them without one. */
  text(leaf?: string): string {
    const wanted = leaf === undefined ? undefined : parseLeaf(leaf);
    const exact = leaf !== undefined && /[.:]/.test(leaf);
    const rows = this.rows.filter((row) =>
      !wanted || row.leaf === wanted.leaf && (!exact || row.subleaf === wanted.subleaf)
    );
    if (wanted && rows.length === 0) {
      const { leaf, subleaf } = wanted;
      rows.push({ leaf, subleaf, ...this.read(leaf, subleaf) });
    }
    const word = (value: number) => value.toString(16).padStart(8, "0");
    return tableText(
      ["leaf", ...REGISTERS, "features"],
      rows.map((row) => [
        leafText(row.leaf, row.subleaf),
        ...REGISTERS.map((r) => word(row[r])),
        wanted ? featuresOf(row).join(" ") : counted(featuresOf(row).length),
      ]),
    );
  }

  /** @ignore */
  [INSPECT](_inspect?: unknown, options?: InspectOptions): string {
    const { name, gone } = this.#subject;
    if (gone !== undefined) return `CPUID: ${gone}`;
    return [
      bold(`CPUID of ${name}: model ${this.model}, ${this.features.length} features`, options),
      this.text(),
      ...wrapped(this.features, 96).map((line) => `  ${line}`),
      ...this.#unseen(),
      '  set("rdrand", false) set("7.0", { ebx }) edit({ features, leaves }) read(leaf, subleaf)',
      "  has(feature) features executes rows model",
    ].join("\n");
  }
  #unseen(): string[] {
    const { executes } = this;
    if (executes.length === 0) return [];
    return [
      "  not shown, but executed: no control of this processor's takes them away",
      ...wrapped(executes, 94).map((line) => `    ${line}`),
    ];
  }
}

const mapOf = <T>(each: ValueCheck<T>): ValueCheck<Record<string, T>> => (value, what) => {
  if (typeof value !== "object" || value === null) throw wrongType(what, "an object", value);
  for (const [key, v] of Object.entries(value)) each(v, `${what} ${key}`);
  return value as Record<string, T>;
};
const RESULT = { eax: u32, ebx: u32, ecx: u32, edx: u32 };
const EDIT = { features: mapOf(flag), leaves: mapOf(optionsOf(RESULT)) };
/** @see CpuidEdit */
const CPUID_EDIT = optionsOf(EDIT);
/** @see CpuidOptions */
export const CPUID_OPTIONS: ValueCheck<{ model?: string }> = optionsOf({ ...EDIT, model: text });

const counted = (n: number) => n ? String(n) : "";

/** Features that a row shows. */
function featuresOf(row: CpuidRow): string[] {
  return Object.entries(featureBits)
    .filter(([, f]) => f.leaf === row.leaf && f.subleaf === row.subleaf)
    .filter(([, f]) => (row[f.register] >>> f.bit & 1) !== 0)
    .map(([name]) => name);
}

function wrapped(words: readonly string[], width: number): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
