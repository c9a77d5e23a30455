/**
 * I/O requests to device models, in the states of Xen's public header hvm/ioreq.h. A vCPU has one slot,
 * with one request at a time; it goes to the first of the domain's servers that claims its address, else
 * to the platform. A server may answer at once or later; until it does, the vCPU waits, and the
 * instruction is executed again when it has.
 *
 * An instruction may make several requests (MOVS from one device to another, a page straddled): what
 * was answered is kept until it is done, so that no device is asked the same twice. An answer belongs to
 * its request and to no other: if the instruction is given up, it is dropped.
 */
import { list, record, u32, whole, word } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import type { Platform } from "./platform.ts";

/** STATE_IOREQ_NONE, STATE_IOREQ_READY, STATE_IOREQ_INPROCESS, STATE_IORESP_READY. */
export type IoreqState = "none" | "ready" | "inprocess" | "resp_ready";

/** ioreq_t, as far as one access needs it. */
interface Access {
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
}
/** One that is made. */
interface Ioreq extends Access {
  state: IoreqState;
  /** It was answered later, or will be. */
  late?: true;
  /** Why it was given up before its answer came. */
  givenUp?: string;
}

const ANSWER = record({
  type: word("pio", "copy"),
  dir: word("read", "write"),
  addr: whole(0, 2 ** 52 - 1),
  size: whole(1, 4),
  data: u32,
});

export interface IoreqServer {
  /** First and last address. */
  readonly port?: readonly [number, number];
  readonly mmio?: readonly [number, number];
  /** What a read gives; undefined counts as all ones. May be a promise: the vCPU waits. */
  read?(addr: number, size: number): number | undefined | Promise<number | undefined>;
  write?(addr: number, value: number, size: number): unknown;
}

/** What a slot tells of its requests. */
export interface IoreqEvents {
  /** An answer that was awaited is there. */
  answered(): void;
  /** A server threw, rejected, or answered what is no answer; the request will be made again. */
  failed(error: Error): void;
  /** An answer came too late: the access it is for was given up. */
  dropped(text: string): void;
}

/** Who answers for which addresses of a domain, besides its platform. */
export class IoreqServers {
  readonly #servers: IoreqServer[] = [];

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

  get any(): boolean {
    return this.#servers.length > 0;
  }
  /** In the order in which they are asked. */
  get all(): readonly IoreqServer[] {
    return this.#servers;
  }
  /** Who claims an address; undefined: the platform has it. */
  of(type: Access["type"], addr: number): IoreqServer | undefined {
    return this.#servers.find((s) => {
      const range = type === "pio" ? s.port : s.mmio;
      return range && addr >= range[0] && addr <= range[1];
    });
  }
  /** Not all bytes of an access are the same server's: each goes to its own. */
  straddles(type: Access["type"], addr: number, size: number): boolean {
    const first = this.of(type, addr);
    for (let i = 1; i < size; i++) if (this.of(type, addr + i) !== first) return true;
    return false;
  }
}

/** The slot of a vCPU. */
export class IoreqSlot {
  /** The request that is not done; none: STATE_IOREQ_NONE. */
  #request: Ioreq | undefined;
  /** What the running instruction has asked before that, in order, and was answered. */
  #answered: Ioreq[] = [];
  /** How many of them this attempt at the instruction has come to. */
  #next = 0;
  /** This attempt is given up: what it asks after that is not meant. */
  #stuck = false;

  /** @param processor whose slot it is, by its number on the platform */
  constructor(
    private readonly servers: IoreqServers,
    private readonly platform: () => Platform,
    private readonly processor: number,
    private readonly events: IoreqEvents,
  ) {}

  get state(): IoreqState {
    return this.#request?.state ?? "none";
  }
  /** The request that is not done. */
  get request(): Readonly<Ioreq> | undefined {
    return this.#request;
  }

  /** An instruction is executed, for the first time or again. */
  begin(): void {
    this.#next = 0;
    this.#stuck = false;
  }
  /** It is done. */
  done(): void {
    if (this.#answered.length > 0) this.#answered = [];
    this.#request = undefined;
  }
  /** It will not be executed again: an answer that comes now is nobody's. */
  abandon(why: string): void {
    if (this.#asked) this.#giveUp(0, why);
  }
  /** All that was asked from there on. */
  #giveUp(from: number, why: string): void {
    const request = this.#request;
    this.#request = undefined;
    for (const { late, ...access } of this.#answered.splice(from)) {
      if (late) this.#drop(access, why);
    }
    if (request?.state === "inprocess") request.givenUp = why;
    else if (request?.late) this.#drop(request, why);
  }
  #drop(access: Access, why: string): void {
    this.events.dropped(`the late answer to ${describe(access)} is dropped: ${why}`);
  }

  get #asked(): boolean {
    return this.#request !== undefined || this.#answered.length > 0;
  }
  /** Scripts serve some addresses; or did when the instruction under way began. */
  get any(): boolean {
    return this.servers.any || this.#asked;
  }
  /** Is a server still at work? */
  get waiting(): boolean {
    return this.#request?.state === "inprocess";
  }

  /**
   * Its state: what has been answered of the instruction under way. A request that is still unanswered
   * is none: its device is asked again.
   */
  register(blocks: StateRegister): void {
    blocks.register<{ answers: Access[] }>({
      name: "ioreq",
      version: 2,
      shape: record({ answers: list(ANSWER) }),
      save: () => {
        const request = this.state === "resp_ready" ? [this.#request!] : [];
        const answers = [...this.#answered, ...request];
        return {
          answers: answers.map(({ type, dir, addr, size, data }) => ({
            type,
            dir,
            addr,
            size,
            data,
          })),
        };
      },
      load: ({ answers }) => {
        this.#giveUp(0, "the host was put into a saved state");
        this.#answered = answers.map((access) => ({ ...access, state: "none" }));
        this.begin();
      },
    });
  }

  /** The answer of a read, or undefined if the server answers later: then ask again. */
  read(type: Access["type"], addr: number, size: number): number | undefined {
    if (this.any) return this.#access({ type, dir: "read", addr, size, data: 0 });
    return this.#platformRead(type, addr, size);
  }
  /** False if the server takes its time: ask again. */
  write(type: Access["type"], addr: number, size: number, data: number): boolean {
    if (this.any) return this.#access({ type, dir: "write", addr, size, data }) !== undefined;
    this.#platformWrite(type, addr, size, data);
    return true;
  }

  #platformRead(type: Access["type"], addr: number, size: number): number {
    const p = this.platform();
    return type === "pio" ? p.ioRead(addr, size) : p.mmioRead(addr, size, this.processor);
  }
  #platformWrite(type: Access["type"], addr: number, size: number, data: number): void {
    const p = this.platform();
    if (type === "pio") p.ioWrite(addr, size, data);
    else p.mmioWrite(addr, size, data, this.processor);
  }

  /** Undefined: there is no answer yet. */
  #access(access: Access): number | undefined {
    const { type, addr, size, data } = access;
    if (this.#stuck) return undefined;
    if (size > 1 && this.servers.straddles(type, addr, size)) {
      let value = 0;
      for (let i = 0; i < size; i++) {
        const part = { ...access, addr: addr + i, size: 1, data: data >>> (8 * i) & 0xff };
        const byte = this.#access(part);
        if (byte === undefined) return undefined;
        value += byte * 256 ** i;
      }
      return value;
    }
    const known = this.#answered[this.#next];
    if (known && isSame(known, access)) {
      this.#next++;
      return known.data;
    }
    const again = !known && this.#request !== undefined && isSame(this.#request, access);
    if (!again) {
      this.#giveUp(this.#next, "the guest asks for something else now");
      this.#request = { ...access, state: "ready" };
      this.#ask(this.#request);
    }
    return this.#take();
  }

  /** The answer to the slot's request, if it is there. */
  #take(): number | undefined {
    const request = this.#request;
    if (request?.state !== "resp_ready") {
      this.#stuck = true;
      return undefined;
    }
    request.state = "none";
    this.#request = undefined;
    this.#next = this.#answered.push(request);
    return request.data;
  }

  #ask(request: Ioreq): void {
    const { type, dir, addr, size, data } = request, server = this.servers.of(type, addr);
    request.state = "inprocess";
    if (!server) {
      if (dir === "read") request.data = this.#platformRead(type, addr, size);
      else this.#platformWrite(type, addr, size, data);
      request.state = "resp_ready";
      return;
    }
    try {
      const answer = dir === "read" ? server.read?.(addr, size) : server.write?.(addr, data, size);
      if (isPromise(answer)) {
        request.late = true;
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
    if (request.givenUp !== undefined) return this.#drop(request, request.givenUp);
    try {
      take();
      this.events.answered();
    } catch (error) {
      this.#failed(request, error);
    }
  }

  /** It is as if the request had not been made; the instruction makes it again when it goes on. */
  #failed(request: Ioreq, error: unknown): void {
    if (this.#request === request) this.#request = undefined;
    this.#stuck = true;
    this.events.failed(error instanceof BadAnswer ? error.reason : failure(request, error));
  }
}

/** What an answer is awaited of: a promise, or another object with a `then`. */
export const isPromise = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as PromiseLike<unknown> | undefined)?.then === "function";

const isSame = (known: Access, { type, dir, addr, size, data }: Access): boolean =>
  known.type === type && known.dir === dir && known.addr === addr && known.size === size &&
  (dir === "read" || known.data === data);

/** "the read of 2 bytes at port 0x300". */
function describe({ type, dir, addr, size }: Access): string {
  const where = type === "pio" ? "port" : "guest-physical";
  return `the ${dir} of ${size} byte${size > 1 ? "s" : ""} at ${where} 0x${addr.toString(16)}`;
}

function failure(request: Access, cause: unknown): Error {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new Error(`a device in a script failed at ${describe(request)}: ${text}`, { cause });
}
function fail(request: Access, error: unknown): never {
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
  request.state = "resp_ready";
}

const shown = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? `a ${value.constructor?.name ?? "record"}`
    : `the ${typeof value} ${String(value)}`;
