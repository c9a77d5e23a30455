/**
 * The hypercalls of a vCPU as breakpoints and traces see them: decoded when the guest leaves for one, and
 * once more when it is made.
 *
 * @module
 */
import {
  argumentRegisters,
  decodeCall,
  type DecodedCall,
  type RawCall,
} from "../../xen/decoding.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { linearMemory } from "../views/spaces.ts";

/** A hypercall on its way. */
export class CallInHand {
  readonly #vcpu: VcpuSubject;
  readonly #raw: RawCall;
  readonly #place: string;

  constructor(vcpu: VcpuSubject) {
    const { file } = vcpu, width = vcpu.bits === 64 ? 64 : 32;
    this.#vcpu = vcpu;
    this.#place = placeOf(vcpu);
    this.#raw = {
      // All of RAX counts, where it is there.
      number: Number(BigInt.asUintN(width, file.get("rax")!)),
      width,
      registers: argumentRegisters(width).map((name) => file.get(name)!),
    };
  }

  /** The vCPU has left for it once more: it is made in parts. */
  get goesOn(): boolean {
    return placeOf(this.#vcpu) === this.#place;
  }

  /** What it says; with a result, of the call that was made. */
  decoded(result?: number): DecodedCall {
    const memory = linearMemory(this.#vcpu);
    return decodeCall(this.#raw, (linear, length) => {
      try {
        return memory.read(linear, length);
      } catch (error) {
        if (error instanceof RangeError) return undefined;
        throw error;
      }
    }, result);
  }
}

const placeOf = ({ file }: VcpuSubject): string =>
  ["rax", "rip", "rsp"].map((r) => file.get(r)).join();
