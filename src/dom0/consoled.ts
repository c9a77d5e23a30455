/**
 * A domain's console over the rings in its page (io/console.h): what the domain writes goes to a sink,
 * what is typed waits until there is room.
 *
 * @module
 */
import { bytes, record } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import { CONSOLE_PAGE } from "./pages.ts";
import { ByteRing, type RingPage } from "./ring.ts";

/** Who takes what a domain writes. */
export interface ConsoleSink {
  /**
   * Takes bytes from the front.
   *
   * @returns how many; the others stay in the ring, and the domain waits for room
   */
  write(bytes: Uint8Array): number;
}

/** What a console is given of the hypervisor. */
export interface ConsoleHost {
  /** The page with the domain's rings; undefined: it has granted none. */
  page(): RingPage | undefined;
  /** Notifies the domain's port. */
  notify(): void;
}

const NOTHING = new Uint8Array();

export class ConsoleRing {
  /** What was typed, and is not in the ring yet. */
  #typed: Uint8Array = NOTHING;

  constructor(readonly host: ConsoleHost, readonly sink: ConsoleSink) {}

  /** Bytes that were typed and wait for room. */
  get waiting(): number {
    return this.#typed.length;
  }

  /** Somebody types. */
  input(bytes: Uint8Array): void {
    const typed = new Uint8Array(this.#typed.length + bytes.length);
    typed.set(this.#typed);
    typed.set(bytes, this.#typed.length);
    this.#typed = typed;
    this.run();
  }

  /**
   * Moves what can be moved: the domain has notified its port, or the sink has room again. A ring
   * whose indices make no sense stands still until they do.
   */
  run(): void {
    const page = this.host.page();
    if (!page) return;
    const drained = this.#drain(new ByteRing(page, CONSOLE_PAGE.output)),
      fed = this.#feed(new ByteRing(page, CONSOLE_PAGE.input));
    if (drained || fed) this.host.notify();
  }
  #drain(ring: ByteRing): boolean {
    const bytes = ring.peek(CONSOLE_PAGE.output.size);
    if (!bytes?.length) return false;
    const taken = Math.min(this.sink.write(bytes), bytes.length);
    if (taken > 0) ring.skip(taken);
    return taken > 0;
  }
  #feed(ring: ByteRing): boolean {
    const put = this.#typed.length ? ring.put(this.#typed) : 0;
    if (!put) return false;
    this.#typed = this.#typed.slice(put);
    return true;
  }

  /** Its state: rings are in the domain's memory. */
  register(blocks: StateRegister): void {
    blocks.register<{ typed: Uint8Array }>({
      name: "console ring",
      version: 1,
      shape: record({ typed: bytes() }),
      save: () => ({ typed: this.#typed }),
      load: ({ typed }) => this.#typed = typed,
    });
  }
}
