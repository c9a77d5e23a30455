/** The hypervisor's own console: what it says, and what domains write there by console_io. */
import { bytes, record } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import { ByteLog } from "./output.ts";

/** Bytes that are kept, the last of them. */
const KEPT = 1 << 20;
/** Bytes of a line that a domain has begun (DOMAIN_PBUF_SIZE, with its NUL). */
const LINE = 199;

const NEWLINE = 10, TAB = 9;
const isPrinted = (byte: number): boolean => (byte >= 32 && byte < 127) || byte === TAB;

export class ConsoleLog {
  readonly bytes: ByteLog = new ByteLog(KEPT);
  /** Told of each line, without its end. */
  readonly onLine: Set<(line: string) => void> = new Set();

  /** All that is kept. */
  get text(): string {
    return new TextDecoder().decode(this.bytes.since(0));
  }
  line(line: string): void {
    for (const byte of new TextEncoder().encode(`${line}\n`)) this.bytes.push(byte);
    for (const told of [...this.onLine]) told(line);
  }
}

/** A domain's writes to it: lines, with the domain's number before each. */
export class DomainConsole {
  #line: number[] = [];

  constructor(readonly log: ConsoleLog, readonly id: number) {}

  /** What cannot be printed is left out; a line that is too long is cut. */
  write(written: Uint8Array): void {
    for (const byte of written) {
      if (byte === NEWLINE || this.#line.length === LINE) this.#end();
      if (isPrinted(byte)) this.#line.push(byte);
    }
  }
  #end(): void {
    this.log.line(`(d${this.id}) ${String.fromCharCode(...this.#line)}`);
    this.#line = [];
  }

  register(blocks: StateRegister): void {
    blocks.register<{ readonly line: Uint8Array }>({
      name: "console_io",
      version: 1,
      shape: record({ line: bytes() }),
      save: () => ({ line: Uint8Array.from(this.#line) }),
      load: ({ line }) => void (this.#line = [...line.subarray(0, LINE)]),
    });
  }
}
