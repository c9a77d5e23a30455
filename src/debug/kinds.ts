/**
 * What one can break on: the kinds, what a filter for each may say, what an event of it has, and
 * which intercepts it needs. What a filter's values must be stands in filters.ts.
 *
 * @module
 */
import { vectorName } from "../abi/x86/vectors.ts";
import type { Exit } from "../hvm/exit.ts";
import type { Intercepts } from "../hvm/ops.ts";
import { MSRS } from "./register_file.ts";
import type { Address } from "./check.ts";
import type { Filter } from "./filters.ts";
import { hex } from "./values.ts";

/** A number, or the first and last of a range. */
export type NumberRange = number | readonly [first: number, last: number];
/** An address, or the first and last of a range. */
export type AddressRange = Address | readonly [first: Address, last: Address];

/** What filters may say, by kind. What is left out matches all. */
export interface Filters {
  /** Before the instruction at a linear address, or at a symbol, is executed. */
  execute: { address: Address };
  /**
   * After an instruction touched memory: `length` bytes (1 if not given) from a linear address, or
   * with `physical` from a guest-physical one. `write` is true unless said otherwise, `read` false.
   */
  watch: { address: Address; length?: number; read?: boolean; write?: boolean; physical?: boolean };
  /** After each instruction. */
  step: Record<never, never>;
  cpuid: { leaf?: number; subleaf?: number };
  /** `msr` is a number or a name: "efer", "lstar". */
  msr: { msr?: number | string; write?: boolean; value?: bigint };
  io: { port?: NumberRange; write?: boolean; size?: number; value?: number; string?: boolean };
  /** A guest-physical address without memory: a device. */
  mmio: { address?: AddressRange; write?: boolean };
  cr: { cr?: 0 | 3 | 4 | 8; write?: boolean; value?: bigint; access?: "mov" | "clts" | "lmsw" };
  dr: { dr?: number; write?: boolean };
  /** `vector` is a number or a name: 14, "#PF"; `address` is the linear address of a page fault. */
  exception: { vector?: number | string; errorCode?: number; address?: AddressRange };
  nmi: Record<never, never>;
  /** An interrupt of the host. */
  "external-interrupt": { vector?: number };
  "task-switch": { selector?: number; source?: "call" | "iret" | "jmp" | "gate" };
  invlpg: { linear?: AddressRange };
  "descriptor-table": { instruction?: string };
  rdtsc: { aux?: boolean };
  mwait: { armed?: boolean };
  monitor: Record<never, never>;
  pause: Record<never, never>;
  rdpmc: Record<never, never>;
  wbinvd: Record<never, never>;
  invd: Record<never, never>;
  xsetbv: Record<never, never>;
  invpcid: Record<never, never>;
  rdrand: Record<never, never>;
  rdseed: Record<never, never>;
  hlt: Record<never, never>;
  /** `number` is what is in EAX. */
  hypercall: { number?: number };
  "virtualization-instruction": { instruction?: string };
  "nested-page-fault": {
    gpa?: AddressRange;
    read?: boolean;
    write?: boolean;
    fetch?: boolean;
    walk?: boolean;
  };
  /** A write to a page table under shadow paging; and such by a supervisor without CR0.WP. */
  "shadow-write": { gpa?: AddressRange; linear?: AddressRange };
  "interrupt-window": Record<never, never>;
  "nmi-window": Record<never, never>;
  /** INT n. */
  "software-interrupt": { vector?: number };
  iret: Record<never, never>;
  pushf: Record<never, never>;
  popf: Record<never, never>;
  icebp: Record<never, never>;
  "coprocessor-error": Record<never, never>;
  rsm: Record<never, never>;
  smi: Record<never, never>;
  init: Record<never, never>;
  "preemption-timer": Record<never, never>;
  "triple-fault": Record<never, never>;
  tpr: Record<never, never>;
  debug: Record<never, never>;
  "entry-failure": { what?: string };
  /** Any exit; with `all`, everything that can exit does. */
  any: { all?: boolean };
}

/** Something to break on. */
export type Kind = keyof Filters;

/** What an event of a kind has besides what all have. */
export interface Fields {
  execute: { readonly address: bigint };
  watch: {
    /** Linear address of the access. */
    readonly address: bigint;
    readonly physical: bigint | undefined;
    readonly length: number;
    readonly write: boolean;
    /** The processor did it while it delivered an event. */
    readonly delivery: boolean;
    readonly old: bigint;
    readonly value: bigint;
  };
  cpuid: {
    readonly leaf: number;
    readonly subleaf: number;
    /** What the guest would get. */
    readonly result: { eax: number; ebx: number; ecx: number; edx: number };
  };
  msr: {
    readonly msr: number;
    readonly name: string;
    readonly write: boolean;
    readonly value: bigint;
  };
  io: {
    readonly port: number;
    readonly write: boolean;
    readonly size: number;
    readonly value: number;
    readonly string: boolean;
    readonly rep: boolean;
    readonly address?: bigint;
  };
  mmio: { readonly address: bigint; readonly write: boolean; readonly linear?: bigint };
  cr: {
    readonly cr: number;
    readonly write: boolean;
    readonly access: "mov" | "clts" | "lmsw";
    readonly gpr: number;
    readonly value: bigint;
  };
  dr: { readonly dr: number; readonly write: boolean; readonly gpr: number };
  exception: {
    readonly vector: number;
    readonly name: string;
    readonly errorCode?: number;
    /** Of a page fault. */
    readonly address?: bigint;
  };
  "external-interrupt": { readonly vector: number };
  "task-switch": { readonly selector: number; readonly source: string };
  invlpg: { readonly linear: bigint };
  "descriptor-table": { readonly instruction: string };
  rdtsc: { readonly aux: boolean };
  mwait: { readonly armed: boolean };
  hypercall: { readonly number: number };
  "virtualization-instruction": { readonly instruction: string };
  "software-interrupt": { readonly vector: number };
  "nested-page-fault": {
    readonly gpa: bigint;
    readonly linear?: bigint;
    readonly read: boolean;
    readonly write: boolean;
    readonly fetch: boolean;
    readonly walk: boolean;
    readonly rights: number;
  };
  "shadow-write": { readonly gpa: bigint; readonly linear: bigint };
  "entry-failure": { readonly what: string; readonly text: string; readonly check: string };
  end: { readonly reason: string; readonly detail: string };
}
/** The fields of a kind; none where it says all by its name. */
export type FieldsOf<K extends string> = K extends keyof Fields ? Fields[K]
  : K extends "any" ? Record<string, unknown>
  : unknown;

/** The kinds every domain has; the others are exits of a hardware virtual machine. */
export const everywhere: readonly Kind[] = ["execute", "watch", "step"];

/** An exit's fields as scripts see them: halves joined, names beside numbers. */
export function fieldsOf(exit: Exit): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(exit)) {
    if (key === "kind" || key === "vectoring" || key === "length") continue;
    const wide = typeof value === "object" && value !== null && "low" in value;
    fields[key] = wide ? BigInt(value.high) << 32n | BigInt(value.low) : value;
  }
  switch (exit.kind) {
    case "exception": {
      const { vector, errorCode } = exit.event;
      delete fields.event;
      delete fields.qualification;
      Object.assign(fields, { vector, name: vectorName(vector), errorCode });
      if (vector === 14) {
        fields.address = BigInt(exit.qualification.high) << 32n | BigInt(exit.qualification.low);
      }
      break;
    }
    case "msr":
      fields.name = MSR_NAMES.get(exit.msr) ?? hex(exit.msr);
      break;
    case "nested-page-fault":
    case "shadow-write":
      fields.gpa = BigInt(exit.gpa);
      break;
  }
  return fields;
}

/** Names of MSRs by their numbers. */
const MSR_NAMES = new Map<number, string>(Object.entries(MSRS).map(([name, n]) => [n, name]));

/** The intercepts that events of these kinds need. Undefined where none is wanted at all. */
export function interceptsFor(
  wanted: readonly { readonly kind: Kind; readonly filter: Filter }[],
): Intercepts | undefined {
  const exits = wanted.filter((w) => !everywhere.includes(w.kind));
  if (exits.length === 0) return undefined;
  const result: { -readonly [K in keyof Intercepts]: Intercepts[K] } = {};
  for (const { kind, filter } of exits) {
    if (kind === "any" && filter.all) Object.assign(result, ALL);
    else INTERCEPTS[kind]?.(result, filter);
  }
  return result;
}

type Wanted = { -readonly [K in keyof Intercepts]: Intercepts[K] };

const ALL: Intercepts = {
  hlt: true,
  invlpg: true,
  monitor: true,
  mwait: true,
  pause: true,
  rdpmc: true,
  rdtsc: true,
  dr: true,
  wbinvd: true,
  descriptorTables: true,
  rdrand: true,
  rdseed: true,
  nmi: true,
  iret: true,
  pushf: true,
  popf: true,
  softwareInterrupts: true,
  icebp: true,
  crRead: 0x108,
  crWrite: 0x108,
  cr0Bits: 0xffff_ffff,
  cr4Bits: 0xffff_ffff,
  exceptions: 0xffff_ffff,
  pageFault: { mask: 0, match: 0 },
  ports: "all",
  msrReads: "all",
  msrWrites: "all",
};

const flag = (name: keyof Intercepts) => (w: Wanted) => void Object.assign(w, { [name]: true });

const INTERCEPTS: Partial<Record<Kind, (w: Wanted, filter: Filter) => void>> = {
  hlt: flag("hlt"),
  invlpg: flag("invlpg"),
  monitor: flag("monitor"),
  mwait: flag("mwait"),
  pause: flag("pause"),
  rdpmc: flag("rdpmc"),
  rdtsc: flag("rdtsc"),
  dr: flag("dr"),
  wbinvd: flag("wbinvd"),
  "descriptor-table": flag("descriptorTables"),
  rdrand: flag("rdrand"),
  rdseed: flag("rdseed"),
  nmi: flag("nmi"),
  iret: flag("iret"),
  pushf: flag("pushf"),
  popf: flag("popf"),
  "software-interrupt": flag("softwareInterrupts"),
  icebp: flag("icebp"),
  io: (w) => void (w.ports = "all"),
  msr: (w, { msr, write }) => {
    const add = (old: Intercepts["msrReads"]): Intercepts["msrReads"] =>
      msr === undefined || old === "all"
        ? "all"
        : [...(old === "none" ? [] : old ?? []), msr as number];
    if (write !== true) w.msrReads = add(w.msrReads);
    if (write !== false) w.msrWrites = add(w.msrWrites);
  },
  cr: (w, { cr, write }) => {
    const is = (n: number) => cr === undefined || cr === n;
    const bits = (is(3) ? 8 : 0) | (is(8) ? 0x100 : 0);
    if (write !== true) w.crRead = (w.crRead ?? 0) | bits;
    if (write === false) return;
    w.crWrite = (w.crWrite ?? 0) | bits;
    if (is(0)) w.cr0Bits = 0xffff_ffff;
    if (is(4)) w.cr4Bits = 0xffff_ffff;
  },
  exception: (w, { vector }) => {
    const bits = vector === undefined ? 0xffff_ffff : 1 << (vector as number);
    w.exceptions = ((w.exceptions ?? 0) | bits) >>> 0;
    if (bits & 1 << 14) w.pageFault = { mask: 0, match: 0 };
  },
};
