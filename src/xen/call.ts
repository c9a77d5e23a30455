/** A hypercall as its handler sees it: who calls, with what arguments, and the memory that they name. */
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import {
  type AbiWidth,
  offsetOf,
  sizeOf,
  type StructFields,
  type StructOf,
  type ValuePath,
  View,
} from "../abi/layout.ts";
import { HYPERCALL_REGISTERS } from "../abi/xen/hypercalls.ts";
import { gpr64 } from "../abi/x86/registers.ts";
import type { SliceEnd } from "./engine.ts";
import { GuestHandles } from "./guest_handles.ts";
import type { HvmEngine } from "./hvm.ts";
import type { BrokenRule } from "./refusal.ts";
import type { XenInterface } from "./interface.ts";
import type { XenVcpu } from "./xen_vcpu.ts";

/** Registers of the arguments by width: their places in {@linkcode HvmVcpu.gprs}. */
const ARGUMENTS = {
  32: HYPERCALL_REGISTERS[32].map((name) => 2 * gpr64.indexOf(name)),
  64: HYPERCALL_REGISTERS[64].map((name) => 2 * gpr64.indexOf(name)),
} as const;

/** A call that was refused. */
export interface RefusedCall extends BrokenRule {
  readonly number: number;
  /** The operation, or whatever its first argument was. */
  readonly command: number;
  readonly result: number;
  readonly count: number;
}

/** One for each vCPU, used for call after call. */
export class Call {
  width: AbiWidth = 32;
  /** Where each argument stands among the registers. */
  #places: readonly number[] = ARGUMENTS[32];
  readonly memory: GuestHandles;
  #began = false;
  #args: bigint[] | undefined;
  /** It is to be made again, with the arguments as they are now. */
  again = false;
  /** The vCPU leaves its processor when the call is made. */
  leaves: SliceEnd | undefined;
  /** Somebody wants to know what a call gave, when it is made. */
  onMade: ((result: number) => void) | undefined;
  /** The last that a rule refused: what it gave, which rule, and when, in the vCPU's instructions. */
  refused: RefusedCall | undefined;

  constructor(readonly engine: HvmEngine, readonly xen: XenInterface, readonly vcpu: XenVcpu) {
    this.memory = new GuestHandles(engine);
  }

  begin(width: AbiWidth): void {
    this.width = width;
    this.#places = width === 32 ? ARGUMENTS[32] : ARGUMENTS[64];
    this.#began = false;
  }
  /** Makes a call of a multicall: its arguments are these, and not the registers'. */
  within(args: bigint[], make: () => number): number {
    this.#args = args;
    try {
      return make();
    } finally {
      this.#args = undefined;
    }
  }
  /** It is one of a multicall. */
  get isWithin(): boolean {
    return this.#args !== undefined;
  }
  /** Argument `n`, its low 32 bits, unsigned. */
  low(n: number): number {
    if (this.#args) return Number(BigInt.asUintN(32, this.#args[n]));
    return this.engine.hvm.gprs[this.#places[n]] >>> 0;
  }
  /** Argument `n`, unsigned: 32 or 64 bits of it. */
  wide(n: number): bigint {
    if (this.#args) return this.#args[n];
    const at = this.#places[n], { gprs } = this.engine.hvm;
    const low = BigInt(gprs[at] >>> 0);
    return this.width === 32 ? low : BigInt(gprs[at + 1] >>> 0) << 32n | low;
  }
  /** Changes an argument: for a call that is made again to go on where it was. */
  setWide(n: number, value: bigint): void {
    if (this.#args) return void (this.#args[n] = BigInt.asUintN(this.width, value));
    const at = this.#places[n], { gprs } = this.engine.hvm;
    gprs[at] = Number(BigInt.asIntN(32, value));
    if (this.width === 64) gprs[at + 1] = Number(BigInt.asIntN(32, value >> 32n));
  }

  /** Bytes of the guest; undefined: EFAULT. */
  read(handle: bigint, length: number): Uint8Array | undefined {
    const bytes = new Uint8Array(length);
    return this.fill(bytes, handle) ? bytes : undefined;
  }
  /** Fills bytes with the guest's. False: EFAULT. */
  fill(bytes: Uint8Array, handle: bigint): boolean {
    this.#mapped();
    return this.memory.read(handle, bytes);
  }
  /** 0 or -EFAULT. */
  write(handle: bigint, bytes: Uint8Array): number {
    this.#mapped();
    return this.memory.write(handle, bytes) ? 0 : -XEN_ERRNO.EFAULT;
  }
  #mapped(): void {
    if (this.#began) return;
    this.#began = true;
    this.memory.begin();
  }
  /** A structure of the guest, the `index`th from a handle on; undefined: EFAULT. */
  get<F extends StructFields>(type: StructOf<F>, handle: bigint, index = 0): View<F> | undefined {
    const bytes = this.read(
      handle + BigInt(index * sizeOf(type, this.width)),
      sizeOf(type, this.width),
    );
    return bytes && new View(type, this.width, bytes);
  }
  /** 0 or -EFAULT. */
  put<F extends StructFields>(view: View<F>, handle: bigint, index = 0): number {
    return this.write(handle + BigInt(index * view.raw.length), view.raw);
  }
  /** Writes one field of such a structure: 0 or -EFAULT. */
  putField<F extends StructFields, P extends ValuePath<F>>(
    view: View<F>,
    path: P,
    handle: bigint,
    index = 0,
  ): number {
    const at = index * view.raw.length + offsetOf(view.type, path, this.width);
    return this.write(handle + BigInt(at), view.bytes(path));
  }
}
