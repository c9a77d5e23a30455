/**
 * XenStore, as a service of domain 0: connections over rings, requests, and who is told what.
 *
 * All of it happens at once, and in one order: when a domain notifies its port, everything is done
 * that can be, one request of each domain at a time, until nothing more can go on.
 *
 * @module
 */
import { XS } from "../abi/xen/io/xs_wire.ts";
import type { StateRegister } from "../machine/state_block.ts";
import { type Connection, type ConnectionHost, DomainConnection, Requests } from "./connection.ts";
import type { XsMessage } from "./messages.ts";
import { cutOff } from "./operations.ts";
import { childPath } from "./paths.ts";
import { loadPermissions, savePermissions, withoutDomain } from "./permissions.ts";
import { Accounts, QUOTAS } from "./quotas.ts";
import { type Domains, REQUESTS, runRequest } from "./requests.ts";
import { plainPage, type RingPage } from "./ring.ts";
import { isRefusal, type NodeChange, ownerOf, Store, type StoreRefusal } from "./store.ts";
import { loadNode, saveNode } from "./store_state.ts";
import { bytesOfText } from "./text.ts";
import {
  fire,
  fireSpecial,
  INTRODUCED,
  newSpecial,
  RELEASED,
  type SpecialPermissions,
} from "./watches.ts";
import { checkSaved, problemsOf, type SavedXenstore, XENSTORE_SHAPE } from "./xenstored_state.ts";

/** What XenStore is given of the hypervisor. */
export interface XenstoreHost {
  /** Is there a domain of this id? */
  exists(domain: number): boolean;
  /** The page with a domain's ring; undefined: it has granted none. */
  page(domain: number): RingPage | undefined;
  /** The page is not used any longer. */
  letGo(domain: number): void;
  /** Domain 0's new end of a channel to an unbound port of a domain; 0: it cannot be bound. */
  bind(domain: number, port: number): number;
  /** Closes domain 0's end of a channel. */
  unbind(port: number): void;
  notify(port: number): void;
  /** Time (ns); events that nobody reads are dropped by it. */
  now(): number;
}

/** A request and its answer, for those who look. */
export interface SeenRequest {
  readonly domain: number;
  readonly message: XsMessage;
  /** Type and payload of the answer. */
  readonly type: number;
  readonly payload: Uint8Array;
}

export class Xenstored implements Domains, ConnectionHost {
  readonly accounts: Accounts = new Accounts({ ...QUOTAS });
  readonly store: Store = new Store(this.accounts, (change) => this.#changed(change));
  readonly requests: Requests = new Requests(this.accounts);
  readonly special: SpecialPermissions = newSpecial();
  /** Of domains, in the order of their introduction. */
  readonly #connections = new Map<number, DomainConnection>();
  /** Of domain 0. */
  readonly #locals = new Set<Connection>();
  /** The request under way. */
  #cause = 0;
  #running = false;
  /** What those in domain 0 are told, when nothing else can go on. */
  #tell: (() => void)[] = [];
  /** Asked before a request is done: it may refuse it. */
  readonly onRequest: Set<(domain: number, message: XsMessage) => StoreRefusal | void> = new Set();
  /** Told of each request and its answer. */
  readonly onAnswer: Set<(seen: SeenRequest) => void> = new Set();

  constructor(readonly host: XenstoreHost) {}

  now(): number {
    return this.host.now();
  }

  // --- who is told of changes ---

  *#watchers(): Iterable<Connection> {
    yield* this.#connections.values();
    yield* this.#locals;
  }
  #changed(change: NodeChange): void {
    fire(this.#watchers(), change, this.store, this.#cause);
  }
  /** Domain 0 is told when everything else is done. */
  later(tell: () => void): void {
    this.#tell.push(tell);
  }

  // --- requests ---

  /** Does what a message asks for. @param answer is told of it before the events that it makes at once */
  process(
    caller: Connection,
    message: XsMessage,
    answer: (type: number, payload: Uint8Array) => void,
  ): void {
    const afterwards: (() => void)[] = [];
    const result = this.#refused(caller.id, message) ??
      this.#run(caller, message, (work) => afterwards.push(work));
    const type = isRefusal(result) ? XS.ERROR : message.type;
    const payload = isRefusal(result) ? bytesOfText(`${result}\0`) : result;
    answer(type, payload);
    for (const work of afterwards) work();
    for (const told of this.onAnswer) told({ domain: caller.id, message, type, payload });
  }
  #refused(domain: number, message: XsMessage): StoreRefusal | undefined {
    for (const asked of this.onRequest) {
      const refusal = asked(domain, message);
      if (refusal) return refusal;
    }
  }
  #run(
    caller: Connection,
    { type, transaction: id, payload }: XsMessage,
    afterwards: (work: () => void) => void,
  ): Uint8Array | StoreRefusal {
    const kind = REQUESTS[type], { accounts, store } = this;
    const named = id !== 0 && !kind?.outside;
    const transaction = named ? caller.transactions.get(id) : undefined;
    const context = {
      tree: transaction ?? store,
      caller,
      accounts,
      transaction,
      domains: this,
      afterwards,
    };
    return runRequest(context, kind, payload, named && !transaction);
  }

  /** Whoever looks at requests may have ended the domain. */
  #talksWith(connection: DomainConnection): boolean {
    return this.#connections.get(connection.id) === connection;
  }
  /** Does the next request of a domain. @returns whether there was one */
  #serve(connection: DomainConnection): boolean {
    const message = connection.receive();
    if (!message) return false;
    this.#cause = this.requests.begin(connection.id);
    try {
      this.process(connection, message, (type, payload) => {
        if (this.#talksWith(connection)) connection.reply(message, type, payload, this.#cause);
      });
    } finally {
      this.#cause = 0;
    }
    return true;
  }

  // --- what goes on ---

  /** Does all that can be done: when a domain has notified its port, or domain 0 has changed something. */
  run(): void {
    if (this.#running) return;
    this.#running = true;
    try {
      const now = this.host.now();
      for (const connection of this.#connections.values()) {
        connection.expire(now);
        if (connection.wantsReset) connection.reset();
      }
      while (this.#step() || this.#tellLocals());
    } finally {
      this.#running = false;
    }
  }
  #step(): boolean {
    let goesOn = false;
    for (const connection of [...this.#connections.values()]) {
      if (!this.#talksWith(connection)) continue;
      if (connection.flush()) goesOn = true;
      if (this.#serve(connection)) goesOn = true;
    }
    if (!goesOn) this.#notify();
    return goesOn;
  }
  #notify(): void {
    for (const connection of this.#connections.values()) {
      if (!connection.touched) continue;
      connection.touched = false;
      if (connection.port) this.host.notify(connection.port);
    }
  }
  /** What they throw is thrown where it stops nobody else. */
  #tellLocals(): boolean {
    const told = this.#tell.splice(0);
    for (const tell of told) {
      try {
        tell();
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    return told.length > 0;
  }

  /** When {@linkcode run} has something to do without anybody's asking (ns); Infinity: never. */
  get deadline(): number {
    let first = Infinity;
    for (const { deadline } of this.#connections.values()) first = Math.min(first, deadline);
    return first;
  }

  // --- domains ---

  exists(domain: number): boolean {
    return domain === 0 || this.host.exists(domain);
  }
  isIntroduced(domain: number): boolean {
    return domain === 0 || this.#connections.has(domain);
  }

  /**
   * Talks with a domain from now on, over its page, and a channel to its unbound port. One that is
   * introduced already begins anew.
   */
  introduce(domain: number, port: number): StoreRefusal | void {
    const { host } = this, known = this.#connections.get(domain);
    if (!known && (domain <= 0 || !host.page(domain))) return "EINVAL";
    if (known?.port) host.unbind(known.port);
    const bound = host.bind(domain, port);
    if (!known && bound === 0) return "EINVAL";
    const connection = known ?? this.#connect(domain, bound);
    connection.port = bound;
    connection.reset();
    if (!known) {
      // A domain that begins is not told: it finds the page as it is.
      connection.touched = false;
      this.#connections.set(domain, connection);
      fireSpecial(this.#watchers(), INTRODUCED, this.special);
    }
    this.run();
  }

  #connect(domain: number, port: number): DomainConnection {
    return new DomainConnection(
      this,
      domain,
      port,
      () => this.host.page(domain) ?? plainPage(),
    );
  }

  /** Talks with a domain no longer; what it owned goes. */
  release(domain: number): StoreRefusal | void {
    if (!this.#connections.has(domain)) return "ENOENT";
    this.gone(domain);
  }

  /**
   * A domain is no more, introduced or not: nor are its nodes, nor its rights. To be called when it
   * dies; its page is not looked at after that.
   */
  gone(domain: number): void {
    const { special, accounts, requests } = this;
    const connection = this.#connections.get(domain);
    if (connection) {
      this.#connections.delete(domain);
      connection.drop();
      if (connection.port) this.host.unbind(connection.port);
      this.host.letGo(domain);
    }
    for (const other of this.#connections.values()) {
      if (other.target === domain) other.target = null;
    }
    requests.drop(domain);
    this.#disown(domain, "/");
    this.#withdraw(domain);
    for (const [path, [owner, ...others]] of special) {
      const heir = owner.domain === domain ? { ...owner, domain: 0 } : owner;
      special.set(path, [heir, ...others.filter((each) => each.domain !== domain)]);
    }
    accounts.close(domain);
    if (connection) fireSpecial(this.#watchers(), RELEASED, this.special);
    this.run();
  }
  /** Takes away nodes that a domain owns, with all that is below them. */
  #disown(domain: number, path: string): void {
    const { store, accounts } = this;
    if (accounts.of(domain).nodes === 0) return;
    const node = store.read(path)!;
    if (ownerOf(node) === domain) {
      if (path !== "/") return void cutOff({ tree: store, caller: DOM0, accounts }, path);
      const [owner, ...others] = node.permissions;
      store.put(path, { ...node, permissions: [{ ...owner, domain: 0 }, ...others] }, DOM0, false);
      store.own(domain, -1);
      store.own(0, 1);
    }
    for (const child of node.children) this.#disown(domain, childPath(path, child));
  }
  /** Its rights in others' nodes: who gets its id later does not get them. */
  #withdraw(domain: number): void {
    const { store } = this;
    for (const [path, node] of store.nodes) {
      const permissions = withoutDomain(node.permissions, domain);
      if (permissions !== node.permissions) store.nodes.set(path, { ...node, permissions });
    }
    for (const { transactions } of this.#watchers()) {
      for (const transaction of transactions.values()) transaction.withdraw(domain);
    }
  }

  /** A domain has shut down, or crashed; it is told once. */
  shutdown(domain: number): void {
    const connection = this.#connections.get(domain);
    if (!connection || connection.shutdown) return;
    connection.shutdown = true;
    fireSpecial(this.#watchers(), RELEASED, this.special);
    this.run();
  }
  /** A domain that had shut down goes on. */
  resume(domain: number): StoreRefusal | void {
    const connection = this.#connections.get(domain);
    if (!connection) return "ENOENT";
    connection.shutdown = false;
  }
  setTarget(domain: number, target: number): StoreRefusal | void {
    const connection = this.#connections.get(domain);
    if (!connection || !this.#connections.has(target)) return "ENOENT";
    connection.target = target;
  }

  /** Domain 0 sends requests from within. */
  open(connection: Connection): void {
    this.#locals.add(connection);
  }
  close(connection: Connection): void {
    connection.forget();
    this.#locals.delete(connection);
  }

  // --- for those who look ---

  usage(domain: number): readonly string[] | undefined {
    const connection = this.#connections.get(domain);
    if (!connection && domain !== 0) return undefined;
    const { nodes, outstanding, memory } = this.accounts.of(domain);
    const rows = {
      nodes,
      watches: connection?.watches.length ?? 0,
      transactions: connection?.transactions.size ?? 0,
      outstanding,
      memory,
    };
    return [
      `Domain ${domain}:`,
      ...Object.entries(rows).map(([name, n]) => `${name.padEnd(16)}: ${`${n}`.padStart(8)}`),
    ];
  }
  problems(): readonly string[] {
    return problemsOf(this.#save());
  }
  /** A domain's connection. */
  connection(domain: number): DomainConnection | undefined {
    return this.#connections.get(domain);
  }

  // --- state ---

  register(blocks: StateRegister): void {
    blocks.register<SavedXenstore>({
      name: "xenstore",
      version: 1,
      shape: XENSTORE_SHAPE,
      save: () => this.#save(),
      check: checkSaved,
      load: (saved) => this.#load(saved),
    });
  }
  #save(): SavedXenstore {
    const { store, requests, special, accounts } = this;
    return {
      generation: store.generation,
      nodes: [...store.nodes].map(([path, node]) => [path, saveNode(node)] as const)
        .sort(([a], [b]) => a < b ? -1 : 1),
      special: [...special.values()].map(savePermissions),
      quotas: { ...accounts.quotas },
      requests: requests.save(),
      connections: [...this.#connections.values()].map((each) => each.save()),
    };
  }
  #load(saved: SavedXenstore): void {
    const { accounts, store, requests, special } = this;
    accounts.clear();
    Object.assign(accounts.quotas, saved.quotas);
    store.load(saved.nodes.map(([path, node]) => [path, loadNode(node)]), saved.generation);
    saved.special.forEach((each, n) =>
      special.set([INTRODUCED, RELEASED][n], loadPermissions(each))
    );
    requests.load(saved.requests);
    // Those outside watch what they did; their transactions are over.
    for (const local of this.#locals) local.loaded();
    this.#connections.clear();
    for (const each of saved.connections) {
      const connection = this.#connect(each.id, each.port);
      connection.load(each);
      this.#connections.set(each.id, connection);
    }
  }
}

const DOM0 = { id: 0, target: null };
