/**
 * The kinds of exit: one row says of each all there is to say. The types of exits and of filters, what
 * a saved state may hold, lists, completion, checks, `.help KIND` and docs/kinds.md follow from it.
 *
 * A new kind is a row here and its making in the vendors' decoders (with the control bit of its
 * intercept, where it has one; and the name in the list of what the other vendor lacks).
 *
 * @module
 */
import { VECTOR } from "../abi/x86/vectors.ts";
import { MSRS } from "../abi/x86/msr.ts";
import { gpr64 } from "../abi/x86/registers.ts";
import { exceptionVectors, vectorName } from "../abi/x86/vectors.ts";
import { XEN_ERRNO, type XenErrno } from "../abi/xen/errno.ts";
import { HYPERCALLS } from "../abi/xen/hypercalls.ts";
import type { Operations } from "../abi/xen/operation.ts";
import type { GuestEvent, Wide } from "./exit.ts";
import { callText } from "./call_text.ts";
import type { Wanted } from "./ops.ts";
import { code, type FieldTable, flag, register, text, u16, u32, u8, word } from "./fields.ts";

/** Values by the names of fields. */
export type Values = Readonly<Record<string, unknown>>;

/** Intercepts that are more than on and off. */
export interface Selective {
  /** Reads of CR3 and CR8: bits 3 and 8. */
  crRead?: number;
  /** Writes of CR3 and CR8: bits 3 and 8. */
  crWrite?: number;
  /** Bits of CR0 and CR4 whose change by the guest exits, besides those the hardware reserves. */
  cr0Bits?: number;
  cr4Bits?: number;
  /** Vectors 0 to 31 whose exceptions exit. */
  exceptions?: number;
  /** A #PF exits if (error code & mask) = match; only while its bit in `exceptions` is set. */
  pageFault?: { readonly mask: number; readonly match: number };
  /** Ports that exit: all, none, or ranges (first, last). */
  ports?: "all" | "none" | readonly (readonly [number, number])[];
  /** MSRs that exit on read and on write: all, none, or numbers. */
  msrReads?: "all" | "none" | readonly number[];
  msrWrites?: "all" | "none" | readonly number[];
  /** INVLPG exits, and INVPCID with it. */
  invlpg?: boolean;
}

/** What an event's fields may be made from, beside its exit. */
export interface Guest {
  /** What CPUID gives it. */
  cpuid(leaf: number, subleaf: number): unknown;
  /** The hypercall that it is about to make, decoded. */
  hypercall(): Values;
  /** Whether there is memory at a guest-physical address. */
  isMemory(gpa: number): boolean;
}

/** What can be answered in the hypervisor's place. */
export interface Reply {
  /** What it can say. */
  takes: FieldTable | ((fields: Values) => FieldTable);
  /** The registers it sets; RAX is as the guest has it. */
  registers(values: Values, fields: Values, rax: bigint): Readonly<Record<string, bigint>>;
}

/** How a guest is told that it is refused something. */
export interface Refusal {
  /** Statuses by name. */
  readonly names: Readonly<Record<string, number>>;
  readonly expected: string;
  /** What `deny()` says; an exit that has none injects an exception. */
  readonly plainly?: string;
  /** The values of the reply, by the status without its sign. */
  values(status: number): Values;
}

/** What there is to say of anything one can break on. */
export interface KindRow {
  /** What happens, in one line. */
  readonly meaning: string;
  /** More, where one line does not say all. */
  readonly help?: string;
  /** As one may type it at the prompt. */
  readonly example: string;
  /** What its events have. */
  readonly fields: FieldTable;
  /** What filters may say, where that is not what events have. */
  readonly filter?: FieldTable;
  /** What of a filter cannot come together. */
  readonly never?: readonly Never[];
  /** What `deny(status)` can say, and the reply that it is. */
  readonly refuses?: Refusal;
  /** An event in one line; its name and its fields if there is none. */
  describe?(fields: Values, place: (address: unknown) => string): string;
}
/** A filter that no event can match. */
export interface Never {
  when(filter: Values): boolean;
  readonly because: string;
}

/** The same of an exit of a hardware virtual machine. */
export interface ExitRow extends KindRow {
  /** What the exit has, where events have something else. */
  readonly raw?: FieldTable;
  /** Fields that are made of others. */
  see?(exit: Values, guest?: Guest): Values;
  /**
   * How the hardware is asked for it: "flag", an intercept of its own, of its name; or by what a filter
   * says. Absent: it comes whatever one asks.
   */
  readonly intercept?: "flag" | ((wanted: Selective, filter: Values) => void);
  /** The hypervisor wants it of every guest. */
  readonly always?: true;
  /** CPUID's feature of the instruction: without it there is none. */
  readonly feature?: string;
  /**
   * What the hypervisor does about it: "emulate" (the instruction is executed with the intercepts off),
   * "skip" (it is passed over), "nothing", an exception, or its "own" handler in xen/exits.ts.
   */
  readonly handled: "emulate" | "skip" | "nothing" | "#UD" | "#GP" | "own";
  /** It is of an access within an instruction, not of an instruction by its kind. */
  readonly access?: true;
  /** Only guests with such paging have it. */
  readonly paging?: "shadow";
  readonly reply?: Reply;
  /** What `deny()` injects, where that is not #GP(0). */
  readonly denied?: "#UD";
}

const EXCEPTIONS: Readonly<Record<string, number>> = Object.fromEntries(
  exceptionVectors.map(({ name, vector }) => [name, vector]),
);
const MSR_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(MSRS).map(([name, n]) => [n, name]),
);

/** Instructions of either vendor's extensions that leave a guest. */
const VIRTUALIZATION = [
  "vmclear",
  "vmlaunch",
  "vmptrld",
  "vmptrst",
  "vmread",
  "vmresume",
  "vmwrite",
  "vmxoff",
  "vmxon",
  "invept",
  "invvpid",
  "vmrun",
  "vmload",
  "vmsave",
  "stgi",
  "clgi",
  "invlpga",
  "skinit",
] as const;

/** Names of a hypercall's operations. */
const operationsOf = (name: unknown): readonly string[] => {
  const rows: Readonly<
    Record<string, { readonly operations?: Operations; readonly number: number }>
  > = HYPERCALLS;
  return Object.keys(rows[name as string].operations ?? {});
};
const OPERATION_NAMES: readonly string[] = [
  ...new Set(Object.keys(HYPERCALLS).flatMap(operationsOf)),
];

const UNREAD: Never = {
  when: ({ value, write }) => value !== undefined && write === false,
  because: "a read has no value yet",
};

const hex = (value: unknown): string => `0x${(value as number | bigint).toString(16)}`;
const direction = (fields: Values): string => fields.write ? "write" : "read";
const big = ({ low, high }: Wide): bigint => BigInt(high) << 32n | BigInt(low);
const cut = (value: unknown, n: number): bigint =>
  BigInt.asUintN(n, BigInt(value as number | bigint));
const withoutCode = (vector: unknown): boolean =>
  exceptionVectors.some((e) => e.vector === vector && !e.errorCode);
const add = (old: Selective["msrReads"], msr: unknown): Selective["msrReads"] =>
  msr === undefined || old === "all" ? "all" : [...(old === "none" ? [] : old ?? []), Number(msr)];

/** EDX:EAX. */
const PAIR: Reply = {
  takes: { value: word },
  registers: ({ value }) => ({ rax: cut(value, 32), rdx: cut(value, 64) >> 32n }),
};
/** The register that the instruction names. */
const NAMED: Reply = {
  takes: { value: word },
  registers: ({ value }, { gpr }) => ({ [gpr64[gpr as number]]: cut(value, 64) }),
};

/** Every kind, in the order of lists. */
export const EXIT_KINDS = {
  cpuid: {
    meaning: "CPUID always leaves the guest here",
    example: "b cpuid leaf=1",
    fields: { leaf: u32, subleaf: u32, result: { is: "cpuid", made: true } },
    help: "`result` is what the guest would get.",
    see: ({ leaf, subleaf }: Values, guest?: Guest): Values =>
      guest
        ? {
          get result() {
            return guest.cpuid(leaf as number, subleaf as number);
          },
        }
        : {},
    handled: "own",
    reply: {
      takes: {
        eax: { is: "word", bits: 32 },
        ebx: { is: "word", bits: 32 },
        ecx: { is: "word", bits: 32 },
        edx: { is: "word", bits: 32 },
      },
      registers: (values: Values, { result }: Values): Record<string, bigint> => {
        const all = { ...result as Values, ...values };
        return {
          rax: cut(all.eax, 32),
          rbx: cut(all.ebx, 32),
          rcx: cut(all.ecx, 32),
          rdx: cut(all.edx, 32),
        };
      },
    },
    denied: "#UD",
    describe: (f: Values): string => `cpuid leaf ${hex(f.leaf)}, subleaf ${hex(f.subleaf)}`,
  },
  msr: {
    meaning: "RDMSR or WRMSR of a register that the MSR bitmap intercepts",
    example: "b msr msr=efer write",
    fields: {
      msr: {
        is: "number",
        max: 0xffff_ffff,
        names: MSRS,
        expected: 'the number of an MSR, or a name such as "efer"',
      },
      name: { is: "text", made: true },
      write: flag,
      value: word,
    },
    help: "`value` is what is written.",
    never: [UNREAD],
    see: ({ msr }: Values): Values => ({ name: MSR_NAMES.get(msr as number) ?? hex(msr) }),
    intercept: (wanted: Selective, { msr, write }: Values): void => {
      if (write !== true) wanted.msrReads = add(wanted.msrReads, msr);
      if (write !== false) wanted.msrWrites = add(wanted.msrWrites, msr);
    },
    always: true,
    feature: "msr",
    handled: "own",
    reply: PAIR,
    describe: (f: Values): string =>
      `msr ${direction(f)} ${f.name}${f.write ? ` <- ${hex(f.value)}` : ""}`,
  },
  io: {
    meaning: "an IN or OUT to a port that a device of the domain answers",
    example: "b io port=0x3f8-0x3ff write",
    fields: {
      port: { is: "number", max: 0xffff, range: true },
      write: flag,
      size: { is: "choice", of: [1, 2, 4] },
      value: u32,
      string: flag,
      rep: { is: "flag", filter: false },
      address: { is: "linear", optional: true, filter: false },
    },
    help: "`size` is in bytes. `string` is INS or OUTS: `address` is then the linear address of " +
      "its memory operand, and the value is there.",
    never: [
      UNREAD,
      {
        when: ({ value, string }: Values): boolean => value !== undefined && string === true,
        because: "the value of INS and OUTS is in memory",
      },
      {
        when: ({ value, size }: Values): boolean => Number(value) >= 2 ** (8 * Number(size ?? 4)),
        because: "the value has more bytes than the access",
      },
    ],
    intercept: (wanted: Selective): void => void (wanted.ports = "all"),
    always: true,
    handled: "own",
    reply: {
      takes: ({ size }: Values): FieldTable => ({
        value: { is: "word", bits: 8 * Number(size ?? 4) },
      }),
      registers: ({ value }: Values, { size }: Values, rax: bigint): Record<string, bigint> => {
        const width = 8 * (size as number), low = cut(value, width);
        return { rax: width === 32 ? low : rax >> BigInt(width) << BigInt(width) | low };
      },
    },
    describe: (f: Values): string =>
      `io ${direction(f)} port ${hex(f.port)}, ${f.size === 1 ? "1 byte" : `${f.size} bytes`}` +
      (f.write && !f.string ? ` <- ${hex(f.value)}` : "") + (f.string ? ", string" : ""),
  },
  cr: {
    meaning: "a control register that is intercepted, or bits of it that the hypervisor owns",
    example: "b cr cr=3 write",
    fields: {
      cr: { is: "choice", of: [0, 3, 4, 8] },
      write: flag,
      access: { is: "choice", of: ["mov", "clts", "lmsw"] },
      gpr: register,
      value: word,
    },
    help:
      "MOV to or from it, CLTS or LMSW. `value` is what is written; `gpr` the general register that MOV names, 0 (RAX) to 15.",
    never: [UNREAD, {
      when: ({ cr, write, access }: Values): boolean =>
        (access === "clts" || access === "lmsw") && ((cr ?? 0) !== 0 || write === false),
      because: "CLTS and LMSW write CR0",
    }],
    intercept: (wanted: Selective, { cr, write }: Values): void => {
      const is = (n: number) => cr === undefined || cr === n;
      const bits = (is(3) ? 8 : 0) | (is(8) ? 0x100 : 0);
      if (write !== true) wanted.crRead = (wanted.crRead ?? 0) | bits;
      if (write === false) return;
      wanted.crWrite = (wanted.crWrite ?? 0) | bits;
      if (is(0)) wanted.cr0Bits = 0xffff_ffff;
      if (is(4)) wanted.cr4Bits = 0xffff_ffff;
    },
    handled: "own",
    reply: NAMED,
    describe: (f: Values): string =>
      f.write
        ? `cr${f.cr} <- ${hex(f.value)} (${f.access})`
        : `cr${f.cr} read into ${gpr64[f.gpr as number]}`,
  },
  dr: {
    meaning: "MOV to or from a debug register",
    example: "b dr dr=7",
    fields: { dr: { is: "number", max: 7 }, write: flag, gpr: register },
    intercept: "flag",
    handled: "emulate",
    reply: NAMED,
  },
  exception: {
    meaning: "an exception in the exception bitmap",
    example: "b exception vector=#PF",
    fields: {
      vector: {
        is: "number",
        max: 31,
        names: EXCEPTIONS,
        expected: 'a vector from 0 to 31, or a name such as "#PF"',
        made: true,
      },
      name: { is: "text", made: true },
      errorCode: { is: "number", max: 0xffff_ffff, optional: true, made: true },
      address: { is: "linear", range: true, optional: true, made: true },
    },
    help: "`address` is the linear address of a page fault. At the prompt `b #PF` is short for it.",
    raw: { event: { is: "event" }, qualification: word },
    see: ({ event, qualification }: Values): Values => {
      const { vector, errorCode } = event as GuestEvent;
      const address = vector === VECTOR.PF ? { address: big(qualification as Wide) } : {};
      return { vector, name: vectorName(vector), errorCode, ...address };
    },
    never: [
      {
        when: ({ vector }: Values): boolean => vector === VECTOR.NMI,
        because: 'an NMI is of kind "nmi"',
      },
      {
        when: ({ vector, address }: Values): boolean =>
          address !== undefined && (vector ?? VECTOR.PF) !== VECTOR.PF,
        because: "only a page fault (#PF, 14) has an address",
      },
      {
        when: ({ vector, errorCode }: Values): boolean =>
          errorCode !== undefined && withoutCode(vector),
        because: "this exception has no error code",
      },
    ],
    intercept: (wanted: Selective, { vector }: Values): void => {
      const bits = vector === undefined ? 0xffff_ffff : 1 << Number(vector);
      wanted.exceptions = ((wanted.exceptions ?? 0) | bits) >>> 0;
      if (bits & 1 << VECTOR.PF) wanted.pageFault = { mask: 0, match: 0 };
    },
    handled: "own",
    describe: (f: Values, place: (address: unknown) => string): string => {
      const code = f.errorCode === undefined ? "" : `(${hex(f.errorCode)})`;
      return `exception ${f.name}${code}${
        f.address === undefined ? "" : ` at ${place(f.address)}`
      }`;
    },
  },
  "external-interrupt": {
    meaning: "an interrupt of the host, its timer mostly; the guest has nothing to do with it",
    example: "b external-interrupt",
    fields: { vector: { is: "number", min: -1, max: 0xff } },
    help: "`vector` is -1 where it was not acknowledged yet.",
    filter: { vector: u8 },
    handled: "own",
    describe: (f: Values): string => `external-interrupt ${vectorName(f.vector as number)}`,
  },
  "interrupt-window": {
    meaning: "the guest can take the interrupt that waits for it now",
    example: "b interrupt-window",
    fields: {},
    handled: "own",
  },
  nmi: {
    meaning: "a non-maskable interrupt of the host",
    example: "b nmi",
    fields: {},
    intercept: "flag",
    handled: "nothing",
  },
  "nmi-window": {
    meaning: "the guest can take the NMI that waits for it now",
    example: "b nmi-window",
    fields: {},
    handled: "own",
  },
  hlt: {
    meaning: "HLT: the guest has nothing to do until an interrupt",
    example: "b hlt",
    fields: {},
    intercept: "flag",
    always: true,
    handled: "own",
  },
  pause: { meaning: "PAUSE", example: "b pause", fields: {}, intercept: "flag", handled: "skip" },
  // CPUID shows no guest MONITOR: its MWAIT would keep an idle one running.
  monitor: {
    meaning: "MONITOR",
    example: "b monitor",
    fields: {},
    intercept: "flag",
    always: true,
    feature: "monitor",
    handled: "#UD",
    denied: "#UD",
  },
  mwait: {
    meaning: "MWAIT",
    example: "b mwait armed",
    fields: { armed: flag },
    help: "`armed`: MONITOR has armed it.",
    intercept: "flag",
    always: true,
    feature: "monitor",
    handled: "#UD",
    denied: "#UD",
  },
  hypercall: {
    meaning: "VMCALL or VMMCALL",
    example: "b hypercall event_channel_op sub=send",
    fields: {
      number: { is: "number", max: 0xffff_ffff, made: true },
      name: {
        is: "choice",
        of: Object.keys(HYPERCALLS) as readonly string[],
        optional: true,
        made: true,
      },
      sub: { is: "choice", of: OPERATION_NAMES, optional: true, made: true },
      width: { is: "choice", of: [32, 64], made: true },
      arguments: { is: "record", made: true },
      calls: { is: "records", optional: true, made: true },
      result: { is: "number", min: -(2 ** 52), max: 2 ** 52, optional: true, made: true },
      error: {
        is: "choice",
        of: Object.keys(XEN_ERRNO) as readonly XenErrno[],
        optional: true,
        made: true,
      },
    },
    help:
      "`number` is what is in EAX, `name` what Xen calls it, `sub` its operation, `width` that of " +
      "the caller's code; `arguments` are decoded from registers and memory, `calls` are those of a " +
      "multicall. At the prompt the name alone is a filter. A stop is before the call is made; a trace " +
      "of a domain that knows Xen has its event when the call is made, with `result` and, if that is " +
      'an errno, its name as `error`. deny("EPERM") gives an errno.',
    never: [{
      when: ({ name, sub }: Values): boolean =>
        name !== undefined && sub !== undefined && !operationsOf(name).includes(sub as string),
      because: "the hypercall has no such operation",
    }],
    see: (_exit: Values, guest?: Guest): Values => guest ? guest.hypercall() : {},
    handled: "own",
    reply: {
      takes: { result: word },
      registers: ({ result }: Values): Record<string, bigint> => ({ rax: cut(result, 64) }),
    },
    denied: "#UD",
    refuses: {
      names: XEN_ERRNO,
      expected: 'an errno by name, such as "EPERM", or by number',
      values: (number: number): Values => ({ result: BigInt(-number) }),
    },
    describe: callText,
  },
  "virtualization-instruction": {
    meaning: "an instruction of the virtualization extensions, other than the hypercall",
    example: "b virtualization-instruction",
    fields: { instruction: { is: "choice", of: VIRTUALIZATION } },
    handled: "#UD",
    denied: "#UD",
  },
  invlpg: {
    meaning: "INVLPG",
    example: "b invlpg",
    fields: { linear: { is: "address", range: true } },
    intercept: "flag",
    handled: "emulate",
  },
  invpcid: {
    meaning: "INVPCID",
    example: "b invpcid",
    fields: {},
    // It has no control of its own (SDM 3, 26.1.3, "INVPCID").
    intercept: (wanted: Selective): void => void (wanted.invlpg = true),
    feature: "invpcid",
    handled: "emulate",
  },
  rdtsc: {
    meaning: "RDTSC or RDTSCP",
    example: "b rdtsc !aux",
    fields: { aux: flag },
    help: "`aux`: RDTSCP, which gives the MSR TSC_AUX in ECX too.",
    intercept: "flag",
    feature: "tsc",
    handled: "emulate",
    reply: PAIR,
  },
  rdpmc: {
    meaning: "RDPMC",
    example: "b rdpmc",
    fields: {},
    intercept: "flag",
    always: true,
    handled: "#GP",
  },
  rdrand: {
    meaning: "RDRAND",
    example: "b rdrand",
    fields: {},
    intercept: "flag",
    feature: "rdrand",
    handled: "emulate",
  },
  rdseed: {
    meaning: "RDSEED",
    example: "b rdseed",
    fields: {},
    intercept: "flag",
    feature: "rdseed",
    handled: "emulate",
  },
  "descriptor-table": {
    meaning: "LGDT, SGDT and their like",
    example: "b descriptor-table instruction=lidt",
    fields: {
      instruction: {
        is: "choice",
        of: ["sgdt", "sidt", "lgdt", "lidt", "sldt", "str", "lldt", "ltr"],
      },
    },
    intercept: "flag",
    handled: "emulate",
  },
  "task-switch": {
    meaning: "a switch of hardware tasks",
    example: "b task-switch source=iret",
    fields: { selector: u16, source: { is: "choice", of: ["call", "iret", "jmp", "gate"] } },
    help: "`selector` is that of the new task's TSS.",
    handled: "own",
  },
  "nested-page-fault": {
    meaning: "the nested page tables do not allow the access",
    example: "b nested-page-fault write",
    fields: {
      gpa: { is: "physical", range: true },
      linear: { is: "linear", optional: true, filter: false },
      read: flag,
      write: flag,
      fetch: flag,
      walk: flag,
      rights: { is: "number", max: 7, filter: false },
      misconfigured: { is: "flag", filter: false },
    },
    help:
      "It is a device's, or to nothing. `gpa` is the guest-physical address, `linear` the linear one where there is one; `walk`: " +
      "the access was the guest's page walk, not what it was for. `rights` are those of the nested " +
      "translation (bit 0 read, 1 write, 2 execute; 0: not present).",
    never: [{
      when: ({ read, write, fetch }: Values): boolean =>
        read === false && write === false && fetch === false,
      because: "it is a read, a write or a fetch",
    }],
    access: true,
    handled: "own",
    describe: (f: Values): string =>
      `nested-page-fault at guest-physical ${hex(f.gpa)} (${f.fetch ? "fetch" : direction(f)})`,
  },
  "shadow-write": {
    meaning: "a write to a page table that is shadowed: the hypervisor completes it",
    example: "b shadow-write",
    fields: { gpa: { is: "physical", range: true }, linear: { is: "linear", range: true } },
    help: "Also one by a supervisor without CR0.WP to a read-only page.",
    access: true,
    paging: "shadow",
    handled: "own",
    describe: (f: Values, place: (address: unknown) => string): string =>
      `shadow-write at ${place(f.linear)}, guest-physical ${hex(f.gpa)}`,
  },
  "triple-fault": {
    meaning: "an exception while a double fault was delivered: a real processor would shut down",
    example: "b triple-fault",
    fields: {},
    handled: "own",
  },
  tpr: {
    meaning: "the guest's task priority fell below the threshold",
    example: "b tpr",
    fields: {},
    handled: "nothing",
  },
  wbinvd: {
    meaning: "WBINVD",
    example: "b wbinvd",
    fields: {},
    intercept: "flag",
    always: true,
    handled: "skip",
  },
  invd: { meaning: "INVD", example: "b invd", fields: {}, handled: "skip" },
  xsetbv: { meaning: "XSETBV", example: "b xsetbv", fields: {}, handled: "emulate" },
  debug: {
    meaning: "one instruction was executed that the hypervisor stepped (monitor trap)",
    example: "b debug",
    fields: {},
    handled: "nothing",
  },
  "preemption-timer": {
    meaning: "the timer of the virtualization extensions ran out",
    example: "b preemption-timer",
    fields: {},
    handled: "nothing",
  },
  "coprocessor-error": {
    meaning: "a waiting x87 instruction found an exception pending while CR0.NE was clear (FERR#)",
    example: "b coprocessor-error",
    fields: {},
    handled: "own",
  },
  "entry-failure": {
    meaning: "the guest could not be entered: its state or the controls are not allowed",
    example: "b entry-failure",
    fields: {
      what: {
        is: "choice",
        of: ["controls", "host-state", "guest-state", "msr-loading", "instruction"],
      },
      text,
      check: text,
      code,
    },
    help:
      "`check` names what failed, `text` has its operands, `code` is the vendor's number of it.",
    handled: "own",
  },
  "software-interrupt": {
    meaning: "INT n",
    example: "b software-interrupt vector=0x80",
    fields: { vector: u8 },
    intercept: "flag",
    handled: "emulate",
  },
  iret: { meaning: "IRET", example: "b iret", fields: {}, intercept: "flag", handled: "emulate" },
  pushf: {
    meaning: "PUSHF",
    example: "b pushf",
    fields: {},
    intercept: "flag",
    handled: "emulate",
  },
  popf: { meaning: "POPF", example: "b popf", fields: {}, intercept: "flag", handled: "emulate" },
  icebp: { meaning: "INT1", example: "b icebp", fields: {}, intercept: "flag", handled: "emulate" },
  rsm: { meaning: "RSM", example: "b rsm", fields: {}, handled: "#UD" },
  // The host's own; nothing here sends them.
  smi: {
    meaning: "a system-management interrupt of the host",
    example: "b smi",
    fields: {},
    handled: "nothing",
  },
  init: {
    meaning: "the host was asked to initialize",
    example: "b init",
    fields: {},
    handled: "nothing",
  },
  unknown: {
    meaning: "a reason that this hypervisor asks for nowhere",
    example: "b unknown",
    fields: { reason: code },
    help: "`reason` is the vendor's number.",
    handled: "own",
  },
} as const satisfies Readonly<Record<string, ExitRow>>;

/** A kind of exit. */
export type ExitKind = keyof typeof EXIT_KINDS;
/** The rows, for code that goes through all. */
export const exitRows: Readonly<Record<ExitKind, ExitRow>> = EXIT_KINDS;
/** Every kind of exit, for statistics, completion and filters. */
export const exitKinds = Object.keys(EXIT_KINDS) as readonly ExitKind[];
/** Kinds that the hardware is asked for by an intercept of their own. */
export type FlagExitKind = {
  [K in ExitKind]: (typeof EXIT_KINDS)[K] extends { intercept: "flag" } ? K : never;
}[ExitKind];
/** Kinds that the hypervisor does something of its own about. */
export type OwnKind = {
  [K in ExitKind]: (typeof EXIT_KINDS)[K]["handled"] extends "own" ? K : never;
}[ExitKind];

/** Exits that somebody wants to see: a kind, and a filter. */
export type ExitWish = readonly [kind: ExitKind, filter: Values];

/** The intercepts that exits of these kinds need, as far as their filters say. */
export function interceptsOf(wanted: Iterable<ExitWish>): Wanted {
  const result: Wanted = {};
  for (const [kind, filter] of wanted) {
    const { intercept } = exitRows[kind];
    if (intercept === "flag") result[kind as FlagExitKind] = true;
    else intercept?.(result, filter);
  }
  return result;
}
