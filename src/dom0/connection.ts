/**
 * A domain's connection to XenStore: messages over the ring in its page.
 *
 * Nothing the guest writes there is believed: with indices that make no sense, or a message longer
 * than one may be, the connection is over, and the page says why.
 *
 * @module
 */
import { XENSTORE, XS } from "../abi/xen/io/xs_wire.ts";
import {
  bytes,
  flag,
  list,
  orNull,
  record,
  text,
  time,
  tuple,
  u32,
  whole,
} from "../machine/shape.ts";
import type { Accounts } from "./quotas.ts";
import {
  announcedLength,
  decodeMessage,
  encodeMessage,
  XS_HEADER,
  type XsMessage,
} from "./messages.ts";
import { XENSTORE_PAGE } from "./pages.ts";
import { ByteRing, type RingPage } from "./ring.ts";
import type { Store } from "./store.ts";
import { bytesOfText } from "./text.ts";
import { type SavedTransaction, Transaction, TRANSACTION_SHAPE } from "./transactions.ts";
import { type PathWatch, removeWatches, type Watcher } from "./watches.ts";

/** A message on its way to the domain. */
interface Outgoing {
  readonly bytes: Uint8Array;
  readonly event: boolean;
  /** Number of the request that it answers, or that made the event; 0: nobody's. */
  readonly cause: number;
  /** When nobody has begun to read it by then (ns), it is dropped. */
  readonly expires: number;
}

/** So long (ns) an event waits for a domain that does not read. */
export const EVENT_PATIENCE = 20_000_000_000;

/** Requests that are not done, by number: whose, and how many messages of theirs are on their way. */
export class Requests {
  readonly #open = new Map<number, { readonly domain: number; messages: number }>();
  #last = 0;

  constructor(readonly accounts: Accounts) {}

  /** @returns its number; 0 for domain 0, which may have any number of them */
  begin(domain: number): number {
    if (domain === 0) return 0;
    this.#open.set(++this.#last, { domain, messages: 0 });
    this.accounts.of(domain).outstanding++;
    return this.#last;
  }
  queued(request: number): void {
    const open = this.#open.get(request);
    if (open) open.messages++;
  }
  /** A message of the request is in its ring, or dropped. */
  sent(request: number): void {
    const open = this.#open.get(request);
    if (open && --open.messages === 0) this.#close(request, open.domain);
  }
  #close(request: number, domain: number): void {
    this.#open.delete(request);
    this.accounts.of(domain).outstanding--;
  }
  /** A domain is no more. */
  drop(domain: number): void {
    for (const [request, open] of [...this.#open]) {
      if (open.domain === domain) this.#close(request, domain);
    }
  }

  save(): SavedRequests {
    return {
      last: this.#last,
      open: [...this.#open].map(([request, { domain, messages }]) => [request, domain, messages]),
    };
  }
  load({ last, open }: SavedRequests): void {
    this.#last = last;
    this.#open.clear();
    for (const [request, domain, messages] of open) {
      this.#open.set(request, { domain, messages });
      this.accounts.of(domain).outstanding++;
    }
  }
}
export interface SavedRequests {
  readonly last: number;
  readonly open: readonly (readonly [request: number, domain: number, messages: number])[];
}
export const REQUESTS_SHAPE = record({
  last: whole(),
  open: list(tuple(whole(1), whole(1, 0xffff), whole(1))),
});

/** What all connections are given. */
export interface ConnectionHost {
  readonly store: Store;
  readonly accounts: Accounts;
  readonly requests: Requests;
  /** Time (ns). */
  now(): number;
}

const NOTHING = new Uint8Array();

/** Who sends requests: what of him lasts from one to the next. */
export abstract class Connection implements Watcher {
  readonly watches: PathWatch[] = [];
  readonly transactions: Map<number, Transaction> = new Map();
  target: number | null = null;
  /** Id of the last transaction. */
  protected last = 0;

  constructor(readonly host: ConnectionHost, readonly id: number) {}

  abstract send(path: string, token: string, cause: number): void;

  /** A new transaction. */
  begin(): Transaction {
    const { store, accounts } = this.host;
    do {
      this.last = (this.last + 1) >>> 0;
    } while (this.last === 0 || this.transactions.has(this.last));
    const transaction = new Transaction(this.last, this, store, accounts);
    this.transactions.set(transaction.id, transaction);
    return transaction;
  }
  end(transaction: Transaction): void {
    this.transactions.delete(transaction.id);
    transaction.drop();
  }
  /** The store was put into a saved state, and all accounts are new. */
  loaded(): void {
    this.transactions.clear();
    for (const { path, token } of this.watches) {
      this.host.accounts.charge(this.id, path.length + token.length, false);
    }
  }
  /** Watches and transactions are no more. */
  forget(): void {
    removeWatches(this, this.host.accounts);
    for (const transaction of [...this.transactions.values()]) this.end(transaction);
  }
}

/** A domain's, over the rings in its page. */
export class DomainConnection extends Connection {
  /** It was shut down, and that was told. */
  shutdown = false;
  /** What there is of a message that is not there yet. */
  #incoming: Uint8Array = NOTHING;
  #queue: Outgoing[] = [];
  /** Bytes of the first message that are in the ring. */
  #written = 0;
  /** Something is wrong with the ring: nothing is read, and nothing written. */
  #broken = false;
  #page: RingPage | undefined;

  constructor(
    host: ConnectionHost,
    id: number,
    /** Domain 0's end of the event channel; 0: there is none. */
    public port: number,
    readonly find: () => RingPage,
  ) {
    super(host, id);
  }

  /** Looked for when it is needed: where it is may be in a state that is being loaded. */
  get page(): RingPage {
    return this.#page ??= this.find();
  }
  #ring: { readonly requests: ByteRing; readonly replies: ByteRing } | undefined;
  get #rings() {
    const { page } = this;
    return this.#ring ??= {
      requests: new ByteRing(page, XENSTORE_PAGE.requests),
      replies: new ByteRing(page, XENSTORE_PAGE.replies),
    };
  }

  get broken(): boolean {
    return this.#broken;
  }
  /** Messages that wait for room. */
  get waiting(): number {
    return this.#queue.length;
  }

  // --- what the domain sends ---

  /** It asks for a new beginning. */
  get wantsReset(): boolean {
    return this.page.word(XENSTORE_PAGE.connection) === XENSTORE.RECONNECT;
  }

  /** The next message, if it is there, and the domain may have more done. */
  receive(): XsMessage | undefined {
    const { accounts } = this.host;
    if (this.#broken) return undefined;
    if (accounts.reached(this.id, "outstanding") || accounts.reached(this.id, "memory")) return;
    if (!this.#take(XS_HEADER)) return undefined;
    const length = announcedLength(this.#incoming);
    if (length > XENSTORE.PAYLOAD_MAX) return this.#break(XENSTORE.ERROR_PROTO);
    if (!this.#take(XS_HEADER + length)) return undefined;
    const message = decodeMessage(this.#incoming);
    this.#incoming = NOTHING;
    return message;
  }
  /** Reads on until so much of the message is there. */
  #take(length: number): boolean {
    const missing = length - this.#incoming.length;
    if (missing <= 0) return true;
    const taken = this.#rings.requests.take(missing);
    if (!taken) {
      this.#break(XENSTORE.ERROR_RINGIDX);
      return false;
    }
    if (taken.length) {
      this.#incoming = behind(this.#incoming, taken);
      this.touched = true;
    }
    return taken.length === missing;
  }

  // --- what it is sent ---

  /** The page has changed since the domain was last notified. */
  touched = false;

  /** Answers a request. */
  reply(
    { request, transaction }: XsMessage,
    type: number,
    payload: Uint8Array,
    cause: number,
  ): void {
    const { accounts } = this.host, long = payload.length > 16;
    if (payload.length > XENSTORE.PAYLOAD_MAX) {
      return this.#refuse(request, transaction, "E2BIG", cause);
    }
    const bytes = encodeMessage({ type, request, transaction, payload });
    if (!accounts.charge(this.id, bytes.length, long)) {
      return this.#refuse(request, transaction, "ENOMEM", cause);
    }
    this.#push({ bytes, event: false, cause, expires: Infinity });
  }
  #refuse(request: number, transaction: number, name: string, cause: number): void {
    const payload = bytesOfText(`${name}\0`);
    this.reply({ request, transaction, type: 0, payload }, XS.ERROR, payload, cause);
  }

  send(path: string, token: string, cause: number): void {
    const payload = bytesOfText(`${path}\0${token}\0`);
    if (payload.length > XENSTORE.PAYLOAD_MAX) return;
    const bytes = encodeMessage({ type: XS.WATCH_EVENT, request: 0, transaction: 0, payload });
    // One that waits already says it.
    const same = (it: Outgoing) => it.event && equal(it.bytes, bytes);
    if (path[0] !== "@" && this.#queue.some(same)) return;
    if (!this.host.accounts.charge(this.id, bytes.length, true)) return;
    this.#push({ bytes, event: true, cause, expires: this.host.now() + EVENT_PATIENCE });
  }
  #push(message: Outgoing): void {
    this.#queue.push(message);
    this.host.requests.queued(message.cause);
  }
  /** A message is on its way no longer. */
  #done({ bytes, cause }: Outgoing): void {
    this.host.accounts.charge(this.id, -bytes.length, false);
    this.host.requests.sent(cause);
  }

  /** Writes what there is room for. @returns whether a message went out whole */
  flush(): boolean {
    let sent = 0;
    while (sent < this.#queue.length && !this.#broken) {
      const message = this.#queue[sent];
      const put = this.#rings.replies.put(message.bytes.subarray(this.#written));
      if (put === undefined) {
        this.#break(XENSTORE.ERROR_RINGIDX);
        return true;
      }
      if (put) this.touched = true;
      this.#written += put;
      if (this.#written < message.bytes.length) break;
      this.#written = 0;
      sent++;
    }
    for (const message of this.#queue.splice(0, sent)) this.#done(message);
    return sent > 0;
  }

  /** When the first event's time is over (ns); Infinity: never. */
  get deadline(): number {
    return this.#queue.reduce(
      (first, { expires }, n) => n === 0 && this.#written ? first : Math.min(first, expires),
      Infinity,
    );
  }
  /** Drops events that nobody has begun to read in time. */
  expire(now: number): void {
    const keeps = ({ expires }: Outgoing, n: number) =>
      expires > now || n === 0 && this.#written > 0;
    const dropped = this.#queue.filter((it, n) => !keeps(it, n));
    if (dropped.length === 0) return;
    this.#queue = this.#queue.filter(keeps);
    for (const message of dropped) this.#done(message);
  }

  // --- beginnings and ends ---

  /** Nothing is left of what it has sent, and was to be sent. */
  drop(): void {
    this.forget();
    const queue = this.#queue;
    this.#queue = [];
    this.#written = 0;
    this.#incoming = NOTHING;
    for (const message of queue) this.#done(message);
  }
  #break(error: number): undefined {
    this.#broken = true;
    this.drop();
    this.page.setWord(XENSTORE_PAGE.error, error);
    this.touched = true;
  }
  /** Begins anew, with an empty ring. */
  reset(): void {
    const { features, connection, error } = XENSTORE_PAGE;
    const { SERVER_FEATURE_RECONNECTION, SERVER_FEATURE_ERROR } = XENSTORE;
    this.drop();
    this.#broken = false;
    this.#rings.requests.clear();
    this.#rings.replies.clear();
    this.page.setWord(features, SERVER_FEATURE_RECONNECTION | SERVER_FEATURE_ERROR);
    this.page.setWord(error, XENSTORE.ERROR_NONE);
    this.page.setWord(connection, XENSTORE.CONNECTED);
    this.touched = true;
  }

  save(): SavedConnection {
    return {
      id: this.id,
      port: this.port,
      target: this.target,
      shutdown: this.shutdown,
      broken: this.#broken,
      watches: this.watches.map(({ path, token, relative }) => [path, token, relative]),
      transaction: this.last,
      transactions: [...this.transactions.values()].map((each) => each.save()),
      incoming: this.#incoming,
      queue: this.#queue.map(({ bytes, event, cause, expires }) => [bytes, event, cause, expires]),
      written: this.#written,
    };
  }
  load(saved: SavedConnection): void {
    const { host, id } = this, { accounts } = host;
    this.target = saved.target;
    this.shutdown = saved.shutdown;
    this.#broken = saved.broken;
    for (const [path, token, relative] of saved.watches) {
      this.watches.push({ path, token, relative });
      accounts.charge(id, path.length + token.length, false);
    }
    this.last = saved.transaction;
    for (const each of saved.transactions) {
      const transaction = new Transaction(each.id, this, host.store, accounts);
      transaction.load(each);
      this.transactions.set(each.id, transaction);
    }
    this.#incoming = saved.incoming;
    this.#queue = saved.queue.map(([bytes, event, cause, expires]) => {
      accounts.charge(id, bytes.length, false);
      return { bytes, event, cause, expires };
    });
    this.#written = saved.written;
  }
}

function behind(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, n) => byte === b[n]);

export interface SavedConnection {
  readonly id: number;
  readonly port: number;
  readonly target: number | null;
  readonly shutdown: boolean;
  readonly broken: boolean;
  readonly watches: readonly (readonly [path: string, token: string, relative: boolean])[];
  readonly transaction: number;
  readonly transactions: readonly SavedTransaction[];
  readonly incoming: Uint8Array;
  /** Bytes, event, cause, expires. */
  readonly queue: readonly (readonly [Uint8Array, boolean, number, number])[];
  readonly written: number;
}
export const CONNECTION_SHAPE = record({
  id: whole(1, 0xffff),
  port: u32,
  target: orNull(whole(1, 0xffff)),
  shutdown: flag,
  broken: flag,
  watches: list(tuple(text, text, flag)),
  transaction: u32,
  transactions: list(TRANSACTION_SHAPE),
  incoming: bytes(),
  queue: list(tuple(bytes(), flag, whole(), time)),
  written: whole(),
});
