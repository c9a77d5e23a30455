/**
 * I/O requests to device models, in the states of Xen's public header hvm/ioreq.h. A request goes to
 * the first server that claims its address, else to the platform. A server may answer at once or
 * later; until it does, the domain waits.
 */
import type { Platform } from "./platform.ts";

/** STATE_IOREQ_NONE, STATE_IOREQ_READY, STATE_IOREQ_INPROCESS, STATE_IORESP_READY. */
export type IoreqState = "none" | "ready" | "inprocess" | "response";

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
  data: number;
  state: IoreqState;
}

export interface IoreqServer {
  /** First and last address. */
  readonly port?: readonly [number, number];
  readonly mmio?: readonly [number, number];
  /** What a read gives; undefined counts as all ones. May be a promise: the domain waits. */
  read?(addr: number, size: number): number | undefined | Promise<number | undefined>;
  write?(addr: number, value: number, size: number): unknown;
}

export class IoreqServers {
  readonly #servers: IoreqServer[] = [];
  /** The request a server has not answered yet. */
  pending: Ioreq | undefined;
  #answer: Promise<void> | undefined;

  constructor(private readonly platform: () => Platform, private readonly answered: () => void) {}

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

  #serverOf(type: Ioreq["type"], addr: number): IoreqServer | undefined {
    if (this.#servers.length === 0) return undefined;
    return this.#servers.find((s) => {
      const range = type === "pio" ? s.port : s.mmio;
      return range && addr >= range[0] && addr <= range[1];
    });
  }

  /** The answer of a read, or undefined if the server answers later: then ask again. */
  read(type: Ioreq["type"], addr: number, size: number): number | undefined {
    const { pending } = this;
    if (pending?.state === "response") {
      this.pending = undefined;
      return pending.data;
    }
    const server = this.#serverOf(type, addr);
    const ones = 2 ** (8 * size) - 1;
    if (!server) {
      const p = this.platform();
      return type === "pio" ? p.ioRead(addr, size) : p.mmioRead(addr, size);
    }
    const value = server.read?.(addr, size);
    if (!(value instanceof Promise)) return cut(value ?? ones, size);
    this.#wait({ type, dir: "read", addr, size, data: ones, state: "inprocess" }, value);
    return undefined;
  }

  /** False if the server takes its time: ask again. */
  write(type: Ioreq["type"], addr: number, size: number, value: number): boolean {
    if (this.pending?.state === "response") {
      this.pending = undefined;
      return true;
    }
    const server = this.#serverOf(type, addr);
    if (!server) {
      const p = this.platform();
      if (type === "pio") p.ioWrite(addr, size, value);
      else p.mmioWrite(addr, size, value);
      return true;
    }
    const result = server.write?.(addr, value, size);
    if (!(result instanceof Promise)) return true;
    this.#wait({ type, dir: "write", addr, size, data: value, state: "inprocess" }, result);
    return false;
  }

  #wait(request: Ioreq, answer: Promise<unknown>): void {
    this.pending = request;
    const done = (value: unknown) => {
      if (request.dir === "read" && value !== undefined) {
        request.data = cut(value as number, request.size);
      }
      request.state = "response";
      this.answered();
    };
    this.#answer = answer.then(done, (error) => {
      done(undefined);
      throw error;
    });
  }

  /** Is a server still at work? */
  get waiting(): boolean {
    return this.pending?.state === "inprocess";
  }
  get answer(): Promise<void> | undefined {
    return this.#answer;
  }
}

function cut(value: number, size: number): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    throw new TypeError(`a device's read gives a whole number; ${String(value)} was given`);
  }
  return size === 4 ? value >>> 0 : value & (2 ** (8 * size) - 1);
}
