/**
 * A XenStore with domains that are only pages, for tests.
 *
 * @module
 */
import { XS } from "../abi/xen/io/xs_wire.ts";
import { encodeMessage, XS_HEADER } from "./messages.ts";
import { XENSTORE_PAGE } from "./pages.ts";
import { plainPage } from "./ring.ts";
import { bytesOfText, joined, textOf } from "./text.ts";
import { Xenstored } from "./xenstored.ts";

/** A message as a domain finds it. */
export interface Received {
  readonly type: number;
  readonly request: number;
  readonly transaction: number;
  readonly text: string;
}

const TYPE_NAMES = new Map<number, string>(Object.entries(XS).map(([name, type]) => [type, name]));
/** "READ 1 value", in one line. */
export const shownMessage = ({ type, request, text }: Received): string =>
  `${TYPE_NAMES.get(type) ?? type} ${request} ${text.replaceAll("\0", "|")}`;

/** A domain's side of the ring, as a guest has it. */
export class TestDomain {
  readonly bytes: Uint8Array = new Uint8Array(4096);
  readonly page = plainPage(this.bytes);
  notified = 0;
  #request = 0;
  #pending = new Uint8Array();

  constructor(readonly daemon: Xenstored, readonly id: number) {}

  /** Puts bytes into the ring, as far as there is room, and notifies. @returns how many */
  put(bytes: Uint8Array, notify = true): number {
    const { data, indices, size } = XENSTORE_PAGE.requests;
    const consumed = this.page.word(indices), produced = this.page.word(indices + 4);
    const length = Math.min(bytes.length, size - ((produced - consumed) >>> 0));
    for (let n = 0; n < length; n++) this.bytes[data + ((produced + n) >>> 0) % size] = bytes[n];
    this.page.setWord(indices + 4, produced + length);
    if (notify) this.daemon.run();
    return length;
  }
  /** What is in the answers' ring; it is consumed. */
  take(most = 1024): Uint8Array {
    const { data, indices, size } = XENSTORE_PAGE.replies;
    const consumed = this.page.word(indices), produced = this.page.word(indices + 4);
    const length = Math.min(most, (produced - consumed) >>> 0);
    const taken = Uint8Array.from(
      { length },
      (_, n) => this.bytes[data + ((consumed + n) >>> 0) % size],
    );
    this.page.setWord(indices, consumed + length);
    return taken;
  }
  /** All messages that there are, until no more come. */
  receive(): Received[] {
    const found: Received[] = [];
    for (let taken = this.take(); taken.length; taken = this.take()) {
      this.#pending = new Uint8Array([...this.#pending, ...taken]);
      this.daemon.run();
    }
    for (;;) {
      if (this.#pending.length < XS_HEADER) return found;
      const view = new DataView(this.#pending.buffer);
      const end = XS_HEADER + view.getUint32(12, true);
      if (this.#pending.length < end) return found;
      const [type, request, transaction] = [0, 4, 8].map((at) => view.getUint32(at, true));
      found.push({
        type,
        request,
        transaction,
        text: textOf(this.#pending.subarray(XS_HEADER, end)),
      });
      this.#pending = this.#pending.slice(end);
    }
  }
  /** Sends a message, in as many parts as it takes. @returns its number */
  send(type: number, payload: string, transaction = 0): number {
    const request = ++this.#request;
    let rest = encodeMessage({ type, request, transaction, payload: bytesOfText(payload) });
    while (rest.length) {
      const put = this.put(rest);
      if (put === 0) throw new Error(`domain ${this.id}: the ring stays full`);
      rest = rest.subarray(put);
    }
    return request;
  }
  /** Events that have come while it asked. */
  events: string[] = [];
  /** Asks, and gives the answer: its text, or the errno's name. */
  ask(type: number, payload: string, transaction = 0): string {
    const request = this.send(type, payload, transaction);
    let answer: string | undefined;
    for (const message of this.receive()) {
      if (message.type === XS.WATCH_EVENT) this.events.push(message.text.replaceAll("\0", "|"));
      else if (message.request === request) answer = message.text;
    }
    if (answer === undefined) throw new Error(`domain ${this.id}: no answer to ${type} ${payload}`);
    return answer.replace(/\0$/, "").replaceAll("\0", "|");
  }
  /** Events that have come. */
  heard(): string[] {
    const events = this.receive().map(({ text }) => text.replaceAll("\0", "|"));
    const all = [...this.events, ...events];
    this.events = [];
    return all;
  }
  read = (path: string, transaction = 0) => this.ask(XS.READ, `${path}\0`, transaction);
  write = (path: string, value: string, transaction = 0) =>
    this.ask(XS.WRITE, `${path}\0${value}`, transaction);
  rm = (path: string, transaction = 0) => this.ask(XS.RM, `${path}\0`, transaction);
  list = (path: string, transaction = 0) => this.ask(XS.DIRECTORY, `${path}\0`, transaction);
  setPermissions = (path: string, ...permissions: string[]) =>
    this.ask(XS.SET_PERMS, textOf(joined([path, ...permissions])));
  permissions = (path: string) => this.ask(XS.GET_PERMS, `${path}\0`);
  watch = (path: string, token: string) => this.ask(XS.WATCH, `${path}\0${token}\0`);
  begin = () => Number(this.ask(XS.TRANSACTION_START, "\0"));
  commit = (transaction: number) => this.ask(XS.TRANSACTION_END, "T\0", transaction);
}

/** A XenStore whose domains exist, and are introduced when they are asked for. */
export class TestStore {
  readonly domains: Map<number, TestDomain> = new Map();
  /** Domain 0's ends of channels: of which domain. */
  readonly ports: Map<number, number> = new Map();
  /** Domains whose pages were let go. */
  readonly letGo: number[] = [];
  now = 0;
  /** The last of them. */
  port = 100;

  readonly daemon: Xenstored = new Xenstored({
    exists: (id) => this.domains.has(id),
    page: (id) => this.domains.get(id)?.page,
    letGo: (id) => void this.letGo.push(id),
    bind: (id, port) => {
      if (port > 1000) return 0;
      this.ports.set(++this.port, id);
      return this.port;
    },
    unbind: (port) => void this.ports.delete(port),
    notify: (port) => {
      const domain = this.domains.get(this.ports.get(port)!);
      if (domain) domain.notified++;
    },
    now: () => this.now,
  });

  /** A domain that exists. */
  create(id: number): TestDomain {
    const domain = new TestDomain(this.daemon, id);
    this.domains.set(id, domain);
    return domain;
  }
  /** One that is introduced. */
  domain(id: number): TestDomain {
    const domain = this.domains.get(id) ?? this.create(id);
    if (!this.daemon.isIntroduced(id)) this.daemon.introduce(id, 1);
    return domain;
  }
  destroy(id: number): void {
    this.domains.delete(id);
    this.daemon.gone(id);
  }
}

/** Numbers from 0 to below a bound, the same for the same seed. */
export function drawing(seed: number): (bound: number) => number {
  let x = seed >>> 0 || 1;
  return (bound) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % bound;
  };
}
