/**
 * What goes by taken branches: AMD's record of the last one and of the one before the last exception
 * (DEBUGCTL.LBR, APM 2 13.1.1.6), and single steps that trap on branches only (DEBUGCTL.BTF, SDM 3
 * 17.4.3, APM 2 13.1.1). Instructions run one by one while either is on.
 */
import { DEBUGCTL } from "../abi/x86/cr.ts";
import { VECTOR } from "../abi/x86/vectors.ts";
import type { Cpu } from "./cpu.ts";
import { ABORT, CPU, PREFIX, REC, V } from "./state.ts";

export class Branches {
  /** It has such records. */
  readonly #records: boolean;
  /** The instruction that runs, and the one behind it; whether it is a guest's. */
  #from = 0n;
  #next = 0n;
  #guest = 0;

  constructor(readonly cpu: Cpu) {
    this.#records = cpu.model === "amd";
  }

  get recorded(): boolean {
    return (this.cpu.i32[CPU.debugctl >> 2] & DEBUGCTL.LBR) !== 0 && this.#records;
  }
  /** With RFLAGS.TF. */
  get trap(): boolean {
    return (this.cpu.i32[CPU.debugctl >> 2] & DEBUGCTL.BTF) !== 0;
  }

  /** Notes where the instruction that comes next is, and the one behind it. */
  begin(): void {
    const { i32, u64, u8 } = this.cpu;
    const record = this.#predecode();
    // What cannot be fetched faults when it is to run.
    i32[V.abort >> 2] = ABORT.none;
    this.#from = u64[CPU.rip >> 3];
    this.#next = this.#from + BigInt(record ? u8[record + REC.length] : 0);
    this.#guest = i32[V.nonRoot >> 2];
  }

  /** The instruction was a taken branch; one to the instruction behind it passes for none. */
  get taken(): boolean {
    const { i32, u64 } = this.cpu, to = u64[CPU.rip >> 3];
    // The instruction that enters a guest is no branch, nor is the next round of a repeated one.
    if (this.#guest !== i32[V.nonRoot >> 2] || to === this.#next || this.#next === this.#from) {
      return false;
    }
    return to !== this.#from || !this.#isRepeated();
  }

  record(): void {
    const { u64 } = this.cpu;
    u64[CPU.branchFrom >> 3] = this.#from;
    u64[CPU.branchTo >> 3] = u64[CPU.rip >> 3];
  }

  /** Delivers the event in the cells: a branch, and the one before it is the last before an exception. */
  recordDelivery(): void {
    const { u64, i32, system } = this.cpu, from = u64[CPU.rip >> 3];
    const branch = [u64[CPU.branchFrom >> 3], u64[CPU.branchTo >> 3]];
    const debug = i32[V.vector >> 2] === VECTOR.DB;
    system.deliver();
    if (i32[V.abort >> 2] !== ABORT.none) return;
    [u64[CPU.lastExceptionFrom >> 3], u64[CPU.lastExceptionTo >> 3]] = branch;
    u64[CPU.branchFrom >> 3] = from;
    u64[CPU.branchTo >> 3] = u64[CPU.rip >> 3];
    // A debug exception freezes the records for its handler.
    if (debug) i32[CPU.debugctl >> 2] &= ~DEBUGCTL.LBR;
  }

  #isRepeated(): boolean {
    const record = this.#predecode();
    const prefixes = record ? this.cpu.u16[(record + REC.prefixes) >> 1] : 0;
    return (prefixes & (PREFIX.rep | PREFIX.repne)) !== 0;
  }

  #predecode(): number {
    const { low, high } = this.cpu.codeAddress;
    return this.cpu.predecoder.predecode(low, high);
  }
}
