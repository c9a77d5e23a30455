/**
 * The host's own CPU as an oracle: runs single instructions of 16-, 32- and 64-bit user-mode code
 * on the real processor and returns what they did, at more than 100,000 a second.
 *
 * How: `stub.ts`. Two batches can be under way, so that the caller compares one while the processor
 * runs the next. Needs x86-64 Linux with FSGSBASE (kernel 5.9) and memory mappings at 0x8000.
 */
import {
  addressOf,
  background,
  type Case,
  codeBase,
  type CpuState,
  DS,
  emptyState,
  ES,
  FS,
  FX,
  GS,
  LDT,
  type Mode,
  type Result,
  type Window,
  windowAt,
  WINDOWS,
  type Word,
} from "./state.ts";
import { AT, dataAddress, FD, GREGS, HANDLER, IN, OUT, SIGNAL_STACK_SIZE } from "./stub.ts";
import { stubElf, type SystemCall } from "./stub.ts";
import { checked, cString, type Libc, mapShared, memoryFile, openLibc, writeAll } from "./libc.ts";

/** Cases in a batch at most. */
export const BATCH = 128;

const SLOTS = 2;
const RECORDS = AT.records - AT.arena;
const ARENA_SIZE = RECORDS + SLOTS * BATCH * (IN.size + OUT.size);

const TF = 0x100, RF = 0x10000;

/** Byte offsets of the general registers in struct sigcontext, by register number. */
const GPR_OFFSETS = [
  GREGS.rax,
  GREGS.rcx,
  GREGS.rdx,
  GREGS.rbx,
  GREGS.rsp,
  GREGS.rbp,
  GREGS.rsi,
  GREGS.rdi,
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((n) => GREGS.r8 + 8 * n),
];

/** Whose processor the host has, as far as the machine has a model for it. */
export type HostVendor = "intel" | "amd";

/** CPUID's vendor strings. Hygon's processors are AMD's first Zen. */
const VENDORS: Record<string, HostVendor> = {
  GenuineIntel: "intel",
  AuthenticAMD: "amd",
  HygonGenuine: "amd",
};

/** Why the oracle cannot run here, or undefined if it can. */
export function unavailable(): string | undefined {
  try {
    Oracle.open().close();
  } catch (error) {
    return `host-CPU oracle: ${(error as Error).message}`;
  }
}

/**
 * One process that runs cases. Not reentrant; close it when done.
 *
 * @example
 * ```ts ignore
 * using oracle = Oracle.open();
 * const state = emptyState(32);
 * state.gpr[0] = 0x7fff_ffffn;
 * oracle.run({ mode: 32, state, bytes: Uint8Array.of(0x40), patches: [] }).state.rflags; // OF, SF, AF, PF
 * ```
 */
export class Oracle {
  /** Whose processor runs the cases. */
  readonly vendor: HostVendor;
  readonly #libc: Libc;
  readonly #pid: number;
  readonly #commands: number;
  readonly #reports: number;
  readonly #pointer: Deno.PointerObject;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #pending: { slot: number; cases: readonly Case[] }[] = [];
  #slot = 0;
  #open = true;

  private constructor(libc: Libc) {
    this.#libc = libc;
    const arena = memoryFile(libc, "oracle-arena", ARENA_SIZE);
    const elf = memoryFile(libc, "oracle-stub", 0);
    const { pointer, buffer } = mapShared(libc, arena, ARENA_SIZE);
    this.#pointer = pointer;
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    for (const at of [AT.ground, AT.background]) this.#bytes.set(background(), at - AT.arena);
    for (let n = 0; n < SLOTS * BATCH; n++) this.#prepareRecord(RECORDS + n * IN.size);
    writeAll(libc, elf, stubElf(...setup()));
    const commands = pipe(libc), reports = pipe(libc);
    this.#pid = spawn(libc, elf, [
      [commands[0], FD.commands],
      [reports[1], FD.reports],
      [arena, FD.arena],
    ]);
    for (const fd of [arena, elf, commands[0], reports[1]]) libc.symbols.close(fd);
    this.#commands = commands[1];
    this.#reports = reports[0];
    this.#report(); // the stub is ready
    this.vendor = this.#whose();
  }

  /** Starts the process. Throws an error that says what this machine lacks. */
  static open(): Oracle {
    const flags = cpuFlags();
    if (!flags.has("fsgsbase")) throw new Error("the processor or kernel lacks fsgsbase");
    return new Oracle(openLibc());
  }

  /** CPUID as it answers a program here. */
  cpuid(leaf: number, subleaf = 0): { eax: number; ebx: number; ecx: number; edx: number } {
    const { state } = this.#plain([0x0f, 0xa2], { 0: leaf, 1: subleaf });
    const [eax, ecx, edx, ebx] = [...state.gpr.subarray(0, 4)].map(Number);
    return { eax, ebx, ecx, edx };
  }

  /**
   * CPUID's vendor, if the processor acts like it: a virtual machine may show another one than runs
   * it. AMD's cut RIP to 16 bits at a near branch with 66 in 64-bit mode, Intel's ignore the prefix
   * (APM 3 JMP (Near); SDM 2 JMP).
   */
  #whose(): HostVendor {
    const { ebx, edx, ecx } = this.cpuid(0);
    const name = new TextDecoder().decode(new Int32Array([ebx, edx, ecx]));
    const vendor = VENDORS[name];
    const cuts = this.#plain([0x66, 0xeb, 0]).state.rip === 3n;
    if (vendor && cuts === (vendor === "amd")) return vendor;
    this.close();
    throw new Error(
      vendor
        ? `CPUID says ${name}, but near branches are not as ${vendor}'s`
        : `the processor is "${name}", expected one of ${Object.keys(VENDORS).join(", ")}`,
    );
  }

  /** An instruction of 64-bit code in a state of zeros but for the registers given. */
  #plain(bytes: number[], gpr: Record<number, number> = {}): Result {
    const state = emptyState(64);
    for (const [n, value] of Object.entries(gpr)) state.gpr[Number(n)] = BigInt(value);
    return this.run({ mode: 64, state, bytes: Uint8Array.from(bytes), patches: [] });
  }

  /** Runs one case. */
  run(test: Case): Result {
    return this.runBatch([test])[0];
  }

  /** Runs cases in order; as many as you like. */
  runBatch(cases: readonly Case[]): Result[] {
    const results: Result[] = [];
    for (let i = 0; i < cases.length; i += BATCH) {
      if (this.#pending.length === SLOTS) results.push(...this.collect());
      this.submit(cases.slice(i, i + BATCH));
    }
    while (this.#pending.length) results.push(...this.collect());
    return results;
  }

  /** Starts a batch of at most {@linkcode BATCH} cases; two can be under way. */
  submit(cases: readonly Case[]): void {
    if (cases.length < 1 || cases.length > BATCH) {
      throw new RangeError(`a batch of ${cases.length} cases, expected 1 to ${BATCH}`);
    }
    if (this.#pending.length >= SLOTS) throw new Error("two batches are under way: collect first");
    const slot = this.#slot;
    this.#slot = (slot + 1) % SLOTS;
    cases.forEach((test, n) => this.#writeCase(inputOf(slot, n), test));
    const command = new BigUint64Array([
      BigInt(AT.arena + inputOf(slot, 0)),
      BigInt(AT.arena + outputOf(slot, 0)),
      BigInt(cases.length),
    ]);
    writeAll(this.#libc, this.#commands, new Uint8Array(command.buffer));
    this.#pending.push({ slot, cases });
  }

  /** Results of the oldest batch under way, in the order of its cases. */
  collect(): Result[] {
    const batch = this.#pending.shift();
    if (!batch) throw new Error("no batch is under way");
    this.#report();
    return batch.cases.map((test, n) => this.#readResult(outputOf(batch.slot, n), test));
  }

  /** Ends the process. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#libc.symbols.close(this.#commands);
    this.#libc.symbols.close(this.#reports);
    this.#libc.symbols.kill(this.#pid, 9);
    this.#libc.symbols.waitpid(this.#pid, new Uint8Array(4), 0);
    this.#libc.symbols.munmap(this.#pointer, BigInt(ARENA_SIZE));
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Waits for the stub's report; explains its death. */
  #report(): void {
    const { symbols } = this.#libc;
    const request = new DataView(new ArrayBuffer(8));
    request.setInt32(0, this.#reports, true);
    request.setInt16(4, 1, true);
    const ready = symbols.poll(new Uint8Array(request.buffer), 1n, 120_000);
    const buffer = new Uint8Array(24);
    if (ready > 0 && Number(symbols.read(this.#reports, buffer, 24n)) === 24) return;
    const status = new Int32Array(1);
    if (ready <= 0) symbols.kill(this.#pid, 9);
    symbols.waitpid(this.#pid, new Uint8Array(status.buffer), 0);
    throw new Error(this.#obituary(status[0], ready <= 0));
  }

  #obituary(status: number, timeout: boolean): string {
    const exit = (status >> 8) & 0xff, signal = status & 0x7f;
    if (timeout) return `the process did not answer within 120 s, case ${this.#current()}`;
    if (signal) return `the process died of signal ${signal}, case ${this.#current()}`;
    return `the process's system call for "${STEPS[exit] ?? exit}" was refused`;
  }

  /** The case that the stub was running, for messages. */
  #current(): string {
    const address = Number(this.#view.getBigUint64(0, true)) - AT.arena;
    for (const batch of this.#pending) {
      const n = (address - inputOf(batch.slot, 0)) / IN.size;
      if (batch.cases[n]) return hex(batch.cases[n].bytes);
    }
    return "unknown";
  }

  /** The parts of an input record that never change. */
  #prepareRecord(at: number): void {
    this.#view.setBigUint64(at, 6n, true); // UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
    this.#view.setBigUint64(at + IN.stack, BigInt(AT.signalStack), true);
    this.#view.setBigUint64(at + IN.stack + 16, BigInt(SIGNAL_STACK_SIZE), true);
    this.#view.setBigUint64(at + IN.gregs + GREGS.fpstate, BigInt(AT.arena + at + IN.fx), true);
  }

  #writeCase(at: number, test: Case): void {
    const view = this.#view, { state } = test, regs = at + IN.gregs;
    for (let n = 0; n < 16; n++) view.setBigUint64(regs + GPR_OFFSETS[n], state.gpr[n], true);
    view.setBigUint64(regs + GREGS.rip, state.rip, true);
    view.setBigUint64(regs + GREGS.eflags, BigInt(state.rflags | TF), true);
    view.setUint16(regs + GREGS.cs, state.selectors[1], true);
    view.setUint16(regs + GREGS.ss, state.selectors[2], true);
    [DS, ES, FS, GS].forEach((s, n) =>
      view.setUint16(at + IN.selectors + 8 * n, state.selectors[s], true)
    );
    view.setBigUint64(at + IN.bases, state.fsBase, true);
    view.setBigUint64(at + IN.bases + 8, state.gsBase, true);
    view.setUint32(at + IN.steps, test.steps ?? 1, true);
    this.#bytes.set(state.fx, at + IN.fx);
    view.setUint32(at + IN.fx + 464, 0, true); // no extended state: the kernel's magic absent
    this.#writePatches(at + IN.patches, at + IN.size, test);
  }

  #writePatches(at: number, end: number, test: Case): void {
    const put = (address: number, bytes: Uint8Array, clip: boolean) => {
      const w = windowAt(address);
      if (!w) throw new RangeError(`patch at 0x${address.toString(16)} lies in no window`);
      const length = fit(w, address, bytes, clip);
      if (at + 16 + length > end) throw new RangeError("too many patches for one case");
      this.#view.setUint32(at, address - w.address + w.offset, true);
      this.#view.setUint32(at + 4, length, true);
      for (let i = 0; i < length; i++) this.#bytes[at + 8 + i] = bytes[i];
      at += 8 + ((length + 7) & ~7);
    };
    for (const p of test.patches) put(p.address, p.bytes, false);
    put(codeBase(test.mode) + Number(test.state.rip), test.bytes, true);
    this.#view.setUint32(at + 4, 0, true);
  }

  #readResult(at: number, test: Case): Result {
    const view = this.#view;
    const vector = view.getUint32(at + GREGS.trap, true);
    const done = vector === 1 && view.getUint32(at + OUT.stepsLeft, true) === 0;
    const result: Result = { state: this.#readState(at, test.mode), memory: this.#readWords(at) };
    if (done) {
      undoTrapFlag(test, result);
    } else {
      result.exception = { vector, error: view.getUint32(at + GREGS.error, true) };
      if (vector === 14) result.exception.address = view.getBigUint64(at + GREGS.cr2, true);
      result.state.rflags &= ~TF;
    }
    return result;
  }

  #readState(at: number, mode: Mode): CpuState {
    const view = this.#view, gpr = new BigUint64Array(16);
    for (let n = 0; n < 16; n++) gpr[n] = view.getBigUint64(at + GPR_OFFSETS[n], true);
    const selector = (n: number) => view.getUint16(at + OUT.selectors + 8 * n, true);
    const cs = view.getUint16(at + GREGS.cs, true), ss = view.getUint16(at + GREGS.ss, true);
    const fx = new Uint8Array(FX.size);
    fx.set(this.#bytes.subarray(at + OUT.fx, at + OUT.fx + FX.end));
    // Bytes that the processor does not write, and MXCSR_MASK, which is no state.
    fx.fill(0, FX.mxcsr + 4, FX.st);
    for (let n = 0; n < 8; n++) fx.fill(0, FX.st + n * 16 + 10, FX.st + n * 16 + 16);
    // A 16-bit stack leaves RSP's upper half as Linux's IRET to it had it (espfix); no program sees it.
    if (mode !== 64) gpr[4] = BigInt.asUintN(32, gpr[4]);
    return {
      gpr,
      rip: view.getBigUint64(at + GREGS.rip, true),
      rflags: view.getUint32(at + GREGS.eflags, true) & ~RF,
      selectors: Uint16Array.of(selector(1), cs, ss, selector(0), selector(2), selector(3)),
      fsBase: view.getBigUint64(at + OUT.bases, true),
      gsBase: view.getBigUint64(at + OUT.bases + 8, true),
      fx,
    };
  }

  #readWords(at: number): Word[] {
    const view = this.#view, count = view.getUint32(at + OUT.changes, true);
    if (count > OUT.maxWords) throw new Error(`${count} words changed, expected at most 176`);
    const words: Word[] = [];
    for (let n = 0, p = at + OUT.words; n < count; n++, p += 16) {
      const address = addressOf(view.getUint32(p, true));
      words.push({ address, low: view.getUint32(p + 8, true), high: view.getUint32(p + 12, true) });
    }
    return words.sort((a, b) => a.address - b.address);
  }
}

/**
 * Takes away what TF = 1 did. After one instruction the trap's image has TF set unless the
 * instruction loaded it; PUSHF pushed TF; MOV SS and POP SS put the trap off past the NOP that
 * must follow them in the case (SDM vol 3, 6.8.3).
 */
function undoTrapFlag(test: Case, result: Result): void {
  const { opcode, reg } = bareOpcode(test);
  const loadsFlags = opcode === 0x9d || opcode === 0xcf; // POPF, IRET
  if (!loadsFlags) result.state.rflags &= ~TF;
  if (opcode === 0x17 && test.mode !== 64 || opcode === 0x8e && reg === 2) {
    result.state.rip--;
  }
  if (opcode === 0x9c) clearPushedTrapFlag(test, result);
}

/** The first opcode byte after the legacy and REX prefixes, and ModRM.reg. */
function bareOpcode({ bytes, mode }: Case): { opcode: number; reg: number } {
  const prefixes = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
  let at = 0;
  while (prefixes.includes(bytes[at]) || (mode === 64 && (bytes[at] & 0xf0) === 0x40)) at++;
  return { opcode: bytes[at], reg: (bytes[at + 1] >> 3) & 7 };
}

function clearPushedTrapFlag(test: Case, result: Result): void {
  const base = test.mode === 16 ? LDT.find((s) => s.selector === test.state.selectors[2])?.base : 0;
  const sp = Number(result.state.gpr[4] & (test.mode === 16 ? 0xffffn : 0xffff_ffffn));
  const byte = (base ?? 0) + sp + 1;
  const word = result.memory.find((w) => w.address === byte - (byte % 8));
  if (!word) return;
  const bit = (byte % 8) * 8;
  if (bit < 32) word.low = (word.low & ~(1 << bit)) >>> 0;
  else word.high = (word.high & ~(1 << (bit - 32))) >>> 0;
}

function fit(w: Window, address: number, bytes: Uint8Array, clip: boolean): number {
  const room = w.address + w.size - address;
  if (bytes.length > room && !clip) {
    throw new RangeError(`${bytes.length} bytes at 0x${address.toString(16)}: room for ${room}`);
  }
  return Math.min(bytes.length, room);
}

function inputOf(slot: number, n: number): number {
  return RECORDS + (slot * BATCH + n) * IN.size;
}

function outputOf(slot: number, n: number): number {
  return RECORDS + SLOTS * BATCH * IN.size + (slot * BATCH + n) * OUT.size;
}

/** Bytes as hexadecimal digits with spaces. */
export function hex(bytes: Uint8Array): string {
  return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join(" ");
}

function cpuFlags(): Set<string> {
  if (Deno.build.os !== "linux") throw new Error(`needs Linux, this is ${Deno.build.os}`);
  const line = /^flags\s*:(.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "";
  return new Set(line.trim().split(/\s+/));
}

function pipe(libc: Libc): [number, number] {
  const fds = new Int32Array(2);
  checked(libc, "pipe2", libc.symbols.pipe2(new Uint8Array(fds.buffer), 0o2000000));
  return [fds[0], fds[1]];
}

/** Starts the ELF in a memory file, with descriptors moved to the numbers it expects. */
function spawn(libc: Libc, elf: number, fds: [from: number, to: number][]): number {
  const { symbols } = libc;
  const actions = new Uint8Array(256), pid = new Int32Array(1);
  const path = cString(`/proc/self/fd/${elf}`), nothing = new BigUint64Array(1);
  const argv = new BigUint64Array([Deno.UnsafePointer.value(Deno.UnsafePointer.of(path)), 0n]);
  symbols.posix_spawn_file_actions_init(actions);
  for (const [from, to] of fds) symbols.posix_spawn_file_actions_adddup2(actions, from, to);
  const failed = symbols.posix_spawn(
    new Uint8Array(pid.buffer),
    path,
    actions,
    null,
    new Uint8Array(argv.buffer),
    new Uint8Array(nothing.buffer),
  );
  symbols.posix_spawn_file_actions_destroy(actions);
  if (failed) throw new Error(`posix_spawn failed with errno ${failed}`);
  return pid[0];
}

/** What the stub sets up, by the exit status that tells of its refusal. */
const STEPS: Record<number, string> = {
  1: "map the arena",
  2: "map a window below 4 GB",
  3: "install the signal stack",
  4: "install a signal handler",
  5: "modify_ldt",
  6: "die with the parent",
};

/** The stub's system calls, and the structures they point to. */
function setup(): [SystemCall[], Uint8Array] {
  const data: number[] = [];
  const signals = [4, 5, 7, 8, 11]; // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV
  const base = dataAddress(2 + WINDOWS.length + 1 + signals.length + LDT.length);
  const put = (...words: bigint[]) => {
    const at = base + data.length;
    data.push(...new Uint8Array(new BigUint64Array(words).buffer));
    return at;
  };
  const calls: SystemCall[] = [
    { args: [157, 1, 9], required: 6 }, // prctl(PR_SET_PDEATHSIG, SIGKILL)
    { args: [9, AT.arena, ARENA_SIZE, 3, 0x8011, FD.arena, 0], required: 1 },
  ];
  for (const w of WINDOWS) {
    const access = { r: 1, rw: 3, rx: 5 }[w.access];
    const offset = AT.ground - AT.arena + w.offset;
    calls.push({ args: [9, w.address, w.size, access, 0x8011, FD.arena, offset], required: 2 });
  }
  const stack = put(BigInt(AT.signalStack), 0n, BigInt(SIGNAL_STACK_SIZE));
  calls.push({ args: [131, stack, 0], required: 3 });
  // SA_SIGINFO | SA_ONSTACK | SA_RESTORER; the restorer is never reached.
  const action = put(BigInt(AT.stub + 0x1000 + HANDLER), 0x0c00_0004n, 0n, 0n);
  for (const s of signals) calls.push({ args: [13, s, action, 0, 8], required: 4 });
  for (const s of LDT) {
    const flags = Number(s.big) | (s.kind << 1) | (Number(!s.writable) << 3) |
      (Number(!s.present) << 5);
    const entry = BigInt(s.selector >> 3) | (BigInt(s.base) << 32n);
    const at = put(entry, BigInt(s.limit) | (BigInt(flags) << 32n));
    calls.push({ args: [154, 0x11, at, 16], required: 5 });
  }
  return [calls, Uint8Array.from(data)];
}
