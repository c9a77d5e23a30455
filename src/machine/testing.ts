/** What tests of the processor share: a flat machine with a program, and views of its state. */
import { Machine } from "./machine.ts";
import { architecturalFields, CPU, type GPRS } from "./state.ts";
import { assemble } from "./isa/encode.ts";

/** A program and how it is run. */
export interface FlatOptions {
  /** Bytes of memory; 1 MiB if absent. */
  readonly memory?: number;
  /** Where the program is loaded and entered; 0x1000 if absent. */
  readonly origin?: number;
  /** Off: no hot handlers. */
  readonly hot?: boolean;
  /** Top of the stack; 0x80000 if absent. */
  readonly stack?: number;
  /** 64-bit code. (IA-32e mode without paging: no real processor does that.) */
  readonly long?: boolean;
  /** "intel" if not given. */
  readonly cpu?: "intel" | "amd";
}

/** A machine in flat protected mode, CPL 0, without paging, about to run `program`. */
export function flatMachine(program: string, options: FlatOptions = {}): Machine {
  const machine = new Machine({ memory: options.memory ?? 1 << 20, cpu: options.cpu });
  const { cpu } = machine, origin = options.origin ?? 0x1000;
  cpu.hot = options.hot ?? true;
  cpu.set("cr0", 0x11n);
  const flat = { base: 0n, limit: 0xffff_ffff };
  for (const n of [0, 2, 3, 4, 5]) {
    cpu.setSegment(n, { selector: 0x10, attributes: 0xc093, ...flat });
  }
  cpu.setSegment(1, { selector: 8, attributes: options.long ? 0xa09b : 0xc09b, ...flat });
  if (options.long) cpu.set("efer", 0x500n);
  machine.write(origin, assemble(program, { mode: options.long ? 64 : 32, origin }).bytes);
  cpu.set("rip", BigInt(origin));
  cpu.set("rsp", BigInt(options.stack ?? 0x80000));
  return machine;
}

/**
 * Assembly of a ROM at F000h: from real mode to flat 32-bit code, by the descriptors 8 and 16 that the
 * label `gdtr` names.
 */
export const TO_FLAT = `  db 0x2e
  lgdt [gdtr]
  mov eax, cr0
  or al, 1
  mov cr0, eax
  db 0x66, 0xea
  dd 0xf0000 + flat
  dw 8
bits 32
flat:
  mov ax, 16
  mov ds, ax
  mov es, ax
  mov ss, ax`;

/** A 32-bit register as an unsigned number. */
export function register(machine: Machine, name: (typeof GPRS)[number] | "rip"): number {
  return machine.cpu.i32[CPU[name] >> 2] >>> 0;
}

/** The architectural state as text, flags worked out, one field a line; `but` leaves fields out. */
export function stateText(machine: Machine, but: readonly string[] = []): string {
  const { cpu } = machine;
  cpu.system.materialize();
  const skip = new Set(["flagOp", "flagCarry", "flagX", "flagY", ...but]);
  return architecturalFields.filter((f) => !skip.has(f.name)).map((f) => {
    const bytes = cpu.u8.slice(f.at, f.at + f.width).toReversed();
    return `${f.name}=${bytes.toHex()}`;
  }).join("\n");
}

/** A little-endian 32-bit word of machine memory. */
export function word(machine: Machine, address: number): number {
  return new DataView(machine.ram.buffer, machine.ram.byteOffset).getUint32(address, true);
}
