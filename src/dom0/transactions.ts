/**
 * Transactions: changes that nobody else sees before their end, and that are made there only if
 * everything the transaction has looked at is still as it was.
 *
 * @module
 */
import { amount, flag, list, orNull, record, text, tuple, whole } from "../machine/shape.ts";
import {
  type Caller,
  loadPermissions,
  type Permission,
  PERMISSIONS_SHAPE,
  type SavedPermissions,
  savePermissions,
  withoutDomain,
} from "./permissions.ts";
import type { Accounts } from "./quotas.ts";
import { loadNode, SAVED_NODE, type SavedNode, saveNode } from "./store_state.ts";
import {
  isTooLarge,
  keptFor,
  type NodeChange,
  type NodeContent,
  type Store,
  type StoreNode,
  type StoreRefusal,
  type Tree,
} from "./store.ts";

/** A node that a transaction has looked at. */
interface Accessed {
  /** As the transaction has it now. */
  node: StoreNode | undefined;
  /** As it was: its generation (0: there was none) and permissions. */
  readonly generation: number;
  before: readonly Permission[] | undefined;
  modified: boolean;
  /** Who is told at the end: nobody, those who watch this very path, or those above it, too. */
  tell: "none" | "exact" | "all";
}

const TELL = ["none", "exact", "all"] as const;

export interface SavedTransaction {
  readonly id: number;
  /** Path, node, generation, permissions as they were, modified, who is told. */
  readonly accessed: readonly (readonly [
    string,
    SavedNode | null,
    number,
    SavedPermissions | null,
    boolean,
    number,
  ])[];
  readonly owned: readonly (readonly [domain: number, more: number])[];
  readonly created: boolean;
  readonly failed: boolean;
}
export const TRANSACTION_SHAPE = record({
  id: whole(1, 0xffff_ffff),
  accessed: list(
    tuple(text, orNull(SAVED_NODE), amount, orNull(PERMISSIONS_SHAPE), flag, whole(0, 2)),
  ),
  owned: list(tuple(whole(0, 0xffff_ffff), whole(-1_000_000, 1_000_000))),
  created: flag,
  failed: flag,
});

export class Transaction implements Tree {
  /** In the order of the first look. */
  readonly #accessed = new Map<string, Accessed>();
  /** Nodes more, or less, that domains own by it. */
  readonly #owned = new Map<number, number>();
  #created = false;
  #failed = false;
  /** Bytes that are kept for it. */
  #kept = 0;

  constructor(
    /** Of its connection; not 0. */
    readonly id: number,
    readonly caller: Caller,
    readonly store: Store,
    readonly accounts: Accounts,
  ) {}

  read(path: string): StoreNode | StoreRefusal | undefined {
    const seen = this.#accessed.get(path);
    if (seen) return seen.node;
    const { caller, accounts, store } = this;
    if (caller.id !== 0 && this.#accessed.size >= accounts.quotas["transaction-nodes"]) {
      this.#failed = true;
      return "ENOSPC";
    }
    const node = store.read(path);
    this.#accessed.set(path, {
      node,
      generation: node?.generation ?? 0,
      before: node?.permissions,
      modified: false,
      tell: "none",
    });
    this.#keep(path.length + keptFor(path, node), false);
    return node;
  }
  #keep(bytes: number, checked: boolean): boolean {
    const kept = this.accounts.charge(this.caller.id, bytes, checked);
    if (kept) this.#kept += bytes;
    return kept;
  }
  /** One that was read. */
  #at(path: string): Accessed {
    const seen = this.#accessed.get(path);
    if (!seen) throw new Error(`transaction ${this.id} changes ${path}, and has not read it`);
    return seen;
  }

  put(path: string, node: NodeContent, caller: Caller, checked: boolean): StoreRefusal | undefined {
    const seen = this.#at(path), { accounts, store } = this;
    const large = checked && isTooLarge(node, caller, accounts);
    if (large || !this.#keep(keptFor(path, node) - keptFor(path, seen.node), checked)) {
      this.#failed = true;
      return large ? "ENOSPC" : "ENOMEM";
    }
    const { value, permissions, children } = node;
    seen.node = { value, permissions, children, generation: ++store.generation };
    seen.modified = true;
  }
  remove(path: string): void {
    const seen = this.#at(path);
    this.#keep(-keptFor(path, seen.node), false);
    seen.node = undefined;
    seen.modified = true;
  }
  changed({ path, exact }: NodeChange): void {
    const seen = this.#at(path);
    if (!exact || seen.tell === "none") seen.tell = exact ? "exact" : "all";
  }
  own(domain: number, more: number): void {
    this.#owned.set(domain, (this.#owned.get(domain) ?? 0) + more);
  }
  creates(): void {
    this.#created = true;
  }
  fail(): void {
    this.#failed = true;
  }

  /** A domain is no more: nor are its rights in what this holds, and it can be given nothing. */
  withdraw(domain: number): void {
    if (this.#owned.has(domain)) this.#failed = true;
    for (const seen of this.#accessed.values()) {
      const { node, before } = seen;
      if (node) seen.node = { ...node, permissions: withoutDomain(node.permissions, domain) };
      if (before) seen.before = withoutDomain(before, domain);
    }
  }

  /** It is over. */
  drop(): void {
    this.#keep(-this.#kept, false);
  }

  /** Makes the changes. @returns why not: then nothing has changed */
  commit(): StoreRefusal | undefined {
    return this.#refusal() ?? this.#apply();
  }
  #refusal(): StoreRefusal | undefined {
    const { caller, accounts, store } = this;
    if (this.#failed) return "ENOMEM";
    for (const [domain, more] of this.#owned) {
      const counted = this.#created && caller.id !== 0 && domain !== 0;
      if (counted && accounts.of(domain).nodes + more >= accounts.quotas.nodes) return "ENOSPC";
    }
    for (const [path, { generation }] of this.#accessed) {
      if ((store.read(path)?.generation ?? 0) !== generation) return "EAGAIN";
    }
  }
  /** In the order of the first look: each is told when it is done. */
  #apply(): undefined {
    const { caller, store } = this;
    for (const [path, { node, before, modified, tell }] of this.#accessed) {
      if (!modified) continue;
      if (node) store.put(path, node, caller, false);
      else store.remove(path);
      if (tell !== "none") store.changed({ path, exact: tell === "exact", before });
    }
    for (const [domain, more] of this.#owned) store.own(domain, more);
  }

  save(): SavedTransaction {
    return {
      id: this.id,
      accessed: [...this.#accessed].map(([path, { node, generation, before, modified, tell }]) => [
        path,
        node ? saveNode(node) : null,
        generation,
        before ? savePermissions(before) : null,
        modified,
        TELL.indexOf(tell),
      ]),
      owned: [...this.#owned],
      created: this.#created,
      failed: this.#failed,
    };
  }
  load(saved: SavedTransaction): void {
    for (const [path, node, generation, before, modified, tell] of saved.accessed) {
      const loaded = node ? loadNode(node) : undefined;
      this.#accessed.set(path, {
        node: loaded,
        generation,
        before: before ? loadPermissions(before) : undefined,
        modified,
        tell: TELL[tell],
      });
      this.#keep(path.length + keptFor(path, loaded), false);
    }
    for (const [domain, more] of saved.owned) this.#owned.set(domain, more);
    this.#created = saved.created;
    this.#failed = saved.failed;
  }
}
