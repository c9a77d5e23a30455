/**
 * XenStore's nodes: values, permissions and children by path. Nodes are not changed, but replaced: so
 * a transaction, or a saved state, holds what it has seen.
 *
 * @module
 */
import type { XSD_ERRORS } from "../abi/xen/io/xs_wire.ts";
import { type Caller, isPrivileged, type Permission } from "./permissions.ts";
import type { Accounts } from "./quotas.ts";

/** Why something is refused: names of errno that messages have. */
export type StoreRefusal = typeof XSD_ERRORS[number];

/** What was to be done was not: results are objects, and refusals are not. */
export const isRefusal = (result: unknown): result is StoreRefusal => typeof result === "string";

/** A node, without its name. */
export interface NodeContent {
  readonly value: Uint8Array;
  /** At least one, the owner's. */
  readonly permissions: readonly Permission[];
  /** Names of children, the oldest first. */
  readonly children: readonly string[];
}
export interface StoreNode extends NodeContent {
  /** Of the last change; no other node, and no transaction, has the same. */
  readonly generation: number;
}

export const ownerOf = (node: NodeContent): number => node.permissions[0].domain;

/** Bytes that xenstored has for a node: a header, permissions, value, names with their nuls. */
const nodeSize = ({ value, permissions, children }: NodeContent): number =>
  children.reduce((sum, { length }) => sum + length + 1, 24 + 8 * permissions.length) +
  value.length;

/** Bytes that are kept for a node. */
export const keptFor = (path: string, node: NodeContent | undefined): number =>
  node ? nodeSize(node) + path.length : 0;

/** A change of a node, for those who watch. */
export interface NodeChange {
  readonly path: string;
  /** Those are told who watch this very path, and nobody who watches above it. */
  readonly exact: boolean;
  /** The node, where it is gone by now. */
  readonly node?: NodeContent;
  /** Permissions from before the change: who could read it then is told, too. */
  readonly before?: readonly Permission[];
}

/** Nodes as a request sees and changes them: all there are, or a transaction's. */
export interface Tree {
  /** A refusal is for good. */
  read(path: string): StoreNode | StoreRefusal | undefined;
  /** @param checked by the caller's quotas */
  put(path: string, node: NodeContent, caller: Caller, checked: boolean): StoreRefusal | undefined;
  /** Takes away a node that was read. */
  remove(path: string): void;
  changed(change: NodeChange): void;
  /** A domain has so many nodes more. */
  own(domain: number, more: number): void;
  /** Nodes will be created. */
  creates(): void;
  /** What has been done so far cannot be taken back. */
  fail(): void;
}

/** Is a node larger than one may be that a domain writes? */
export const isTooLarge = (node: NodeContent, caller: Caller, { quotas }: Accounts): boolean =>
  !isPrivileged(caller) && nodeSize(node) >= quotas["node-size"];

const EMPTY = new Uint8Array();

/** What a new store has. */
const newStore = (): [path: string, node: StoreNode][] =>
  [["/", "tool"], ["/tool", "xenstored"], ["/tool/xenstored"]].map(([path, ...children], n) => [
    path,
    { value: EMPTY, permissions: [{ domain: 0, access: 0 }], children, generation: n + 1 },
  ]);

/** All nodes. */
export class Store implements Tree {
  readonly nodes: Map<string, StoreNode> = new Map();
  generation = 0;

  /** @param changed tells those who watch */
  constructor(readonly accounts: Accounts, readonly changed: (change: NodeChange) => void) {
    this.load(newStore(), 3);
  }

  load(nodes: Iterable<readonly [path: string, node: StoreNode]>, generation: number): void {
    this.nodes.clear();
    this.generation = generation;
    for (const [path, node] of nodes) {
      this.nodes.set(path, node);
      const account = this.accounts.of(ownerOf(node));
      account.nodes++;
      account.memory += keptFor(path, node);
    }
  }

  read(path: string): StoreNode | undefined {
    return this.nodes.get(path);
  }
  put(path: string, node: NodeContent, caller: Caller, checked: boolean): StoreRefusal | undefined {
    const { accounts } = this;
    if (checked && isTooLarge(node, caller, accounts)) return "ENOSPC";
    const old = this.nodes.get(path), kept = keptFor(path, old);
    if (old) accounts.charge(ownerOf(old), -kept, false);
    if (!accounts.charge(ownerOf(node), keptFor(path, node), checked)) {
      if (old) accounts.charge(ownerOf(old), kept, false);
      return "ENOMEM";
    }
    const { value, permissions, children } = node;
    this.nodes.set(path, { value, permissions, children, generation: ++this.generation });
  }
  remove(path: string): void {
    const old = this.nodes.get(path);
    if (!old) return;
    this.accounts.charge(ownerOf(old), -keptFor(path, old), false);
    this.nodes.delete(path);
  }
  own(domain: number, more: number): void {
    this.accounts.of(domain).nodes += more;
  }
  creates(): void {}
  fail(): void {}
}
