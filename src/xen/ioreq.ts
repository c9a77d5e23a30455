/**
 * I/O requests to device models, in the states of Xen's public header hvm/ioreq.h. A request goes to
 * the first server that claims its address, else to the platform. A server may answer at once or
 * later; until it does, the domain waits, and the instruction is executed again when it has.
 *
 * An instruction may make several requests (MOVS from one device to another, a page straddled): what
 * was asked and answered is kept until it is done, so that no device is asked the same twice. An
 * answer belongs to its request and to no other: if the instruction is given up, it is dropped.
 */
import { list, record, u32, whole, word } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { Platform } from "./platform.ts";

/** STATE_IOREQ_INPROCESS, STATE_IORESP_READY. */
export type IoreqState = "inprocess" | "response";

/** ioreq_t, as far as one access needs it. */
export interface Ioreq {
  /** IOREQ_TYPE_PIO or IOREQ_TYPE_COPY (memory-mapped). */
  readonly type: "pio" | "copy";
  /** IOREQ_READ is 1, IOREQ_WRITE 0 in the header. */
  readonly dir: "read" | "write";
  /** Port or guest-physical address. */
  readonly addr: number;
  /** Bytes: 1, 2 or 4. */
  readonly size: number;
  /** What is written; of a read, the answer. */
  data: number;
  state: IoreqState;
}

const ANSWER = record({
  type: word("pio", "copy"),
  dir: word("read", "write"),
  addr: whole(0, 2 ** 52 - 1),
  size: whole(1, 4),
  data: u32,
  state: word("response"),
});

export interface IoreqServer {
  /** First and last address. */
  readonly port?: readonly [number, number];
  readonly mmio?: readonly [number, number];
  /** What a read gives; undefined counts as all ones. May be a promise: the domain waits. */
  read?(addr: number, size: number): number | undefined | Promise<number | undefined>;
  write?(addr: number, value: number, size: number): unknown;
}

/** What the servers tell their domain. */
export interface IoreqEvents {
  /** An answer that was awaited is there. */
  answered(): void;
  /** A server threw, rejected, or answered what is no answer; the request will be made again. */
  failed(error: Error): void;
  /** An answer came too late: the access it is for was given up. */
  dropped(text: string): void;
}

export class IoreqServers {
  readonly #servers: IoreqServer[] = [];
  /** What the running instruction has asked, in order. Only the last can be unanswered. */
  #asked: Ioreq[] = [];
  /** How many of them this attempt at the instruction has come to. */
  #next = 0;
  /** This attempt is given up: what it asks after that is not meant. */
  #stuck = false;
  /** Requests that were answered late, or will be. */
  readonly #late = new WeakSet<Ioreq>();
  /** Why requests were given up before their answer came. */
  readonly #givenUp = new WeakMap<Ioreq, string>();

  constructor(private readonly platform: () => Platform, private readonly events: IoreqEvents) {}

  /** Registers a server; the result takes it away again. */
  serve(server: IoreqServer): () => void {
    for (const [name, range] of [["port", server.port], ["mmio", server.mmio]] as const) {
      if (range && !(range[0] <= range[1] && range[0] >= 0)) {
        throw new RangeError(
          `${name}: a range [first, last] was expected, [${range.join(", ")}] was given`,
        );
      }
    }
    if (!server.port && !server.mmio) {
      throw new TypeError("a device needs addresses: { port: [first, last] } or { mmio: [...] }");
    }
    this.#servers.push(server);
    return () => {
      const at = this.#servers.indexOf(server);
      if (at >= 0) this.#servers.splice(at, 1);
    };
  }

  // --- one instruction ---

  /** An instruction is executed, for the first time or again. */
  begin(): void {
    this.#next = 0;
    this.#stuck = false;
  }
  /** It is done. */
  done(): void {
    if (this.#asked.length > 0) this.#asked = [];
  }
  /** It will not be executed again: an answer that comes now is nobody's. */
  abandon(why: string): void {
    this.#giveUp(0, why);
  }
  #giveUp(from: number, why: string): void {
    if (this.#asked.length === from) return;
    for (const request of this.#asked.splice(from)) {
      if (request.state === "inprocess") this.#givenUp.set(request, why);
      else if (this.#late.has(request)) this.#drop(request, why);
    }
  }
  #drop(request: Ioreq, why: string): void {
    this.events.dropped(`the late answer to ${describe(request)} is dropped: ${why}`);
  }

  /** Scripts serve some addresses; or did when the instruction under way began. */
  get any(): boolean {
    return this.#servers.length > 0 || this.#asked.length > 0;
  }
  /** Is a server still at work? */
  get waiting(): boolean {
    return this.#asked.at(-1)?.state === "inprocess";
  }

  /**
   * Its state: what has been answered of the instruction under way. A request that is still unanswered
   * is none: its device is asked again.
   */
  register(blocks: StateRegister): void {
    blocks.register<{ answers: Ioreq[] }>({
      name: "ioreq",
      version: 1,
      shape: record({ answers: list(ANSWER) }),
      save: () => ({
        answers: this.#asked.filter(({ state }) => state === "response").map((r) => ({ ...r })),
      }),
      load: ({ answers }) => {
        this.#giveUp(0, "the host was put into a saved state");
        this.#asked = answers.map((r) => ({ ...r }));
        this.begin();
      },
    });
  }

  /** The answer of a read, or undefined if the server answers later: then ask again. */
  read(type: Ioreq["type"], addr: number, size: number): number | undefined {
    if (this.any) return this.#access(type, "read", addr, size, 0);
    return this.#platform(type, "read", addr, size, 0);
  }

  /** False if the server takes its time: ask again. */
  write(type: Ioreq["type"], addr: number, size: number, value: number): boolean {
    if (this.any) return this.#access(type, "write", addr, size, value) !== undefined;
    this.#platform(type, "write", addr, size, value);
    return true;
  }

  #platform(
    type: Ioreq["type"],
    dir: Ioreq["dir"],
    addr: number,
    size: number,
    data: number,
  ): number {
    const p = this.platform();
    if (dir === "read") return type === "pio" ? p.ioRead(addr, size) : p.mmioRead(addr, size);
    if (type === "pio") p.ioWrite(addr, size, data);
    else p.mmioWrite(addr, size, data);
    return data;
  }

  /** Undefined: there is no answer yet. */
  #access(
    type: Ioreq["type"],
    dir: Ioreq["dir"],
    addr: number,
    size: number,
    data: number,
  ): number | undefined {
    if (this.#stuck) return undefined;
    if (size > 1 && this.#straddles(type, addr, size)) {
      let value = 0;
      for (let i = 0; i < size; i++) {
        const byte = this.#access(type, dir, addr + i, 1, data >>> (8 * i) & 0xff);
        if (byte === undefined) return undefined;
        value += byte * 256 ** i;
      }
      return value;
    }
    const known = this.#asked[this.#next];
    if (known && isSame(known, type, dir, addr, size, data)) {
      if (known.state === "inprocess") this.#stuck = true;
      else this.#next++;
      return known.state === "inprocess" ? undefined : known.data;
    }
    this.#giveUp(this.#next, "the guest asks for something else now");
    const request: Ioreq = { type, dir, addr, size, data, state: "inprocess" };
    this.#asked.push(request);
    this.#ask(request, this.#serverOf(type, addr));
    if (request.state === "response") this.#next++;
    else this.#stuck = true;
    return request.state === "response" ? request.data : undefined;
  }

  #serverOf(type: Ioreq["type"], addr: number): IoreqServer | undefined {
    return this.#servers.find((s) => {
      const range = type === "pio" ? s.port : s.mmio;
      return range && addr >= range[0] && addr <= range[1];
    });
  }
  /** Not all of its bytes are the same server's: each goes to its own. */
  #straddles(type: Ioreq["type"], addr: number, size: number): boolean {
    const first = this.#serverOf(type, addr);
    for (let i = 1; i < size; i++) if (this.#serverOf(type, addr + i) !== first) return true;
    return false;
  }

  #ask(request: Ioreq, server: IoreqServer | undefined): void {
    const { type, dir, addr, size, data } = request;
    if (!server) {
      request.data = this.#platform(type, dir, addr, size, data);
      request.state = "response";
      return;
    }
    try {
      const answer = dir === "read" ? server.read?.(addr, size) : server.write?.(addr, data, size);
      if (isPromise(answer)) {
        this.#late.add(request);
        answer.then(
          (value) => this.#answeredLate(request, () => answerTo(request, value)),
          (error) => this.#answeredLate(request, () => fail(request, error)),
        );
      } else answerTo(request, answer);
    } catch (error) {
      this.#failed(request, error);
    }
  }

  #answeredLate(request: Ioreq, take: () => void): void {
    const why = this.#givenUp.get(request);
    if (why !== undefined) return this.#drop(request, why);
    try {
      take();
      this.events.answered();
    } catch (error) {
      this.#failed(request, error);
    }
  }

  /** It is as if the request had not been made; the instruction makes it again when it goes on. */
  #failed(request: Ioreq, error: unknown): void {
    this.#asked.splice(this.#asked.indexOf(request));
    this.#stuck = true;
    this.events.failed(error instanceof BadAnswer ? error.reason : failure(request, error));
  }
}

/** What an answer is awaited of: a promise, or another object with a `then`. */
export const isPromise = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as PromiseLike<unknown> | undefined)?.then === "function";

const isSame = (
  known: Ioreq,
  type: Ioreq["type"],
  dir: Ioreq["dir"],
  addr: number,
  size: number,
  data: number,
): boolean =>
  known.type === type && known.dir === dir && known.addr === addr && known.size === size &&
  (dir === "read" || known.data === data);

/** "the read of 2 bytes at port 0x300". */
function describe({ type, dir, addr, size }: Ioreq): string {
  const where = type === "pio" ? "port" : "guest-physical";
  return `the ${dir} of ${size} byte${size > 1 ? "s" : ""} at ${where} 0x${addr.toString(16)}`;
}

function failure(request: Ioreq, cause: unknown): Error {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new Error(`a device in a script failed at ${describe(request)}: ${text}`, { cause });
}
function fail(request: Ioreq, error: unknown): never {
  throw new BadAnswer(failure(request, error));
}
class BadAnswer {
  constructor(readonly reason: Error) {}
}

/** What a server said becomes the request's answer. */
function answerTo(request: Ioreq, value: unknown): void {
  const { dir, size } = request, ones = 2 ** (8 * size) - 1;
  if (dir === "read" && value !== undefined) {
    const expected = `${describe(request)} takes a whole number from 0 to 0x${ones.toString(16)}`;
    if (typeof value !== "number") {
      throw new BadAnswer(
        new TypeError(`${expected}; a device in a script answered with ${shown(value)}`),
      );
    }
    if (!Number.isInteger(value) || value < 0 || value > ones) {
      throw new BadAnswer(new RangeError(`${expected}; a device in a script answered ${value}`));
    }
    request.data = value;
  } else if (dir === "read") request.data = ones;
  request.state = "response";
}

const shown = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? `a ${value.constructor?.name ?? "record"}`
    : `the ${typeof value} ${String(value)}`;
