/**
 * The registers of a vCPU as properties: `regs.rax`, `regs.eax`, `regs.cs`, `regs.cr3`, `regs.msrs`.
 *
 * @module
 */
import { FLOAT_REGISTERS } from "../../abi/x86/float.ts";
import { CR0, CR4, DR6, EFER, RFLAGS } from "../../abi/x86/cr.ts";
import { MSRS } from "../../abi/x86/msr.ts";
import { gpr16, gpr32, gpr64, gpr8rex } from "../../abi/x86/registers.ts";
import type { Segment, SegmentRegister } from "../../hvm/ops.ts";
import { segmentRegisters } from "../../hvm/ops.ts";
import { ATTRIBUTE } from "../../machine/system/segmentation/descriptor.ts";
import { options as optionsOf, u16, u32, whole, word } from "../check.ts";
import {
  codeBits,
  CONTROL,
  DEBUG,
  type MsrName,
  type RegisterFile,
  type TableRegister,
} from "../register_file.ts";
import { bold, hex, INSPECT, type InspectOptions, nearestName } from "../values.ts";

type G64 = typeof gpr64[number];
type G32 = typeof gpr32[number];
type G16 = typeof gpr16[number];
/** @ignore Their names. */
export type PlainRegister =
  | G64
  | G32
  | G16
  | "rip"
  | "eip"
  | "ip"
  | "rflags"
  | "eflags"
  | "flags"
  | typeof CONTROL[number]
  | typeof DEBUG[number]
  | SegmentRegister
  | MsrName;

/** Registers that read and write as `bigint`. */
export type PlainRegisters = Record<PlainRegister, bigint>;

/**
 * The registers of a vCPU. Every one reads as a `bigint` and is set with a `bigint` or a safe
 * integer: the general ones of 64 bits and their parts (`eax` zero-extends, `ax` and `al` leave the
 * rest), `rip`, `rflags`, `crN`, `drN`, segment selectors, model-specific registers by name, `xmmN`
 * (128 bits), `mxcsr`, `fcw`, `fsw`.
 *
 * `segments` has the hidden parts too, `flags` and the like in words are in `text`. Setting a
 * selector changes the selector alone, as hardware's hidden part would not follow it either (SDM 3
 * 3.4.3); set `segments` for all of it.
 *
 * The registers of a {@linkcode Stop} are a copy and refuse to be set.
 */
export type Registers = PlainRegisters & RegisterViews & { [name: string]: bigint };

interface Alias {
  readonly of: string;
  readonly bits: number;
  readonly shift: number;
  /** Writing it clears what is above (32-bit parts). */
  readonly extends: boolean;
}

const aliases = new Map<string, Alias>();
const alias = (name: string, of: string, bits: number, shift = 0, extend = false) =>
  aliases.set(name, { of, bits, shift, extends: extend });
gpr64.forEach((name, n) => {
  alias(gpr32[n], name, 32, 0, true);
  alias(gpr16[n], name, 16);
  alias(gpr8rex[n], name, 8);
});
["ah", "ch", "dh", "bh"].forEach((name, n) => alias(name, gpr64[n], 8, 8));
alias("eip", "rip", 32, 0, true);
alias("ip", "rip", 16);
alias("eflags", "rflags", 32, 0, true);
alias("flags", "rflags", 16);

/** Names that `regs` knows, in the order they are shown. */
const registerNames: readonly string[] = [
  ...gpr64,
  "rip",
  "rflags",
  ...segmentRegisters,
  ...CONTROL,
  ...DEBUG,
  ...Object.keys(MSRS),
  ...FLOAT_REGISTERS,
  ...aliases.keys(),
];

const is128 = (name: string) => /^(xmm|fpr)/.test(name);

/** What stands beside the plain registers. */
export class RegisterViews {
  /** @ignore Found as `regs`. */
  constructor(file: RegisterFile, changed: (name: string, value: bigint) => void) {
    Object.defineProperty(this, FILE, { value: file });
    Object.defineProperty(this, CHANGED, { value: changed });
  }
  declare private readonly [FILE]: RegisterFile;
  declare private readonly [CHANGED]: (name: string, value: bigint) => void;

  /** Segment registers with base, limit (bytes) and attributes. Assign an object to set all of one. */
  get segments(): Record<SegmentRegister, Segment> {
    return segmentViews(this[FILE], this[CHANGED]);
  }
  /** The global descriptor table's place. */
  get gdtr(): TableRegister {
    return this[FILE].table("gdtr");
  }
  set gdtr(value: TableRegister) {
    setTable(this, "gdtr", value);
  }
  /** The interrupt descriptor table's place. */
  get idtr(): TableRegister {
    return this[FILE].table("idtr");
  }
  set idtr(value: TableRegister) {
    setTable(this, "idtr", value);
  }
  /** Current privilege level, 0 to 3. */
  get cpl(): number {
    return this[FILE].cpl;
  }
  /** Model-specific registers by name. */
  get msrs(): Record<MsrName, bigint> {
    const file = this[FILE], set = (name: string, value: unknown) => write(this, name, value);
    const result: Record<string, bigint> = {};
    for (const name of Object.keys(MSRS) as MsrName[]) {
      Object.defineProperty(result, name, {
        enumerable: true,
        get: () => file.get(name) ?? 0n,
        set: (value) => set(name, value),
      });
    }
    return new Proxy(result, guard) as Record<MsrName, bigint>;
  }
  /** Registers that are words of flags, in words. */
  get text(): Record<"rflags" | "cr0" | "cr4" | "efer" | "dr6", string> {
    const bits = (name: string) => this[FILE].get(name) ?? 0n;
    return {
      rflags: flagsText(bits("rflags")),
      cr0: bitsText(CR0, bits("cr0")),
      cr4: bitsText(CR4, bits("cr4")),
      efer: bitsText(EFER, bits("efer")),
      dr6: bitsText(
        { B0: DR6.B0, B1: 2, B2: 4, B3: 8, BD: DR6.BD, BS: DR6.BS, BT: DR6.BT },
        bits("dr6"),
      ),
    };
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    try {
      return registersText(this[FILE], options);
    } catch (error) {
      return (error as Error).message; // whose they were is no more
    }
  }
}

const FILE = Symbol("file"), CHANGED = Symbol("changed");

function read(file: RegisterFile, name: string): bigint | undefined {
  const part = aliases.get(name);
  if (part) return BigInt.asUintN(part.bits, file.get(part.of)! >> BigInt(part.shift));
  if ((segmentRegisters as readonly string[]).includes(name)) {
    return BigInt(file.segment(name as SegmentRegister).selector);
  }
  return file.get(name);
}

function write(views: RegisterViews, name: string, given: unknown): void {
  const file: RegisterFile = (views as never)[FILE];
  const changed: (name: string, value: bigint) => void = (views as never)[CHANGED];
  const segment = (segmentRegisters as readonly string[]).includes(name);
  const part = aliases.get(name);
  const bits = part ? part.bits : segment ? 16 : is128(name) ? 128 : 64;
  const value = word(bits)(given, `register ${name}`);
  if (segment) {
    const old = file.segment(name as SegmentRegister);
    file.setSegment(name as SegmentRegister, { ...old, selector: Number(value) });
  } else if (part && !part.extends) {
    const mask = (1n << BigInt(bits)) - 1n << BigInt(part.shift);
    file.set(part.of, file.get(part.of)! & ~mask | value << BigInt(part.shift));
  } else if (!file.set(part?.of ?? name, value)) {
    throw new RangeError(`register ${name} cannot be set here`);
  }
  changed(name, value);
}

/** @see TableRegister */
const TABLE = optionsOf({ base: word(64), limit: u16 });

function setTable(views: RegisterViews, name: "gdtr" | "idtr", given: TableRegister): void {
  const file: RegisterFile = (views as never)[FILE];
  const changed: (name: string, value: bigint) => void = (views as never)[CHANGED];
  const value = { ...file.table(name), ...TABLE(given, `register ${name}`) };
  file.setTable(name, value);
  changed(name, value.base);
}

/** @see Segment */
const SEGMENT = optionsOf({
  selector: u16,
  base: word(64),
  limit: u32,
  attributes: whole(0, 0x1_f0ff),
});

for (const name of registerNames) {
  Object.defineProperty(RegisterViews.prototype, name, {
    configurable: true,
    enumerable: true,
    get(this: RegisterViews) {
      return read((this as never)[FILE], name);
    },
    set(this: RegisterViews, value: unknown) {
      write(this, name, value);
    },
  });
}

/** A misspelt name must not become a property of its own. */
const guard: ProxyHandler<object> = {
  set(target, name, value) {
    if (typeof name === "symbol" || name in target) return Reflect.set(target, name, value);
    throw new TypeError(unknownRegister(name));
  },
  defineProperty(target, name, descriptor) {
    if (typeof name === "symbol" || name in target) {
      return Reflect.defineProperty(target, name, descriptor);
    }
    throw new TypeError(unknownRegister(String(name)));
  },
};

function unknownRegister(name: unknown): string {
  const near = nearestName(String(name), registerNames);
  return `there is no register ${name}${near ? `; did you mean ${near}?` : ""}`;
}

/**
 * The view of a register file.
 *
 * @param changed told after a register was set
 */
export function registersOf(
  file: RegisterFile,
  changed: (name: string, value: bigint) => void = () => {},
): Registers {
  return new Proxy(new RegisterViews(file, changed), guard) as unknown as Registers;
}

function segmentViews(
  file: RegisterFile,
  changed: (name: string, value: bigint) => void,
): Record<SegmentRegister, Segment> {
  const result = {} as Record<SegmentRegister, Segment>;
  for (const name of segmentRegisters) {
    Object.defineProperty(result, name, {
      enumerable: true,
      get: () => printed(file.segment(name)),
      set: (given: Segment) => {
        const value = { ...file.segment(name), ...SEGMENT(given, `segment ${name}`) };
        file.setSegment(name, value);
        changed(name, BigInt(value.selector));
      },
    });
  }
  return result;
}

function printed(segment: Segment): Segment {
  return Object.defineProperty({ ...segment }, INSPECT, { value: () => segmentText(segment) });
}

const DATA_TYPES = ["read-only", "read/write", "read-only expand-down", "read/write expand-down"];
const CODE_TYPES = ["execute", "execute/read", "conforming execute", "conforming execute/read"];

/** Selector, base, limit and attributes of a segment register, in words. */
function segmentText({ selector, base, limit, attributes }: Segment): string {
  const place = `${hex(selector, 4)}  base ${hex(base, 8)}  limit ${hex(limit, 8)}`;
  if (attributes & ATTRIBUTE.unusable) return `${place}  unusable`;
  const type = attributes & 15;
  const plain = attributes & ATTRIBUTE.system;
  const what = plain
    ? (type & 8 ? CODE_TYPES : DATA_TYPES)[type >> 1 & 3]
    : SYSTEM_TYPES[type] ?? `system type ${type}`;
  const width = attributes & ATTRIBUTE.long
    ? " 64-bit"
    : attributes & ATTRIBUTE.big
    ? " 32-bit"
    : " 16-bit";
  const present = attributes & ATTRIBUTE.present ? "" : " not present";
  return `${place}  ${what}${plain ? width : ""}, DPL ${attributes >> 5 & 3}${present}`;
}

const SYSTEM_TYPES: Record<number, string> = {
  1: "available 16-bit TSS",
  2: "LDT",
  3: "busy 16-bit TSS",
  9: "available TSS",
  11: "busy TSS",
};

/** Names of the flags set, and the I/O privilege level. */
function flagsText(rflags: bigint): string {
  const iopl = (rflags & BigInt(RFLAGS.IOPL)) >> 12n;
  const names = bitsText(FLAGS, rflags);
  return iopl ? `${names === "none" ? "" : `${names} `}IOPL=${iopl}` : names;
}

/** Those of one bit that can change. */
const FLAGS: Readonly<Record<string, number>> = Object.fromEntries(
  Object.entries(RFLAGS).filter(([name]) => name !== "fixed" && name !== "IOPL"),
);

/** Names of the bits set in a word. */
function bitsText(names: Readonly<Record<string, number>>, value: bigint): string {
  return Object.entries(names).filter(([, bit]) => value & BigInt(bit)).map(([n]) => n).join(" ") ||
    "none";
}

/** All registers as a table. */
export function registersText(file: RegisterFile, options?: InspectOptions): string {
  const bits = codeBits(file), wide = bits === 64;
  const digits = wide ? 16 : 8;
  const value = (name: string) => hex(file.get(name) ?? 0n, digits);
  const label = (name: string) => bold(name.padEnd(6), options);
  const named = (name: string) => `${label(wide ? name : name.replace(/^r/, "e"))} ${value(name)}`;
  const rows: string[] = [];
  const order = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"];
  if (wide) order.push(...gpr64.slice(8));
  for (let i = 0; i < order.length; i += 4) rows.push(order.slice(i, i + 4).map(named).join("  "));
  const flags = file.get("rflags") ?? 0n;
  rows.push(
    `${named("rip")}  ${named("rflags")}  [${flagsText(flags)}]  CPL ${file.cpl}, ${bits}-bit code`,
  );
  const crs = ["cr0", "cr2", "cr3", "cr4"].map((n) => `${label(n)} ${value(n)}`).join("  ");
  rows.push(crs);
  const long = wide || (file.get("efer") ?? 0n) !== 0n;
  rows.push(
    `       cr0 ${bitsText(CR0, file.get("cr0") ?? 0n)}; cr4 ${
      bitsText(CR4, file.get("cr4") ?? 0n)
    }` +
      (long ? `; efer ${bitsText(EFER, file.get("efer") ?? 0n)}` : ""),
  );
  for (const name of segmentRegisters) {
    rows.push(`${label(name)} ${segmentText(file.segment(name))}`);
  }
  for (const name of ["gdtr", "idtr"] as const) {
    const { base, limit } = file.table(name);
    rows.push(`${label(name)}         base ${hex(base, 8)}  limit ${hex(limit, 8)}`);
  }
  const debug = ["dr0", "dr1", "dr2", "dr3", "dr6", "dr7"];
  if (debug.slice(0, 4).some((n) => file.get(n)) || (file.get("dr7") ?? 0n) & 0xffn) {
    rows.push(debug.map((n) => `${n} ${value(n)}`).join("  "));
  }
  return rows.join("\n");
}
