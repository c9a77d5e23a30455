/**
 * XenStore from within domain 0: its requests as functions, and watches that call.
 *
 * A client sends what a domain would send over its ring, so that whoever looks at requests sees them,
 * and one meaning does for both. Domain 0 may do everything, and has no quotas.
 *
 * @module
 */
import { XENSTORE, XS } from "../abi/xen/io/xs_wire.ts";
import { Connection } from "./connection.ts";
import { parsePermission } from "./permissions.ts";
import type { StoreRefusal } from "./store.ts";
import { bytesOfText, joined, stringsOf, textOf } from "./text.ts";
import type { Xenstored } from "./xenstored.ts";

/** XenStore refuses something. */
export class XenstoreError extends Error {
  /** Its name. */
  override name = "XenstoreError";

  /** The errno's name. */
  readonly code: string;

  /** @ignore Made where xenstore refuses; `what` was asked for: "read /a". */
  constructor(code: StoreRefusal, what: string) {
    super(`${what}: ${code}: ${REASONS[code] ?? "refused"}`);
    this.code = code;
  }
}

const REASONS: Partial<Record<StoreRefusal, string>> = {
  EINVAL:
    "not valid: a path begins with a slash, ends in none, and has letters, digits and -/_@ alone",
  EACCES: "not permitted",
  ENOENT: "there is no such node, domain or transaction",
  EEXIST: "there is one already",
  ENOSPC: "a quota is used up",
  ENOMEM: "a quota is used up, or the transaction has failed before",
  E2BIG: "too large for a message",
  EAGAIN: "somebody else has changed what the transaction looked at",
  EPERM: "only domain 0 changes owners",
};

/** Who may do what: "r5" lets domain 5 read; w: write; b: both; n: neither. The owner is the first. */
export type PermissionText = `${"n" | "r" | "w" | "b"}${number}`;

/** A change that a watch tells of. */
export interface StoreEvent {
  /** Of the node that has changed; the watched one, if something above that was removed. */
  readonly path: string;
}

/** A node's value as text (UTF-8), or as bytes. */
export type StoreValue = string | Uint8Array;

const utf8 = new TextEncoder(), fromUtf8 = new TextDecoder();

type Send = (type: number, payload: Uint8Array, what: string) => Uint8Array;

/** What can be done with nodes, all together or in a transaction. */
export class StoreNodes {
  readonly #send: Send;
  /** @ignore Made with a client, or a transaction. */
  constructor(send: Send) {
    this.#send = send;
  }

  /** A node's value as text. @throws {XenstoreError} */
  read(path: string): string {
    return fromUtf8.decode(this.readBytes(path));
  }
  /** A node's value. @throws {XenstoreError} */
  readBytes(path: string): Uint8Array {
    return this.#send(XS.READ, joined([path]), `read ${path}`).slice();
  }
  /** Is there such a node? @throws {XenstoreError} */
  exists(path: string): boolean {
    try {
      this.permissions(path);
      return true;
    } catch (error) {
      if (error instanceof XenstoreError && error.code === "ENOENT") return false;
      throw error;
    }
  }
  /** Writes a value; nodes that are missing are made. @throws {XenstoreError} */
  write(path: string, value: StoreValue): void {
    const bytes = typeof value === "string" ? utf8.encode(value) : value;
    const payload = new Uint8Array(path.length + 1 + bytes.length);
    payload.set(bytesOfText(path));
    payload.set(bytes, path.length + 1);
    this.#send(XS.WRITE, payload, `write ${path}`);
  }
  /** There is such a node afterwards. @throws {XenstoreError} */
  mkdir(path: string): void {
    this.#send(XS.MKDIR, joined([path]), `mkdir ${path}`);
  }
  /** Names of a node's children, the oldest first. @throws {XenstoreError} */
  list(path: string): string[] {
    const what = `list ${path}`;
    // In parts: they may be more than a message holds.
    for (;;) {
      let all = "", first: string | undefined;
      for (;;) {
        const [generation, ...names] = stringsOf(
          this.#send(XS.DIRECTORY_PART, joined([path, `${all.length}`]), what),
        );
        first ??= generation;
        if (generation !== first) break;
        const last = names.at(-1) === "";
        all += names.slice(0, last ? -1 : undefined).map((name) => `${name}\0`).join("");
        if (last) return all.split("\0").slice(0, -1);
      }
    }
  }
  /**
   * Takes a node away, and all below it; that it is not there is no error, if the one above is.
   *
   * @throws {XenstoreError}
   */
  remove(path: string): void {
    this.#send(XS.RM, joined([path]), `remove ${path}`);
  }
  /** Who may do what with a node: its owner is the first. @throws {XenstoreError} */
  permissions(path: string): PermissionText[] {
    const texts = stringsOf(this.#send(XS.GET_PERMS, joined([path]), `permissions ${path}`));
    return texts as PermissionText[];
  }
  /** The first is the owner's, and holds for all who are not listed. @throws {XenstoreError} */
  setPermissions(path: string, permissions: readonly PermissionText[]): void {
    const wrong = permissions.find((each) => !parsePermission(each));
    if (wrong !== undefined || permissions.length === 0) {
      throw new TypeError(
        `permissions ${permissions.join(" ")}: expected at least one of n, r, w or b with a ` +
          `domain's number, such as "r5"`,
      );
    }
    this.#send(XS.SET_PERMS, joined([path, ...permissions]), `permissions ${path}`);
  }
}

/** A transaction of domain 0: nobody else sees what it does before {@linkcode commit}. */
export class StoreTransaction extends StoreNodes {
  readonly #finish: (commit: boolean) => boolean;
  /** @ignore Made by {@linkcode StoreClient.begin}. */
  constructor(send: Send, finish: (commit: boolean) => boolean) {
    super(send);
    this.#finish = finish;
  }
  /**
   * Makes the changes.
   *
   * @returns false: somebody else has changed what it looked at, and nothing is done
   * @throws {XenstoreError}
   */
  commit(): boolean {
    return this.#finish(true);
  }
  /** Forgets the changes. @throws {XenstoreError} */
  abort(): void {
    this.#finish(false);
  }
}

/** A watch of domain 0: events until it is closed, for who waits for them. */
export class StoreWatch implements AsyncIterable<StoreEvent>, Disposable {
  #events: StoreEvent[] = [];
  #closed = false;
  #wake: (() => void) | undefined;
  readonly #close: () => void;

  /** @ignore Made by {@linkcode StoreClient.watch}. */
  constructor(
    /** What is watched. */
    readonly path: string,
    close: () => void,
  ) {
    this.#close = close;
  }
  /** An event has come. One that waits already is not kept twice. */
  push(event: StoreEvent): void {
    if (!this.#events.some(({ path }) => path === event.path)) this.#events.push(event);
    this.#wake?.();
  }
  /** Ends it: nothing comes any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#close();
    this.#wake?.();
  }
  /** The same, at the end of a `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
  /** Events, as they come. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StoreEvent, void, void> {
    try {
      while (!this.#closed) {
        const event = this.#events.shift();
        if (event) yield event;
        else await new Promise<void>((resolve) => this.#wake = resolve);
      }
    } finally {
      this.close();
    }
  }
}

class LocalConnection extends Connection {
  readonly heard = new Map<string, (event: StoreEvent) => void>();
  constructor(readonly daemon: Xenstored) {
    super(daemon, 0);
  }
  send(path: string, token: string): void {
    this.daemon.later(() => this.heard.get(token)?.({ path }));
  }
}

/** What a client does, for the list of what comes from outside. */
export interface ClientOptions {
  /** Told before each request that may change something. */
  readonly enter?: (type: number, payload: Uint8Array) => void;
}

const READING: ReadonlySet<number> = new Set([
  XS.READ,
  XS.DIRECTORY,
  XS.DIRECTORY_PART,
  XS.GET_PERMS,
  XS.GET_DOMAIN_PATH,
  XS.IS_DOMAIN_INTRODUCED,
  XS.WATCH,
  XS.UNWATCH,
  XS.TRANSACTION_START,
]);

/** A value on one line. */
const MOST_TEXT = 60;
function treeLines(nodes: StoreNodes, path: string, indent: string, name: string): string[] {
  const value = nodes.read(path), permissions = nodes.permissions(path).join(" ");
  const text = JSON.stringify(value.length > MOST_TEXT ? `${value.slice(0, MOST_TEXT)}…` : value);
  const line = `${indent}${name}${value ? ` = ${text}` : ""}`;
  const below = nodes.list(path).sort().flatMap((child) =>
    treeLines(nodes, path === "/" ? `/${child}` : `${path}/${child}`, `${indent}  `, child)
  );
  return [`${line.padEnd(56)}  (${permissions})`, ...below];
}

/** Domain 0's way to XenStore: for the shell, the builder, and backends. */
export class StoreClient extends StoreNodes {
  readonly #connection: LocalConnection;
  readonly #options: ClientOptions;
  #watch = 0;

  /** @ignore Made with domain 0. */
  constructor(daemon: Xenstored, options: ClientOptions = {}) {
    super((type, payload, what) => this.request(type, payload, what));
    this.#connection = new LocalConnection(daemon);
    this.#options = options;
    daemon.open(this.#connection);
  }
  /** Its watches and transactions are no more. */
  close(): void {
    this.#connection.daemon.close(this.#connection);
  }

  /**
   * Sends any request.
   *
   * @param what words for what is asked for, if it is refused
   * @throws {XenstoreError}
   */
  request(type: number, payload: Uint8Array, what: string, transaction = 0): Uint8Array {
    const connection = this.#connection, { daemon } = connection;
    if (payload.length > XENSTORE.PAYLOAD_MAX) throw new XenstoreError("E2BIG", what);
    if (!READING.has(type)) this.#options.enter?.(type, payload);
    let answer: Uint8Array | undefined, refusal: StoreRefusal | undefined;
    daemon.process(connection, { type, request: 0, transaction, payload }, (type, payload) => {
      if (type === XS.ERROR) refusal = textOf(payload.subarray(0, -1)) as StoreRefusal;
      else answer = payload;
    });
    daemon.run();
    if (!answer) throw new XenstoreError(refusal!, what);
    return answer;
  }

  /** Begins a transaction. */
  begin(): StoreTransaction {
    const id = Number(stringsOf(this.request(XS.TRANSACTION_START, joined([""]), "begin"))[0]);
    return new StoreTransaction(
      (type, payload, what) => this.request(type, payload, what, id),
      (commit) => {
        try {
          this.request(XS.TRANSACTION_END, joined([commit ? "T" : "F"]), "end", id);
          return true;
        } catch (error) {
          if (error instanceof XenstoreError && error.code === "EAGAIN") return false;
          throw error;
        }
      },
    );
  }
  /**
   * Does something in a transaction, again and again until nobody else comes in between.
   *
   * @throws {XenstoreError} EAGAIN after so many times
   */
  async transaction<T>(
    work: (nodes: StoreTransaction) => T | Promise<T>,
    times = 100,
  ): Promise<T> {
    for (let n = 0; n < times; n++) {
      const transaction = this.begin();
      let result: T;
      try {
        result = await work(transaction);
      } catch (error) {
        transaction.abort();
        throw error;
      }
      if (transaction.commit()) return result;
    }
    throw new XenstoreError("EAGAIN", `a transaction, ${times} times`);
  }

  /** A node and all below it as text: names, values, permissions. @throws {XenstoreError} */
  tree(path = "/"): string {
    return treeLines(this, path, "", path).join("\n");
  }
  /** @ignore */
  [Symbol.for("Deno.customInspect")](): string {
    return `${this.tree()}\n  read(path) write(path, value) list(path) remove(path) permissions(path) watch(path)` +
      "\n  transaction(work) tree(path)";
  }

  /**
   * Watches a node and all below it, or a special path ("@introduceDomain", "@releaseDomain"). There is
   * an event at once, and one after each change.
   *
   * @param called with each event when the change is done, and everybody else has been told; a loop
   * over the watch is given none then
   * @throws {XenstoreError}
   */
  watch(path: string, called?: (event: StoreEvent) => void): StoreWatch {
    const connection = this.#connection, token = `${++this.#watch}`;
    const watch = new StoreWatch(path, () => {
      connection.heard.delete(token);
      this.request(XS.UNWATCH, joined([path, token]), `unwatch ${path}`);
    });
    connection.heard.set(token, called ?? ((event) => watch.push(event)));
    try {
      this.request(XS.WATCH, joined([path, token]), `watch ${path}`);
    } catch (error) {
      connection.heard.delete(token);
      throw error;
    }
    return watch;
  }
}
