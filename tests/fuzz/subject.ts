/**
 * What is fuzzed: a guest on the bare processor or in an HVM domain, with its real board. What must
 * not change is marked: memory behind the machine's end; in a host, every frame that is not the
 * guest's.
 */
import { build, type BuiltDomain } from "../../src/builder/domain.ts";
import { demoGuest } from "../../src/builder/demo.ts";
import type { InitialState } from "../../src/builder/entry.ts";
import { setInitialState } from "../../src/builder/bare.ts";
import { setVcpuState } from "../../src/builder/hvm.ts";
import { CPU, V } from "../../src/machine/state.ts";
import { checkById } from "../../src/machine/checks.ts";
import { Host } from "../../src/xen/host.ts";
import { HvmEngine } from "../../src/xen/hvm.ts";
import type { CpuModel } from "../../src/machine/vendors.ts";

/** Not a multiple of 64 KiB: what lies behind it in the Wasm memory must never be touched. */
export const GUEST_MEMORY = 0x30_1000;
const HOST_MEMORY = 10 << 20;
const CANARY = 0xa5;

export type SubjectType = "bare" | "hvm";

export class Subject {
  private constructor(
    readonly type: SubjectType,
    readonly host: Host,
    readonly built: BuiltDomain,
    readonly image: { bytes: Uint8Array; at: readonly number[] },
  ) {}

  static async make(
    type: SubjectType,
    seed: number,
    cpu: CpuModel = "intel",
    paging: "hap" | "shadow" = "hap",
  ): Promise<Subject> {
    const memory = type === "bare" ? GUEST_MEMORY : HOST_MEMORY;
    const host = new Host({ cpu, memory, unixTime: 1_700_000_000, seed });
    const config = {
      name: "fuzz",
      type,
      kernel: { file: "demo", bytes: demoGuest().image },
      memory: GUEST_MEMORY,
      vcpus: 1,
      paging,
    };
    const built = await build(host, config);
    armTimer(built);
    return new Subject(type, host, built, watch(host));
  }

  get count(): number {
    return this.host.machine.cpu.count;
  }
  get engine(): HvmEngine | undefined {
    const { engine } = this.built.domain.vcpus[0];
    return engine instanceof HvmEngine ? engine : undefined;
  }

  write(gpa: number, bytes: Uint8Array): void {
    this.built.domain.memory.write(gpa, bytes);
  }

  /** Puts the guest's processor into a state; whatever it did before is forgotten. */
  enter(state: InitialState): void {
    const { host, engine, built: { domain } } = this;
    const { cpu } = host.machine;
    domain.setState({ kind: "running" });
    domain.wake(domain.vcpus[0]);
    if (!engine) {
      setInitialState(cpu, state);
      // Loaded like registers; without PAE paging nobody reads them.
      cpu.loadPdptes(Number(state.cr3));
      return;
    }
    host.unload();
    const { ops, hvm: vcpu } = engine;
    engine.pending = undefined;
    ops.cancelEvent(vcpu);
    ops.setActivity(vcpu, "active");
    ops.setInterruptShadow(vcpu, { sti: false, movSs: false, nmi: false });
    if (host.options.cpu === "intel") ops.writeRaw(vcpu, "guestPendingDebug", 0n);
    ops.setRegister(vcpu, "dr7", 0x400n);
    setVcpuState(ops, vcpu, state);
    ops.flushTranslations(vcpu);
  }

  nmi(): void {
    if (this.engine) this.engine.nmi();
    else this.host.machine.cpu.raiseNmi();
  }

  /** Runs `budget` instructions, or until it ends; says how. */
  run(budget: number): string {
    const { host, built: { domain } } = this;
    const end = this.count + budget;
    for (let idle = 0; this.count < end;) {
      const before = this.count;
      const ran = host.runOnce(Math.min(end - before, 1_000_000));
      if (domain.state.kind === "shutdown") return domain.state.detail;
      if (domain.ending) return domain.ending.detail;
      if (this.count !== before) continue;
      if (++idle > 20) return ran ? "no progress" : "halted";
      if (domain.state.kind !== "blocked") continue;
      const next = Math.min(domain.deadline, host.machine.bus.deadline());
      if (next === Infinity) return "halted";
      host.machine.cpu.skipTo(next);
      host.handleInterrupts();
      domain.platform!.run(host.machine.cpu.now);
    }
    return "budget";
  }

  /** The devices ended the guest: this subject can run no more. */
  get spent(): boolean {
    return this.built.domain.ending !== undefined;
  }

  /** What was written that nobody may write; undefined if nothing. */
  damage(): string | undefined {
    const { bytes, at } = this.image;
    const { machine } = this.host;
    const now = new Uint8Array(machine.memory.buffer);
    for (let i = 0; i < at.length; i++) {
      const from = at[i];
      const a = new Float64Array(now.buffer, from, 512);
      const b = new BigUint64Array(bytes.buffer, i * 4096, 512);
      const words = new BigUint64Array(a.buffer, a.byteOffset, 512);
      for (let n = 0; n < 512; n++) {
        if (words[n] !== b[n]) {
          return `machine address 0x${(from + 8 * n).toString(16)} was 0x${b[n].toString(16)}, ` +
            `is 0x${words[n].toString(16)}`;
        }
      }
    }
    return undefined;
  }

  /** The last exception, for messages. */
  describe(): string {
    const { cpu } = this.host.machine;
    return `count ${cpu.count}, rip 0x${cpu.get("rip").toString(16)}, cr0 0x${
      cpu.get("cr0").toString(16)
    }, last check ${checkById(cpu.i32[V.check >> 2])?.name}, activity ${
      cpu.i32[CPU.activity >> 2]
    }, last exit ${this.engine?.last?.kind}`;
  }
}

/** The PIC at 20h and 28h, the timer every 120 microseconds: interrupts come at any place. */
function armTimer({ board }: BuiltDomain): void {
  const out: [number, number][] = [
    [0x20, 0x11],
    [0x21, 0x20],
    [0x21, 4],
    [0x21, 1],
    [0xa0, 0x11],
    [0xa1, 0x28],
    [0xa1, 2],
    [0xa1, 1],
    [0x21, 0],
    [0xa1, 0],
    [0x43, 0x34],
    [0x40, 143],
    [0x40, 0],
  ];
  for (const [port, value] of out) board.ioWrite(port, 1, value);
}

/** Pages that are nobody's to write, filled with a pattern. */
function watch(host: Host): { bytes: Uint8Array; at: number[] } {
  const { machine, frames } = host;
  const all = new Uint8Array(machine.memory.buffer), at: number[] = [];
  for (let from = machine.ram.length; from < all.length; from += 4096) at.push(from);
  if (frames) {
    frames.owners.forEach((owner, frame) => {
      if (owner === 0) at.push(frame * 4096);
    });
  }
  for (const from of at) all.fill(CANARY, from, from + 4096);
  // The host's own pages at the bottom keep what they hold.
  if (frames) { for (let frame = 0; frame < 256; frame++) at.push(frame * 4096); }
  const bytes = new Uint8Array(at.length * 4096);
  at.forEach((from, i) => bytes.set(all.subarray(from, from + 4096), i * 4096));
  return { bytes, at };
}
