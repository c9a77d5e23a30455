/**
 * QEMU (TCG) as an oracle for what user mode cannot show: privileged instructions, mode switches,
 * segment loads, gates and faults in 16- and 32-bit code. A small client of its gdb stub steps a
 * flat image and reads the whole state after each instruction, hidden parts of segments included.
 *
 * QEMU is not always right; its known errors are in {@linkcode QEMU_ERRORS}. Needs
 * `qemu-system-i386` (or -x86_64) on PATH. The processor is stepped with interrupts and timers off.
 */

/** Where QEMU 7.2 is known to differ from the manual; no reference there. */
export const QEMU_ERRORS: readonly string[] = [
  "error codes of #GP for IDT entries in long mode are vector*16+2, not vector*8+2",
  "test386 stops at POST 0x20",
  "segment limits are not checked on data accesses (TCG has no limit checks outside far transfers)",
  "alignment checks (#AC) are not made",
  "x87 FIP, FDP, FOP are not kept",
];

/** A segment register with its hidden part, as `info registers` prints it. */
export interface QemuSegment {
  selector: number;
  base: number;
  /** All 64 bits of it. */
  wideBase: bigint;
  limit: number;
  /** The descriptor's upper word with base and limit bits cleared (access rights in bits 8 to 23). */
  flags: number;
}

/** State of the processor; keys in lower case. */
export interface QemuState {
  /** eax, ecx, ..., edi, eip, eflags (or rax, ...), cr0 to cr4, dr0 to dr7, efer. */
  registers: Record<string, bigint>;
  /** es, cs, ss, ds, fs, gs, ldt, tr. */
  segments: Record<string, QemuSegment>;
  gdt: { base: number; wideBase: bigint; limit: number };
  idt: { base: number; wideBase: bigint; limit: number };
  cpl: number;
  halted: boolean;
}

/** How to start it. */
export interface QemuOptions {
  /** Default "isapc". */
  machine?: "isapc" | "pc";
  /** QEMU's -cpu; default "pentium2". */
  cpu?: string;
  /** MB; default 16. */
  memory?: number;
  /** 64-bit registers: starts qemu-system-x86_64; default false. */
  long?: boolean;
}

/** Why QEMU cannot be used, or undefined. */
export function unavailable(): string | undefined {
  try {
    new Deno.Command("qemu-system-i386", { args: ["--version"], stdout: "null" }).outputSync();
  } catch (error) {
    return `qemu-system-i386 (package qemu-system-x86): ${(error as Error).message}`;
  }
}

/** A register of the stub's target description. */
interface Register {
  name: string;
  number: number;
  bytes: number;
}

/**
 * A stopped QEMU under control.
 *
 * @example
 * ```ts ignore
 * await using qemu = await Qemu.start();
 * await qemu.load(0x7c00, image);
 * await qemu.set({ cs: 0n, eip: 0x7c00n });
 * const after = await qemu.step();
 * ```
 */
export class Qemu {
  readonly #process: Deno.ChildProcess;
  readonly #folder: string;
  readonly #connection: Deno.Conn;
  #registers = new Map<string, Register>();
  #input = "";

  private constructor(process: Deno.ChildProcess, folder: string, connection: Deno.Conn) {
    this.#process = process;
    this.#folder = folder;
    this.#connection = connection;
  }

  /** Starts QEMU, stopped at reset. */
  static async start(options: QemuOptions = {}): Promise<Qemu> {
    const { machine = "isapc", cpu = "pentium2", memory = 16, long = false } = options;
    const folder = await Deno.makeTempDir({ prefix: "xvm-qemu-" });
    const socket = `${folder}/gdb`;
    const args = ["-S", "-machine", machine, "-cpu", cpu, "-m", String(memory), "-accel", "tcg"]
      .concat(["-nodefaults", "-display", "none", "-no-reboot", "-no-shutdown"])
      .concat([
        "-chardev",
        `socket,path=${socket},server=on,wait=off,id=gdb`,
        "-gdb",
        "chardev:gdb",
      ]);
    const name = long ? "qemu-system-x86_64" : "qemu-system-i386";
    const process = new Deno.Command(name, { args, stdin: "null", stdout: "null", stderr: "piped" })
      .spawn();
    const connection = await connect(socket, process);
    const qemu = new Qemu(process, folder, connection);
    try {
      await qemu.#greet();
    } catch (error) {
      await qemu.close();
      throw error;
    }
    return qemu;
  }

  async #greet(): Promise<void> {
    await this.#command("qSupported:xmlRegisters=i386");
    await this.#command("QStartNoAckMode");
    await this.#command("?");
    let number = 0;
    const main = await this.#feature("target.xml");
    for (const [, file] of main.matchAll(/<xi:include href="([^"]+)"/g)) {
      for (const [tag] of (await this.#feature(file)).matchAll(/<reg [^>]+>/g)) {
        const name = /name="([^"]+)"/.exec(tag)![1], bits = /bitsize="(\d+)"/.exec(tag)![1];
        number = Number(/regnum="(\d+)"/.exec(tag)?.[1] ?? number);
        this.#registers.set(name, { name, number, bytes: Number(bits) / 8 });
        number++;
      }
    }
  }

  async #feature(file: string): Promise<string> {
    let text = "";
    for (;;) {
      const part = await this.#command(
        `qXfer:features:read:${file}:${text.length.toString(16)},800`,
      );
      text += part.slice(1);
      if (part[0] !== "m") return text.replace(/<!--.*?-->/gs, "");
    }
  }

  /** Names that {@linkcode set} knows. */
  get registerNames(): string[] {
    return [...this.#registers.keys()];
  }

  /** Writes bytes at a linear address (physical while paging is off). */
  async load(address: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += 1024) {
      const part = bytes.subarray(at, at + 1024);
      const where = `${(address + at).toString(16)},${part.length.toString(16)}`;
      await this.#done(`M${where}:${part.toHex()}`);
    }
  }

  /** Reads bytes at a linear address. */
  async read(address: number, length: number): Promise<Uint8Array> {
    const reply = await this.#command(`m${address.toString(16)},${length.toString(16)}`);
    if (/^E\d\d$/.test(reply)) {
      throw new Error(`QEMU cannot read ${length} bytes at 0x${address.toString(16)}`);
    }
    return Uint8Array.fromHex(reply);
  }

  /** Sets registers by gdb's names: eax to edi, eip, eflags, cs to gs, cr0, cr3, cr4, fctrl, ... */
  async set(values: Record<string, bigint>): Promise<void> {
    for (const [name, value] of Object.entries(values)) {
      const register = this.#registers.get(name);
      if (!register) throw new Error(`QEMU's stub knows no register "${name}"`);
      let hex = "";
      for (let i = 0; i < register.bytes; i++) {
        hex += Number((value >> BigInt(i * 8)) & 0xffn).toString(16).padStart(2, "0");
      }
      await this.#done(`P${register.number.toString(16)}=${hex}`);
    }
  }

  /** Runs one instruction, or the delivery of its fault, and returns the state. */
  async step(): Promise<QemuState> {
    const reply = await this.#command("s");
    if (!/^[TS]05/.test(reply)) throw new Error(`QEMU stopped with "${reply}", expected a step`);
    return await this.state();
  }

  /** The state now. */
  async state(): Promise<QemuState> {
    return parseState(await this.monitor("info registers"));
  }

  /** Runs a command of QEMU's monitor and returns what it prints. */
  async monitor(command: string): Promise<string> {
    let text = "";
    const collect = (hex: string) => text += new TextDecoder().decode(Uint8Array.fromHex(hex));
    const reply = await this.#command(
      `qRcmd,${new TextEncoder().encode(command).toHex()}`,
      (packet) => packet[0] === "O" && packet !== "OK" ? (collect(packet.slice(1)), true) : false,
    );
    if (reply !== "OK" && reply !== "") collect(reply);
    return text;
  }

  /** Ends QEMU. */
  async close(): Promise<void> {
    try {
      this.#connection.close();
    } catch { /* already closed by QEMU */ }
    try {
      this.#process.kill("SIGKILL");
    } catch { /* already gone */ }
    await this.#process.stderr.cancel();
    await this.#process.status;
    await Deno.remove(this.#folder, { recursive: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #done(command: string): Promise<void> {
    const reply = await this.#command(command);
    if (reply !== "OK") {
      throw new Error(`QEMU's stub answered "${reply}" to "${command.slice(0, 40)}"`);
    }
  }

  /** Sends a packet and returns the answer; `extra` takes packets that come before it. */
  async #command(command: string, extra?: (packet: string) => boolean): Promise<string> {
    let sum = 0;
    for (let i = 0; i < command.length; i++) sum = (sum + command.charCodeAt(i)) & 0xff;
    const packet = `$${command}#${sum.toString(16).padStart(2, "0")}`;
    const bytes = new TextEncoder().encode(packet);
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
    for (;;) {
      const answer = await this.#packet();
      if (!extra?.(answer)) return answer;
    }
  }

  /** The next packet's content; "}" escapes and run lengths resolved. */
  async #packet(): Promise<string> {
    for (;;) {
      const start = this.#input.indexOf("$"), end = this.#input.indexOf("#", start);
      if (start >= 0 && end >= 0 && this.#input.length >= end + 3) {
        const body = this.#input.slice(start + 1, end);
        this.#input = this.#input.slice(end + 3);
        return expand(body);
      }
      const buffer = new Uint8Array(8192);
      const read = await this.#connection.read(buffer);
      if (read === null) throw new Error("QEMU closed its gdb stub");
      this.#input += String.fromCharCode(...buffer.subarray(0, read));
    }
  }
}

function expand(body: string): string {
  const escaped = body.replace(
    /\}(.)/gs,
    (_, c: string) => String.fromCharCode(c.charCodeAt(0) ^ 32),
  );
  return escaped.replace(/(.)\*(.)/gs, (_, c: string, n: string) => c.repeat(n.charCodeAt(0) - 28));
}

async function connect(socket: string, process: Deno.ChildProcess): Promise<Deno.Conn> {
  for (let tries = 0; tries < 200; tries++) {
    try {
      return await Deno.connect({ transport: "unix", path: socket });
    } catch {
      const ended = await Promise.race([
        process.status.then(() => true),
        new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 25)),
      ]);
      if (ended) throw new Error(`QEMU ended: ${await new Response(process.stderr).text()}`);
    }
  }
  throw new Error("QEMU's gdb socket did not appear within 5 s");
}

/** Reads the text of `info registers`. */
export function parseState(text: string): QemuState {
  const registers: Record<string, bigint> = {}, segments: Record<string, QemuSegment> = {};
  const rename: Record<string, string> = { efl: "eflags", rfl: "rflags" };
  for (const [, name, value] of text.matchAll(/\b([A-Z][A-Z0-9]{1,3})\s*=([0-9a-f]{8,16})\b/g)) {
    const key = name.toLowerCase();
    registers[rename[key] ?? key] = BigInt("0x" + value);
  }
  const line =
    /^(ES|CS|SS|DS|FS|GS|LDT|TR)\s*=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]{8}) ([0-9a-f]{8})/gm;
  for (const [, name, ...rest] of text.matchAll(line)) {
    const [selector, base, limit, flags] = rest.map((v) => parseInt(v, 16));
    const wideBase = BigInt(`0x${rest[1]}`);
    segments[name.toLowerCase()] = { selector, base, wideBase, limit, flags };
  }
  const table = (name: string) => {
    const found = new RegExp(`^${name}=\\s+([0-9a-f]+) ([0-9a-f]{8})`, "m").exec(text);
    if (!found) throw new Error(`QEMU's "info registers" shows no ${name}: ${text}`);
    const [, base, limit] = found;
    return { base: parseInt(base, 16), wideBase: BigInt(`0x${base}`), limit: parseInt(limit, 16) };
  };
  return {
    registers,
    segments,
    gdt: table("GDT"),
    idt: table("IDT"),
    cpl: Number(/CPL=(\d)/.exec(text)?.[1] ?? 0),
    halted: /HLT=1/.test(text),
  };
}

/** What changed from one state to the next, in one line. */
export function changes(before: QemuState, after: QemuState): string {
  const out: string[] = [];
  for (const [name, value] of Object.entries(after.registers)) {
    if (before.registers[name] !== value) out.push(`${name}=${value.toString(16)}`);
  }
  for (const [name, s] of Object.entries(after.segments)) {
    const b = before.segments[name];
    if (
      b && b.selector === s.selector && b.base === s.base && b.limit === s.limit &&
      b.flags === s.flags
    ) {
      continue;
    }
    const hex = [s.selector, s.base, s.limit, s.flags].map((v) => v.toString(16));
    out.push(`${name}=${hex[0]}{base ${hex[1]}, limit ${hex[2]}, flags ${hex[3]}}`);
  }
  for (const name of ["gdt", "idt"] as const) {
    const { base, limit } = after[name];
    if (before[name].base === base && before[name].limit === limit) continue;
    out.push(`${name}={base ${base.toString(16)}, limit ${limit.toString(16)}}`);
  }
  if (before.cpl !== after.cpl) out.push(`cpl=${after.cpl}`);
  if (before.halted !== after.halted) out.push(`halted=${after.halted}`);
  return out.join(" ");
}
