/**
 * What the debugger's parts are handed of a vCPU: its registers, how its addresses are translated, its
 * clock, and what happened to it last.
 *
 * @module
 */
import { CR4 } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import type { CpuidResult } from "../machine/cpuid.ts";
import type { Fault } from "../machine/events.ts";
import { CPU } from "../machine/state.ts";
import { HvmEngine } from "../xen/hvm.ts";
import type { Vcpu as Inner } from "../xen/vcpu.ts";
import {
  CheckedFile,
  codeBits,
  CpuFile,
  HvmFile,
  linearIp,
  type RegisterFile,
} from "./register_file.ts";
import type { Subject } from "./subject.ts";
import type { PagingContext } from "./walker.ts";

/** Where in a run something happened. */
export interface Position {
  /** Instructions the host has retired. */
  readonly count: number;
  /** Machine time in nanoseconds, as its processor has it: the guest's own, if it has had the host for itself. */
  readonly time: number;
}

/** Of IA32_APIC_BASE (SDM 3 10.4.3). */
const APIC_ENABLED = 0x800;

/** A vCPU under the debugger. */
export class VcpuSubject {
  /** Its registers, wherever they are now. */
  readonly file: RegisterFile;

  constructor(
    readonly domain: Subject,
    /** The hypervisor's own vCPU. */
    readonly inner: Inner,
  ) {
    const { engine } = this, { cpu, processor } = inner;
    const file = engine
      ? new HvmFile(engine.ops, engine.hvm, () => processor.look(inner))
      : new CpuFile(cpu);
    this.file = new CheckedFile(file, () => domain.mustLive("registers"));
  }

  /** Number within the domain. */
  get id(): number {
    return this.inner.id;
  }
  /** "debian, vCPU 0". */
  get name(): string {
    return `${this.domain.name}, vCPU ${this.id}`;
  }
  /** What runs it, if that is a hardware virtual machine. */
  get engine(): HvmEngine | undefined {
    const { engine } = this.inner;
    return engine instanceof HvmEngine ? engine : undefined;
  }
  /** Where in the host's run it is. */
  get position(): Position {
    const { cpu } = this.inner;
    return { count: cpu.machine.count, time: cpu.now };
  }
  /** Width of the code it runs. */
  get bits(): 16 | 32 | 64 {
    return codeBits(this.file);
  }
  /** Linear address of its next instruction. */
  get linearIp(): bigint {
    return linearIp(this.file);
  }
  /** Linear address 0 of its code's offsets: of branch targets, say. */
  get codeBase(): bigint {
    return this.bits === 64 ? 0n : this.file.segment("cs").base;
  }

  /** How its addresses are translated now. */
  get paging(): PagingContext {
    const { inner: { cpu }, engine, file } = this;
    this.domain.mustLive("page tables");
    if (!engine) {
      cpu.system.refresh();
      return { cpu, file };
    }
    const { p2m: { root, format }, shadow } = engine;
    // Looking at registers brings the vCPU onto its processor.
    if (shadow) file.get("cr3");
    return { cpu, file, nested: { root, format }, shadow: shadow?.walked };
  }

  /** What CPUID gives it now. */
  cpuid(leaf: number, subleaf: number): CpuidResult {
    const { engine, inner: { cpu, port, domain: { cpuid } } } = this;
    if (engine) return { ...engine.cpuidLeaf(leaf, subleaf) };
    return cpuid.read(leaf, subleaf, {
      osxsave: (cpu.i32[CPU.cr4 >> 2] & CR4.OSXSAVE) !== 0,
      apicEnabled: (cpu.i32[CPU.apicBase >> 2] & APIC_ENABLED) !== 0,
      apicId: port?.id ?? 0,
    });
  }
  /** CR4 and EFER as they stand. */
  get modes(): { cr4: number; efer: number } {
    const { engine, inner: { cpu } } = this;
    if (!engine) return { cr4: cpu.i32[CPU.cr4 >> 2], efer: cpu.i32[CPU.efer >> 2] };
    const { ops, hvm } = engine;
    return { cr4: Number(ops.getCr(hvm, 4)), efer: Number(ops.getMsr(hvm, MSR.EFER)) };
  }

  /** Somebody from outside has set a register. */
  registerSet(name: string, value: bigint): void {
    const { domain, engine } = this;
    domain.host.world.enter("register", domain.id, { name, value });
    if (engine) engine.changed = true;
  }

  /** The last exit, or the entry that failed. */
  get lastExit(): HvmEngine["last"] {
    return this.engine?.last;
  }
  /** The last exception it was given; its count is that from now, 0 or below. */
  get lastFault(): Fault | undefined {
    const { engine } = this;
    if (engine) return engine.lastFault;
    const { lastFault, count } = this.inner.cpu;
    return lastFault && { ...lastFault, count: lastFault.count - count };
  }
}
