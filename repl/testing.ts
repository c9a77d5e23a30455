/**
 * A host for tests of the shell: two domains whose one instruction is NOP, and a log of what was asked.
 *
 * @module
 */
import type {
  Address,
  BreakAction,
  BreakpointView,
  DomainView,
  Filter,
  HypervisorView,
  Line,
  MemoryView,
  StopView,
  VcpuView,
} from "./context.ts";

/** Memory that holds the low byte of each address, and texts written to it. */
export class FakeMemory implements MemoryView {
  readonly written: Map<number, number> = new Map();

  read(address: Address, length: number): Uint8Array {
    const start = Number(address);
    return Uint8Array.from({ length }, (_, i) => this.written.get(start + i) ?? (start + i) & 0xff);
  }

  write(address: Address, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => this.written.set(Number(address) + i, byte));
  }
}

/** A vCPU that does nothing, one byte at a time. */
export class FakeVcpu implements VcpuView {
  readonly id = 0;
  readonly regs: Record<string, bigint> = {
    rip: 0xc0100000n,
    rax: 1n,
    rsp: 0x2000n,
    rbp: 0n,
    cr3: 0x5000n,
  };
  readonly memory: FakeMemory = new FakeMemory();
  readonly raw: unknown = {
    [Symbol.for("Deno.customInspect")]: () => "exitReason         0x1c\nexitQualification  0x3",
  };
  bits: 16 | 32 | 64 = 32;
  readonly pageTables = {
    walk: (address: Address) => ({ walked: address }),
    map: () => ({ mapped: "all" }),
  };

  disassemble(address: Address = this.regs.rip, count = 1): Line[] {
    return Array.from({ length: count }, (_, i) => ({
      address: BigInt(address) + BigInt(i),
      bytes: new Uint8Array([0x90]),
      text: "nop",
    }));
  }

  step(count = 1): Promise<StopView> {
    this.regs.rip += BigInt(count);
    return Promise.resolve({ kind: "step", vcpu: this });
  }

  stepOver(): Promise<StopView> {
    return this.step();
  }

  stepOut(): Promise<StopView> {
    return this.step(100);
  }

  why(): string {
    return "#GP(0x10): MOV DS, descriptor DPL 0 < CPL 3";
  }
}

/** A domain that notes what is asked of it. */
export class FakeDomain implements DomainView {
  readonly cpuid = { text: () => "leaf", edit: (text: string) => void this.edits.push(text) };
  readonly edits: string[] = [];
  readonly id: number;
  readonly name: string;
  readonly vcpus: readonly FakeVcpu[] = [new FakeVcpu()];
  readonly memory: FakeMemory = new FakeMemory();
  readonly exits: unknown = { cr: 3, io: 5 };
  readonly log: string[] = [];
  readonly #breakpoints = new Map<number, BreakpointView>();
  readonly #listeners = new Set<(text: string) => void>();
  state = "paused";
  readonly symbols = {
    address: (name: string) => ({ start_kernel: 0xc0100000n, jiffies: 0xc0300000n })[name],
    nearest: (address: bigint) =>
      address >= 0xc0100000n && address < 0xc0100100n
        ? { name: "start_kernel", offset: address - 0xc0100000n }
        : undefined,
  };
  readonly console = {
    text: "",
    write: (text: string | Uint8Array) => this.output(String(text).toUpperCase()),
    onOutput: (listener: (text: string) => void) => {
      this.#listeners.add(listener);
      return () => void this.#listeners.delete(listener);
    },
  };

  constructor(id: number, name: string) {
    this.id = id;
    this.name = name;
  }

  get breakpoints(): Iterable<BreakpointView> {
    return this.#breakpoints.values();
  }

  output(text: string): void {
    for (const listener of this.#listeners) listener(text);
  }

  break(kind: string, filter: Filter, action?: BreakAction<StopView>): BreakpointView {
    const condition = typeof action === "object" ? action.condition : undefined;
    this.log.push(`break ${kind} ${Deno.inspect(filter)}${condition ? " if" : ""}`);
    const id = this.#breakpoints.size + 1;
    const made = {
      id,
      kind,
      filter,
      condition,
      hits: 0,
      delete: () => void this.#breakpoints.delete(id),
    };
    this.#breakpoints.set(id, made);
    return made;
  }

  until(kind: string, filter: Filter): Promise<StopView> {
    this.log.push(`until ${kind} ${Deno.inspect(filter)}`);
    return Promise.resolve({ kind, vcpu: this.vcpus[0] });
  }

  trace(kind: string, filter: Filter, action: BreakAction<unknown>): BreakpointView {
    (typeof action === "function" ? action : action.action)?.({ kind });
    return this.break(kind, filter);
  }

  continue(): Promise<StopView | null> {
    this.state = "running";
    return new Promise(() => {});
  }

  pause(): void {
    this.state = "paused";
  }

  unpause(): void {
    this.state = "running";
  }

  destroy(): void {}
}

/** A host with the domains "first" and "second". */
export class FakeHost implements HypervisorView {
  readonly domains: FakeDomain[] = [new FakeDomain(1, "first"), new FakeDomain(2, "second")];

  diff(a: Uint8Array, b?: Uint8Array): string {
    return `${a.length} bytes, ${b ? `${b.length} bytes` : "now"}`;
  }
}
