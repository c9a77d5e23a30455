/**
 * A virtual processor: registers, memory at linear addresses, page tables, disassembly, steps, and
 * why it did what it did last.
 *
 * @module
 */
import { disassemble } from "../machine/isa/disassemble.ts";
import type { Fault } from "../machine/cpu.ts";
import type { Machine } from "../machine/machine.ts";
import { FRAME, FRAME_FLAG } from "../machine/state.ts";
import { HvmEngine } from "../xen/hvm.ts";
import type { GuestDomain } from "./domain.ts";
import { type ByteSource, Memory } from "./views/memory.ts";
import { type PageMap, PageTables } from "./views/page_tables.ts";
import { goneText, mustLive } from "./gone.ts";
import {
  CheckedFile,
  codeBits,
  CpuFile,
  HvmFile,
  linearIp,
  type RegisterFile,
} from "./register_file.ts";
import { type Registers, registersOf, registersText } from "./views/registers.ts";
import { fieldsOf, type Kind } from "./kinds.ts";
import { type Position, Stop } from "./events/stop.ts";
import { text, toAddress, toCount, word } from "./check.ts";
import { bold, dim, grouped, hex, INSPECT, type InspectOptions } from "./values.ts";
import { type PagingContext, type RawWalk, withPaging } from "./walker.ts";
import { type Why, why } from "./views/why.ts";
import type { Address } from "../hvm/fields.ts";

/** One instruction of a disassembly. */
export interface Line {
  /** Linear address. */
  readonly address: bigint;
  /** Its bytes: 1 to 15. */
  readonly bytes: Uint8Array;
  /** Intel syntax, symbols in operands; "(bad)" where there is no instruction. */
  readonly text: string;
}

/** Lines of disassembly; prints as such. */
export class Listing extends Array<Line> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    return this.map((line) => lineText(line, options)).join("\n");
  }
}

function lineText({ address, bytes, text }: Line, options?: InspectOptions): string {
  const code = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");
  return `${hex(address, address > 0xffff_ffffn ? 16 : 8)}:  ${
    dim(code.padEnd(24), options)
  } ${text}`;
}

/** One frame of a backtrace. */
export interface Frame {
  /** Where execution goes on in it. */
  readonly address: bigint;
  /** The symbol, if one is near: "start_kernel+0x12". */
  readonly symbol?: string;
}

/** Frames, the innermost first; prints as a backtrace. */
export class Backtrace extends Array<Frame> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](): string {
    return this.map(({ address, symbol }, i) =>
      `#${i}  ${hex(address, 8)}${symbol ? ` <${symbol}>` : ""}`
    ).join("\n");
  }
}

const SHOWN_EXITS = 20;

/** An exit that was. */
export interface PastExit {
  /** Its kind. */
  readonly kind: string;
  /** Instructions the host had retired. */
  readonly count: number;
  /** What happened, in one line. */
  readonly text: string;
}

/** Exits, the newest last; prints one a line. */
export class ExitHistory extends Array<PastExit> {
  /** @ignore What is made of them is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  /** @ignore */
  [INSPECT](): string {
    const last = this.slice(-SHOWN_EXITS).map(({ count, text }) =>
      `${grouped(count).padStart(15)}  ${text}`
    );
    if (this.length > SHOWN_EXITS) last.unshift(`the last ${SHOWN_EXITS} of ${this.length} exits:`);
    return last.join("\n") || "no exits noted";
  }
}

/**
 * A virtual processor of a domain.
 *
 * @example
 * ```ts
 * import { Hypervisor } from "xvm";
 *
 * await using hv = await Hypervisor.demo();
 * const [vcpu] = hv.domains[0].vcpus;
 * const before = vcpu.regs.rip;
 * await vcpu.step();
 * if (vcpu.regs.rip === before) throw new Error("unexpected");
 * ```
 */
export class GuestVcpu {
  /** Number within the domain. */
  readonly id = 0;
  /** @ignore */
  readonly file: RegisterFile;
  /** The registers; they can be set while the domain is paused, and in actions. */
  readonly regs: Registers;
  /** Bytes at linear addresses, as the vCPU's page tables map them now. */
  readonly memory: Memory;
  /** The guest's page tables, and what nested or shadow paging puts under them. */
  readonly pageTables: PageTables;

  /** @ignore Found in `vcpus` of a domain. */
  constructor(
    /** The domain it belongs to. */
    readonly domain: GuestDomain,
  ) {
    const { host, vcpus: [inner] } = domain.inner, { engine, processor } = inner;
    const file = engine instanceof HvmEngine
      ? new HvmFile(engine.ops, engine.hvm, () => processor.look(inner))
      : new CpuFile(inner.cpu);
    this.file = new CheckedFile(file, () => mustLive(domain.inner, "registers"));
    this.#engine = engine instanceof HvmEngine ? engine : undefined;
    this.regs = registersOf(this.file, (name, value) => {
      host.world.enter("register", domain.id, { name, value });
      if (this.#engine) this.#engine.changed = true;
    });
    const symbols = () => domain.symbols;
    this.pageTables = new PageTables(() => this.#paging(), symbols);
    this.memory = new Memory(new LinearSource(this, () => this.#paging()), symbols);
  }
  readonly #engine: HvmEngine | undefined;

  /** "debian, vCPU 0". */
  get name(): string {
    return `${this.domain.name}, vCPU ${this.id}`;
  }
  /** Where in the host's run it is. */
  get position(): Position {
    const { cpu } = this.domain.inner.vcpus[0];
    return { count: cpu.count, time: cpu.now };
  }
  /** Width of the code it runs: 16, 32 or 64. */
  get bits(): 16 | 32 | 64 {
    return codeBits(this.file);
  }

  #paging(): PagingContext {
    mustLive(this.domain.inner, "page tables");
    const { cpu } = this.domain.inner.vcpus[0];
    if (!this.#engine) cpu.system.refresh();
    if (!this.#engine) return { cpu, file: this.file };
    const { p2m: { root, format }, shadow } = this.#engine;
    // Looking at registers brings the vCPU onto its processor.
    if (shadow) this.file.get("cr3");
    return { cpu, file: this.file, nested: { root, format }, shadow: shadow?.walked };
  }

  /** The vendor's record, VMCS or VMCB, every field by its name; null on the bare processor. */
  get raw(): Record<string, bigint> | null {
    mustLive(this.domain.inner, "raw");
    if (!this.#engine) return null;
    const fields = this.#engine.ops.dump(this.#engine.hvm);
    const result: Record<string, bigint> = {};
    for (const { name, value } of fields) result[name] = value;
    const width = Math.max(...fields.map((f) => f.name.length));
    return Object.defineProperty(result, INSPECT, {
      value: () =>
        fields.map((f) =>
          `${f.name.padEnd(width)}  ${hex(f.value, f.bits / 4)}${
            f.set?.length ? `  ${f.set.join(" ")}` : ""
          }`
        ).join("\n"),
    });
  }
  /**
   * Sets a field of the vendor's record. Nothing checks it before the next VM entry does.
   *
   * @param name as `raw` has it
   * @param value unsigned, up to 64 bits
   * @throws {RangeError} if there is no field of that name
   * @throws {Error} on the bare processor
   */
  setRaw(name: string, value: bigint): void {
    mustLive(this.domain.inner, "setRaw");
    if (!this.#engine) throw new Error("the bare processor has no VMCS or VMCB");
    text(name, "setRaw name");
    word(64)(value, `setRaw ${name}`);
    this.domain.inner.host.world.enter("raw", this.domain.id, { name, value });
    this.#engine.ops.writeRaw(this.#engine.hvm, name, value);
  }

  /** @ignore Bytes of code at a linear address, as many as can be read. */
  codeBytes(address: bigint, length: number): Uint8Array {
    const inPage = 4096 - Number(address & 0xfffn);
    try {
      return this.memory.read(address, length);
    } catch (error) {
      if (inPage >= length) throw error;
      return this.memory.read(address, inPage);
    }
  }

  /**
   * Disassembles `count` instructions (10 if not given) from a linear address; from the next
   * instruction if none is given.
   *
   * @param address a linear address or a symbol's name
   * @param count 1 to 100,000
   * @returns fewer lines, where memory ends
   * @throws {RangeError} if the first address is not mapped
   */
  disassemble(address?: Address, count = 10): Listing {
    const { domain, bits, file } = this;
    let at = address === undefined
      ? linearIp(file)
      : toAddress(address, "linear address", domain.symbols);
    const symbols = (a: bigint) => domain.symbols?.format(a);
    const lines = new Listing();
    // Branch targets are offsets in the code segment.
    const base = bits === 64 ? 0n : file.segment("cs").base;
    const { decodeAs } = domain.inner.host.machine.cpu;
    for (let n = toCount(count, "count", 1, 100_000); n > 0; n--) {
      let bytes: Uint8Array;
      try {
        bytes = this.codeBytes(at, 15);
      } catch (error) {
        if (lines.length === 0) throw error;
        break;
      }
      const d = disassemble(bytes, 0, bits, at - base, symbols, decodeAs);
      lines.push({ address: at, bytes: d.bytes.slice(), text: d.text });
      at = BigInt.asUintN(bits === 64 ? 64 : 32, at + BigInt(d.length));
    }
    return lines;
  }

  /**
   * The calls that led here, by saved frame pointers, the innermost first. It ends where a frame
   * pointer leads to no memory, or downwards.
   *
   * @param limit the most frames
   */
  backtrace(limit = 32): Backtrace {
    toCount(limit, "limit");
    const { domain, regs, bits } = this;
    const size = bits === 64 ? 8 : bits === 32 ? 4 : 2;
    const frames = new Backtrace();
    const add = (address: bigint) =>
      frames.push({ address, symbol: domain.symbols?.format(address) });
    add(linearIp(this.file));
    let frame = BigInt.asUintN(size * 8, regs.rbp);
    while (frames.length < limit && frame !== 0n) {
      let bytes: DataView;
      try {
        bytes = new DataView(this.memory.read(frame, 2 * size).buffer);
      } catch {
        break;
      }
      const word = (at: number) =>
        size === 8
          ? bytes.getBigUint64(at, true)
          : BigInt(size === 4 ? bytes.getUint32(at, true) : bytes.getUint16(at, true));
      if (word(size) === 0n) break;
      add(word(size));
      // Frames lie upwards on the stack.
      if (word(0) <= frame) break;
      frame = word(0);
    }
    return frames;
  }

  /**
   * Executes `count` instructions (1 if not given) of the paused domain. A step of one ends, too, when
   * an exception or interrupt was delivered: at the first instruction of its handler. A breakpoint
   * ends it sooner.
   *
   * @returns the stop at the end: of kind "step", or what came first
   * @throws {GuestStopped} if the domain ends or is paused first
   * @throws {Error} if it runs
   */
  step(count = 1): Promise<Stop> {
    return this.domain.debugger_.step(count);
  }
  /**
   * Executes one instruction; a call, a software interrupt or a repeated one as a whole.
   *
   * @throws {GuestStopped} as {@linkcode GuestVcpu.step}
   */
  stepOver(): Promise<Stop> {
    return this.domain.debugger_.stepOver();
  }
  /**
   * Runs until a return instruction has taken away the present frame.
   *
   * @throws {GuestStopped} as {@linkcode GuestVcpu.step}
   */
  stepOut(): Promise<Stop> {
    return this.domain.debugger_.stepOut();
  }
  /**
   * Runs to the next exit, of whatever kind.
   *
   * @throws {GuestStopped} if the domain ends, is paused, or stops elsewhere first
   * @throws {Error} on the bare processor, which nothing leaves
   */
  stepExit(): Promise<Stop> {
    return this.domain.until("any") as Promise<Stop>;
  }

  /** Why the last fault, exit or failed entry happened: the check, its operands, its place in the manual. */
  why(): Why {
    mustLive(this.domain.inner, "why");
    return why(this);
  }
  /** The last exits, the newest last. They are noted only while something is being observed. */
  get history(): ExitHistory {
    const { domain } = this;
    return ExitHistory.from(domain.debugger_.monitor.recent, ({ exit, count }) => ({
      kind: exit.kind,
      count,
      text: new Stop(exit.kind as Kind, this, fieldsOf(exit), exit).describe(),
    })) as ExitHistory;
  }
  /** @ignore */
  get lastExit(): HvmEngine["last"] {
    return this.#engine?.last;
  }
  /** @ignore The last exception it was given; its count is that from now, 0 or below. */
  get lastFault(): Fault | undefined {
    if (this.#engine) return this.#engine.lastFault;
    const { lastFault, count } = this.domain.inner.vcpus[0].cpu;
    return lastFault && { ...lastFault, count: lastFault.count - count };
  }

  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const gone = goneText(this.domain.inner);
    if (gone !== undefined) return `vCPU ${this.id}: ${gone}`;
    let next = "";
    try {
      const [line] = this.disassemble(undefined, 1);
      next = `=> ${lineText(line, options)}`;
    } catch (error) {
      next = `=> ${(error as Error).message}`;
    }
    return [
      bold(`${this.name}, ${this.domain.state}`, options),
      registersText(this.file, options),
      next,
    ]
      .join("\n");
  }
}

/** Whether a device answers at a machine address below the end of memory. */
function isDevice({ frameTable }: Machine, address: number): boolean {
  return (frameTable[(address >>> 12) * (FRAME.size / 4)] & FRAME_FLAG.mmio) !== 0;
}

function unreadable(address: bigint, { machine, failure }: RawWalk): RangeError {
  return new RangeError(
    machine === undefined
      ? `linear address ${hex(address)} cannot be read: ${failure?.text ?? "not mapped"}`
      : `linear address ${hex(address)} leads to ${hex(machine)}, where a device answers and no ` +
        `memory; a look might change it`,
  );
}

/** Linear addresses of a vCPU, through its page tables. */
class LinearSource implements ByteSource {
  readonly kind = "linear";
  get gone(): string | undefined {
    return goneText(this.vcpu.domain.inner);
  }
  #map: { readonly count: number; readonly map: PageMap } | undefined;
  constructor(private readonly vcpu: GuestVcpu, private readonly paging: () => PagingContext) {}

  /** Machine addresses of linear pages, from the first on, as many as are memory. */
  #machine(address: bigint, pages: number): number[] {
    const { cpu } = this.vcpu.domain.inner.vcpus[0];
    return withPaging(this.paging(), (walker) => {
      const found: number[] = [];
      for (let n = 0; n < pages; n++) {
        const page = n === 0 ? address : (address & ~0xfffn) + BigInt(n * 4096);
        const walk = walker.walk(BigInt.asUintN(64, page));
        const { machine } = walk;
        const memory = machine !== undefined && machine < cpu.machine.size &&
          !isDevice(cpu.machine, machine);
        if (memory) found.push(machine);
        else if (n > 0) break;
        else throw unreadable(address, walk);
      }
      return found;
    });
  }
  read(address: bigint, length: number): Uint8Array {
    const { ram } = this.vcpu.domain.inner.host.machine;
    const inPage = Number(address & 0xfffn);
    const pages = this.#machine(BigInt.asUintN(64, address), Math.ceil((inPage + length) / 4096));
    const bytes = new Uint8Array(Math.min(length, pages.length * 4096 - inPage));
    let done = 0;
    for (const at of pages) {
      const n = Math.min(bytes.length - done, 4096 - at % 4096);
      bytes.set(ram.subarray(at, at + n), done);
      done += n;
    }
    return bytes;
  }
  write(address: bigint, bytes: Uint8Array): void {
    const { host, id } = this.vcpu.domain.inner;
    host.world.enter("write", id, { linear: address, bytes });
    const inPage = Number(address & 0xfffn);
    const count = Math.ceil((inPage + bytes.length) / 4096);
    let done = 0;
    for (const at of this.#machine(BigInt.asUintN(64, address), count)) {
      const n = Math.min(bytes.length - done, 4096 - at % 4096);
      host.machine.write(at, bytes.subarray(done, done + n));
      done += n;
    }
  }
  next(address: bigint, limit: bigint): bigint | undefined {
    // One search asks often: the map is made once for as long as the guest stands still.
    const { count } = this.vcpu.position;
    if (this.#map?.count !== count) this.#map = { count, map: this.vcpu.pageTables.map() };
    const { ranges } = this.#map.map;
    const page = (address & ~0xfffn) + 4096n;
    // Within a range only this page is none of ours: a device's.
    if (ranges.some((r) => r.from <= page && page < r.to)) return page < limit ? page : undefined;
    const next = ranges.find((r) => r.from > address);
    return next && next.from < limit ? next.from : undefined;
  }
}
