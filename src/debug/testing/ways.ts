/**
 * One small guest in every way there is to run it: on the bare processor, and as a domain under
 * nested and shadow paging, with either vendor's processor. Its code is put anywhere, in any mode;
 * every vector has a handler that notes its number in EBX and halts.
 */
import { setInitialState } from "../../builder/bare.ts";
import { build, type BuiltDomain, type DomainConfig } from "../../builder/domain.ts";
import { setVcpuState } from "../../builder/hvm.ts";
import type { InitialState } from "../../builder/entry.ts";
import type { RegisterName, Segment, SegmentRegister } from "../../hvm/ops.ts";
import { CPU } from "../../machine/state.ts";
import { assemble } from "../../machine/isa/encode.ts";
import { Host } from "../../xen/host.ts";
import { HvmEngine } from "../../xen/hvm.ts";
import type { CpuModel } from "../../machine/vendors.ts";

/** A way to run a guest. */
export interface Way {
  readonly cpu: CpuModel;
  readonly type: "bare" | "hvm";
  readonly paging: "hap" | "shadow";
}

const vendors = ["intel", "amd"] as const;
export const HVM_WAYS: readonly Way[] = vendors.flatMap((cpu) =>
  (["hap", "shadow"] as const).map((paging) => ({ cpu, type: "hvm", paging }) as const)
);
export const WAYS: readonly Way[] = [
  ...vendors.map((cpu) => ({ cpu, type: "bare", paging: "hap" }) as const),
  ...HVM_WAYS,
];
export const wayName = ({ cpu, type, paging }: Way): string =>
  type === "bare" ? `${cpu} bare` : `${cpu} ${paging}`;

/** Guest-physical places; 2 MiB of memory, RAM. */
export const AT = {
  gdt: 0x1000,
  idt: 0x2000,
  tss: 0x3000,
  notes: 0x3800,
  /** The root, and three more levels behind it. */
  root: 0x4000,
  /** The page that is mapped at the end of the address space, or of its lower half. */
  last: 0x9000,
  stack: 0xb000,
  handlers: 0xc000,
  code: 0x2_0000,
} as const;

/** Modes to start in; "pae" and "long", "compatibility" have paging. */
export type WayMode =
  | "real"
  | "protected16"
  | "flat32"
  | "pae"
  | "two"
  | "compatibility"
  | "long";

const SELECTOR = { code: 8, data: 16, code16: 24, code64: 32, tss: 40 } as const;
const GDT = [
  0n,
  0x00cf_9b00_0000_ffffn,
  0x00cf_9300_0000_ffffn,
  0x0000_9b02_0000_ffffn,
  0x00af_9b00_0000_ffffn,
  0x0000_8b00_3000_0067n,
  0n,
] as const;

const bits = (mode: WayMode): 16 | 32 | 64 =>
  mode === "long" ? 64 : mode === "real" || mode === "protected16" ? 16 : 32;
const isLong = (mode: WayMode) => mode === "long" || mode === "compatibility";

/** Where a mode's mapped end is: the first address behind it. */
const END: Readonly<Record<WayMode, bigint>> = {
  real: 0x1_0000n,
  protected16: 0x1_0000n,
  flat32: 0x1_0000_0000n,
  two: 0x1_0000_0000n,
  pae: 0x1_0000_0000n,
  compatibility: 0x1_0000_0000n,
  long: 0x8000_0000_0000n,
};

function initialState(mode: WayMode): InitialState {
  const code: Segment = mode === "long"
    ? { selector: SELECTOR.code64, base: 0n, limit: 0xffff_ffff, attributes: 0xa09b }
    : mode === "real"
    ? { selector: AT.code >> 4, base: BigInt(AT.code), limit: 0xffff, attributes: 0x9b }
    : mode === "protected16"
    ? { selector: SELECTOR.code16, base: BigInt(AT.code), limit: 0xffff, attributes: 0x9b }
    : { selector: SELECTOR.code, base: 0n, limit: 0xffff_ffff, attributes: 0xc09b };
  const data: Segment = mode === "real"
    ? { selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 }
    : { selector: SELECTOR.data, base: 0n, limit: 0xffff_ffff, attributes: 0xc093 };
  const none = { selector: 0, base: 0n, limit: 0xffff, attributes: 0x82 };
  const tr = { selector: SELECTOR.tss, base: BigInt(AT.tss), limit: 0x67, attributes: 0x8b };
  const segments: Record<SegmentRegister, Segment> = {
    cs: code,
    ds: data,
    es: data,
    ss: data,
    fs: data,
    gs: data,
    ldtr: none,
    tr: mode === "real" ? { ...tr, selector: 0, base: 0n } : tr,
  };
  const paged = isLong(mode) || mode === "pae" || mode === "two";
  return {
    mode: mode === "long" ? "long64" : mode === "real" ? "real" : "protected32",
    rip: 0n,
    rflags: 2n,
    regs: { rsp: BigInt(AT.stack) },
    segments,
    cr0: mode === "real" ? 0x10n : paged ? 0x8000_0031n : 0x31n,
    cr3: paged ? BigInt(AT.root) : 0n,
    cr4: mode === "two" ? 0x10n : paged ? 0x20n : 0n,
    efer: isLong(mode) ? 0x500n : 0n,
    gdtr: { base: BigInt(AT.gdt), limit: 8 * GDT.length - 1 },
    idtr: { base: mode === "real" ? 0n : BigInt(AT.idt), limit: mode === "real" ? 0x3ff : 0xfff },
  };
}

/** Bytes of a guest. */
const MEMORY = 2 << 20;

export class WayGuest {
  private constructor(
    readonly way: Way,
    readonly host: Host,
    readonly built: BuiltDomain,
  ) {}

  /**
   * @param more of the domain's configuration; `host`: one that has others
   */
  static async make(
    way: Way,
    cpuid?: DomainConfig["cpuid"],
    { host = WayGuest.#host(way), ...more }: Partial<DomainConfig> & { host?: Host } = {},
  ): Promise<WayGuest> {
    const { type, paging } = way;
    const rom = new Uint8Array(0x10000);
    rom.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
    const built = await build(host, {
      name: "way",
      type,
      kernel: { file: "rom", bytes: rom },
      memory: MEMORY,
      vcpus: 1,
      paging,
      cpuid,
      ...more,
    });
    return new WayGuest(way, host, built);
  }
  static #host({ cpu, type }: Way): Host {
    return new Host({
      cpu,
      memory: type === "bare" ? MEMORY : 4 * MEMORY,
      unixTime: 1_700_000_000,
      seed: 1,
    });
  }

  get domain(): BuiltDomain["domain"] {
    return this.built.domain;
  }
  get engine(): HvmEngine | undefined {
    const { engine } = this.domain.vcpus[0];
    return engine instanceof HvmEngine ? engine : undefined;
  }

  write(gpa: number, bytes: Uint8Array): void {
    this.domain.memory.write(gpa, bytes);
  }
  write64(gpa: number, ...values: bigint[]): void {
    this.write(gpa, new Uint8Array(BigUint64Array.from(values).buffer));
  }
  read64(gpa: number): bigint {
    return new BigUint64Array(this.domain.memory.read(gpa, 8).buffer)[0];
  }

  /** Tables, gates and handlers of a mode, and its state; code is at RIP 0 of "real" and "protected16", else at AT.code. */
  enter(mode: WayMode, code: string | Uint8Array, more: Partial<InitialState> = {}): void {
    this.write(0, new Uint8Array(0x1_0000));
    this.write64(AT.gdt, ...GDT);
    this.#gates(mode);
    this.#tables(mode);
    const bytes = typeof code === "string" ? this.assemble(mode, code) : code;
    this.write(AT.code, bytes);
    const start = initialState(mode);
    const rip = bits(mode) === 16 ? 0n : BigInt(AT.code);
    this.setState({ ...start, rip, ...more });
  }
  assemble(mode: WayMode, source: string): Uint8Array {
    const wide = bits(mode);
    const origin = wide === 16 ? 0 : AT.code;
    return assemble(`org ${origin}\nbits ${wide}\n${source}`, { mode: wide }).bytes;
  }

  /** Code whose last byte is the last of the mode's addresses; what follows it in the page is `behind`. */
  enterAtEnd(mode: WayMode, code: string, more: Partial<InitialState> = {}): void {
    const bytes = this.assemble(mode, code), rip = END[mode] - BigInt(bytes.length);
    this.enter(mode, new Uint8Array(0), { rip, ...more });
    const at = bits(mode) === 16 ? AT.code + 0x1_0000 : AT.last + 0x1000;
    this.write(at - bytes.length, bytes);
    // What a wrap around to 0 would meet: EBX = 0x77, HLT. Behind 64 KB: the same with 0x66.
    const note = (n: number) =>
      assemble(`bits ${bits(mode)}\nmov ebx, ${n}\nhlt`, { mode: bits(mode) });
    if (mode !== "real") this.write(0, note(0x77).bytes);
    if (bits(mode) === 16) this.write(AT.code + 0x1_0000, note(0x66).bytes);
  }

  #gates(mode: WayMode): void {
    const wide = mode === "real" ? 16 : isLong(mode) ? 64 : 32;
    for (let n = 0; n < 48; n++) {
      const at = AT.handlers + 16 * n;
      this.write(at, assemble(`bits ${wide}\nmov ebx, ${n}\nhlt`, { mode: wide }).bytes);
      if (mode === "real") {
        this.write(4 * n, new Uint8Array(Uint16Array.of(at, 0).buffer));
        continue;
      }
      const selector = isLong(mode) ? SELECTOR.code64 : SELECTOR.code;
      const gate = BigInt(at) | BigInt(selector) << 16n | 0x8e00n << 32n;
      if (isLong(mode)) this.write64(AT.idt + 16 * n, gate, 0n);
      else this.write64(AT.idt + 8 * n, gate);
    }
  }

  /** The first 2 MBytes as they are, but for 4-KByte pages of the first part; the last page is AT.last. */
  #tables(mode: WayMode): void {
    const { root } = AT;
    const at = (n: number) => root + 0x1000 * n;
    if (mode === "two") {
      this.#write32(root, 0x83);
      this.#write32(root + 4 * 1023, at(1) | 3);
      this.#write32(at(1) + 4 * 1023, AT.last | 3);
      // The local APIC.
      this.#write32(root + 4 * 1019, 0xfec0_0083);
      return;
    }
    const device = 0xfee0_0083n;
    if (mode === "pae") {
      this.write64(root, BigInt(at(1)) | 1n, 0n, 0n, BigInt(at(2)) | 1n);
      this.write64(at(1), 0x83n);
      this.write64(at(2) + 8 * 511, BigInt(at(3)) | 3n);
      this.write64(at(2) + 8 * 503, device);
      this.write64(at(3) + 8 * 511, BigInt(AT.last) | 3n);
    } else if (isLong(mode)) {
      // One page directory serves the first GByte and the last one of each half and of 32 bits.
      const pdpt = BigInt(at(1)) | 3n, pd = BigInt(at(2)) | 3n;
      this.write64(root, pdpt);
      this.write64(root + 8 * 255, pdpt);
      this.write64(root + 8 * 511, pdpt);
      this.write64(at(1), pd);
      this.write64(at(1) + 8 * 3, pd);
      this.write64(at(1) + 8 * 511, pd);
      this.write64(at(2), 0x83n);
      this.write64(at(2) + 8 * 503, device);
      this.write64(at(2) + 8 * 511, BigInt(at(3)) | 3n);
      this.write64(at(3) + 8 * 511, BigInt(AT.last) | 3n);
    }
  }
  #write32(gpa: number, value: number): void {
    this.write(gpa, new Uint8Array(Uint32Array.of(value).buffer));
  }

  setState(state: InitialState): void {
    const { host, engine } = this;
    this.domain.setState({ kind: "running" });
    this.domain.wake(this.domain.vcpus[0]);
    if (!engine) {
      const { cpu } = host.machine;
      cpu.reset();
      setInitialState(cpu, state);
      cpu.loadPdptes(Number(state.cr3));
      return;
    }
    host.unload();
    const { ops, hvm: vcpu } = engine;
    engine.pending = undefined;
    engine.changed = true;
    ops.cancelEvent(vcpu);
    ops.setActivity(vcpu, "active");
    ops.setInterruptShadow(vcpu, { sti: false, movSs: false, nmi: false });
    // Out of whatever it was in before.
    ops.setCr(vcpu, 0, 0x10n);
    ops.setCr(vcpu, 4, 0n);
    setVcpuState(ops, vcpu, state);
    ops.flushTranslations(vcpu);
  }

  /** Runs at most `budget` instructions, up to a halt or the end; what became of it. */
  run(budget = 1000): string {
    const { host, domain } = this, { cpu } = host.machine;
    const end = cpu.count + budget;
    for (let turns = 0; cpu.count < end && turns < 100; turns++) {
      if (!host.runOnce(end - cpu.count)) break;
      if (domain.ended) return domain.describe();
    }
    return domain.ended ? domain.describe() : domain.state.kind;
  }

  /** Lets time pass to the next thing that is due, `times` times, and runs what that wakes. */
  idle(times = 20, budget = 1000): string {
    const { host, domain } = this;
    for (let n = 0; n < times; n++) {
      const next = Math.min(
        domain.deadline - domain.timeOffset,
        host.machine.bus.deadline(),
      );
      if (next === Infinity) break;
      host.machine.cpu.skipTo(next);
      host.handleInterrupts();
      this.run(budget);
    }
    return domain.ended ? domain.describe() : domain.state.kind;
  }

  reg(name: RegisterName): bigint {
    const { engine } = this;
    if (!engine) return this.host.machine.cpu.get(name);
    return engine.ops.getRegister(engine.hvm, name);
  }
  cr(n: 0 | 3 | 4): bigint {
    const { engine } = this;
    return engine ? engine.ops.getCr(engine.hvm, n) : this.host.machine.cpu.get(`cr${n}`);
  }
  /** Asserts the NMI line. */
  nmi(): void {
    if (this.engine) this.engine.nmi();
    else this.host.machine.cpu.raiseNmi();
  }
  get halted(): boolean {
    return this.domain.state.kind === "blocked" ||
      (!this.engine && this.host.machine.cpu.i32[CPU.activity >> 2] === 1);
  }
  /** Quadwords on the stack of a mode whose frames have that width, from the top. */
  stack(width: 2 | 4 | 8, count: number): bigint[] {
    const at = Number(this.reg("rsp"));
    const bytes = new DataView(this.domain.memory.read(at, width * count).buffer);
    return Array.from({ length: count }, (_, n) => {
      if (width === 8) return bytes.getBigUint64(8 * n, true);
      return BigInt(width === 4 ? bytes.getUint32(4 * n, true) : bytes.getUint16(2 * n, true));
    });
  }
}
