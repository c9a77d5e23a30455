/** A vCPU's general registers and their kin, wherever a vendor keeps each. */
import { gpr64 } from "../abi/x86/registers.ts";
import { type Common, type ExitOf, toWide, type Wide, wide, wideToBigInt } from "./exit.ts";
import type { HvmOps, HvmVcpu, RegisterName, UserRegisters } from "./ops.ts";

const GPRS: readonly RegisterName[] = gpr64;

/** What a vendor says about its vCPUs' registers. */
export interface RegisterHomes<V extends HvmVcpu> {
  /** Those in the control structure, by field. */
  readonly fields: Partial<Record<RegisterName, number>>;
  /** Those that stay in the processor while the vCPU is loaded. */
  readonly inCpu: readonly RegisterName[];
  read(v: V, field: number): bigint;
  write(v: V, field: number, value: bigint): void;
}

type RegisterFunctions = Pick<
  HvmOps,
  "storeRegisters" | "loadRegisters" | "getRegister" | "setRegister"
>;

/** Reads and writes registers by name; the vCPU is current. */
export class RegisterAccess<V extends HvmVcpu> {
  readonly names: readonly RegisterName[];

  constructor(private readonly homes: RegisterHomes<V>) {
    const others: RegisterName[] = ["rip", "rflags", "cr2", "dr0", "dr1", "dr2", "dr3", "dr6"];
    this.names = [...GPRS, ...others, "dr7"];
  }

  get(v: V, name: RegisterName): bigint {
    const { fields, inCpu, read } = this.homes;
    const field = fields[name];
    if (field !== undefined) return read(v, field);
    const n = GPRS.indexOf(name);
    if (n >= 0) return wideToBigInt(gprOf(v, n));
    if (inCpu.includes(name)) return v.on.cpu.get(name);
    throw this.#unknown(name);
  }

  set(v: V, name: RegisterName, value: bigint): void {
    const { fields, inCpu, write } = this.homes;
    const field = fields[name], n = GPRS.indexOf(name);
    if (field !== undefined) write(v, field, value);
    else if (n >= 0) {
      const { low, high } = toWide(value);
      v.gprs[2 * n] = low;
      v.gprs[2 * n + 1] = high;
    } else if (inCpu.includes(name)) v.on.cpu.set(name, value);
    else throw this.#unknown(name);
  }

  all(v: V): UserRegisters {
    return Object.fromEntries(this.names.map((name) => [name, this.get(v, name)])) as UserRegisters;
  }

  load(v: V, registers: Partial<UserRegisters>): void {
    for (const name of Object.keys(registers) as RegisterName[]) {
      this.set(v, name, registers[name]!);
    }
  }

  /** The functions of the table that are about these registers; `at` makes the vCPU current. */
  table(at: (v: HvmVcpu) => V): RegisterFunctions {
    return {
      storeRegisters: (v) => this.all(at(v)),
      loadRegisters: (v, values) => this.load(at(v), values),
      getRegister: (v, name) => this.get(at(v), name),
      setRegister: (v, name, value) => this.set(at(v), name, value),
    };
  }

  #unknown(name: string): RangeError {
    return new RangeError(`no register "${name}"; there are: ${this.names.join(" ")}`);
  }
}

/** A general register by number, as the save area has it; not for RSP. */
export function gprOf({ gprs }: HvmVcpu, n: number): Wide {
  return wide(gprs[2 * n], gprs[2 * n + 1]);
}

// --- exits that are about general registers ---

/** CPUID: EAX and ECX say what is asked. */
export function cpuidExit({ gprs }: HvmVcpu, { length, vectoring }: Common): ExitOf<"cpuid"> {
  return { kind: "cpuid", leaf: gprs[0] >>> 0, subleaf: gprs[2] >>> 0, length, vectoring };
}

/** RDMSR and WRMSR: the number in ECX, the value in EDX:EAX. */
export function msrExit({ gprs }: HvmVcpu, write: boolean, common: Common): ExitOf<"msr"> {
  return { kind: "msr", write, msr: gprs[2] >>> 0, value: wide(gprs[0], gprs[4]), ...common };
}

/** What an access to a port writes: AL, AX or EAX; 0 for a read. */
export function portValue({ gprs }: HvmVcpu, write: boolean, size: number): number {
  if (!write) return 0;
  return size === 1 ? gprs[0] & 0xff : size === 2 ? gprs[0] & 0xffff : gprs[0] >>> 0;
}
