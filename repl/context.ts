/**
 * What the shell's commands need of a hypervisor, and of the session they run in. The objects of
 * mod.ts fit these interfaces; commands know nothing else of them.
 *
 * @module
 */

/** An address as the API takes it: a bigint, a safe integer or a symbol's name. */
export type Address = bigint | number | string;

/** Bytes at addresses: linear through a vCPU, guest-physical through a domain. */
export interface MemoryView {
  read(address: Address, length: number): Uint8Array;
  write(address: Address, bytes: Uint8Array): void;
}

/** One instruction as the disassembler gives it. */
export interface Line {
  address: bigint;
  bytes: Uint8Array;
  /** Intel syntax, symbols in operands. */
  text: string;
}

/** Why a vCPU stopped. */
export interface StopView {
  kind: string;
  vcpu: VcpuView;
}

/** Registers by name; they can be set while the vCPU is paused. */
export type RegistersView = Record<string, bigint> & {
  segments?: { cs?: { base: bigint } };
};

/** What a domain's other vCPUs do during a step. */
export interface StepHow {
  readonly others?: "run" | "stand";
}

/** A vCPU as commands use it. */
export interface VcpuView {
  id: number;
  /** The domain it belongs to. */
  readonly domain?: DomainView;
  regs: RegistersView;
  memory: MemoryView;
  pageTables: { walk(address: Address): unknown; map(): unknown };
  /** The vendor's own record: VMCS or VMCB, every field by its name. */
  raw: unknown;
  /** What it does, or did when its domain came to stand. */
  readonly runstate?: string;
  /** Where it stands, in words. */
  readonly place?: string;
  /** Width of the code it runs. */
  bits: 16 | 32 | 64;
  disassemble(address?: Address, count?: number): Line[];
  step(count?: number, how?: StepHow): Promise<StopView>;
  stepOver(how?: StepHow): Promise<StopView>;
  stepOut(how?: StepHow): Promise<StopView>;
  why(): unknown;
}

/** A breakpoint that stays. */
export interface BreakpointView {
  id: number;
  kind: string;
  filter: Record<string, unknown>;
  /** What else has to hold, as it is shown. */
  condition?: string;
  enabled?: boolean;
  hits: number;
  /** It prints, and never stops. */
  traces?: boolean;
  delete(): void;
}

/** Names of addresses, from System.map or ELF. */
export interface SymbolsView {
  address(name: string): bigint | undefined;
  nearest(address: bigint): { name: string; offset: bigint } | undefined;
  /** Names that begin so, at most `limit`. */
  complete?(start: string, limit: number): string[];
}

/** A filter as an object, and a predicate. */
export type Filter = Record<string, unknown>;

/** CPUID as commands use it. */
export interface CpuidView {
  text(leaf?: string): string;
  edit(changes: string): void;
}

/** What is done at a match: a function, or more about it. */
export type BreakAction<E> =
  | ((event: E) => unknown)
  | {
    condition?: string;
    predicate?: (event: unknown) => boolean;
    action?: (event: E) => unknown;
  };

/** A domain as commands use it. */
export interface DomainView {
  cpuid: CpuidView;
  id: number;
  name: string;
  /** "running", "paused", or how it ended. */
  state: string;
  /** It waits for an interrupt. */
  blocked?: boolean;
  /** Share of the processor, 1 to 65535; most of it in percent, 0: no cap; what it has had, 0 to 1. */
  weight?: number;
  cap?: number;
  cpuShare?: number;
  statistics?(): { instructions: number | bigint };
  vcpus: readonly VcpuView[];
  memory: MemoryView & { readonly size?: number };
  /** Undefined where no symbols were given. */
  symbols: SymbolsView | undefined;
  breakpoints: Iterable<BreakpointView>;
  exits: unknown;
  /** Hypercalls, counted. */
  hypercalls?: unknown;
  /** Of a domain that knows Xen. */
  eventChannels?: unknown;
  grants?: unknown;
  /** Where it stands, if it stands at a stop. */
  stop?: StopView;
  /** Calls `listener` each time it has come to stand still; the result ends that. */
  onStop?(listener: (stop: StopView | null) => void): () => void;
  /** Devices in scripts: their answers that came too late, in words. */
  ioreq?: {
    readonly dropped: readonly string[];
    onDropped(listener: (text: string) => void): () => void;
  };
  console: {
    /** All output so far. */
    readonly text: string;
    write(text: string | Uint8Array): void;
    onOutput(listener: (text: string) => void, how?: { readonly passive?: boolean }): () => void;
  };
  break(
    kind: string,
    filter: Filter,
    action?: BreakAction<StopView>,
  ): BreakpointView;
  until(
    kind: string,
    filter: Filter,
    predicate?: (stop: unknown) => boolean,
  ): Promise<StopView>;
  trace(kind: string, filter: Filter, action: BreakAction<unknown>): BreakpointView;
  /** Runs until something stops it: a breakpoint, its own end, ctrl-C (then null). */
  continue(): Promise<StopView | null>;
  pause(): Promise<void> | void;
  unpause(): Promise<void> | void;
  destroy(): Promise<void> | void;
}

/** The host as commands use it. */
export interface HypervisorView {
  readonly xenstore?: unknown;
  domains: Iterable<DomainView>;
  /** What differs between saved states, or one and the present state. */
  diff(a: Uint8Array, b?: Uint8Array): unknown;
  /** The last turns of vCPUs. */
  schedule?(which: Filter): unknown;
  /** Whether idle guests follow the clock on the wall. */
  interactive?: boolean;
  closed?: boolean;
}

/** A command was used wrongly, or cannot be done now: printed without a stack. */
export class CommandError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "CommandError";
  }
}

/** The session a command runs in. */
export interface Context {
  readonly colors: boolean;
  readonly columns: number;
  /** What commands remember between runs, by their own keys: where `x` goes on, say. */
  readonly memory: Map<string, unknown>;
  /** The host, or null before one was started. */
  hypervisor(): HypervisorView | null;
  /** The domain commands act on; throws {@linkcode CommandError} when there is none. */
  domain(): DomainView;
  /** The vCPU commands act on. */
  vcpu(): VcpuView;
  /** Makes a domain, and one of its vCPUs, the current one; the one it had last if none is named. */
  select(domain: DomainView, vcpu?: number): void;
  /** The value of an expression of the prompt's language; throws what it throws. */
  evaluate(expression: string): Promise<unknown>;
  print(text: string): void;
  /** A value as the prompt shows it. */
  show(value: unknown): string;
  /** Inputs of this session, oldest first; commands whose names have a dot are left out. */
  readonly inputs: readonly string[];
  /** Runs a script's text as if it had been typed; false when it failed, which it has said. */
  runScript(text: string, file: string): Promise<boolean>;
  /** Gives the terminal to the domain's console until ctrl-]. */
  attach(domain: DomainView): Promise<void>;
  /** Calls `listener` at ctrl-C; the result ends that. */
  onInterrupt(listener: () => void): () => void;
  /** Ends the session. */
  exit(code?: number): void;
}
