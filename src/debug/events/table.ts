/**
 * The breakpoints of a domain, found by what they wait for: an event asks only those whose kind, and
 * whose address, it has; to add one or take one away costs the same however many there are.
 *
 * @module
 */
import type { Breakpoint } from "./breakpoint.ts";
import { everywhere, type Kind } from "../kinds.ts";

const NONE: ReadonlySet<Breakpoint> = new Set();

export class BreakpointTable {
  /** All of them, switched off ones too, in the order they were made. */
  readonly all = new Set<Breakpoint>();
  readonly #byKind = new Map<Kind, Set<Breakpoint>>();
  readonly #byAddress = new Map<bigint, Set<Breakpoint>>();
  readonly #exits = new Set<Breakpoint>();

  /** Takes in what a breakpoint has come to: new, enabled or not, deleted. */
  update(b: Breakpoint): void {
    if (b.deleted) this.all.delete(b);
    else this.all.add(b);
    put(this.#byKind, b.kind, b);
    if (b.kind === "execute") put(this.#byAddress, b.filter.address as bigint, b);
    if (everywhere.includes(b.kind)) return;
    if (b.enabled) this.#exits.add(b);
    else this.#exits.delete(b);
  }

  /** The enabled ones of a kind. */
  of(kind: Kind): ReadonlySet<Breakpoint> {
    return this.#byKind.get(kind) ?? NONE;
  }
  /** The enabled ones of kind "execute" at a linear address. */
  at(address: bigint): ReadonlySet<Breakpoint> {
    return this.#byAddress.get(address) ?? NONE;
  }
  /** The enabled ones that wait for exits. */
  get exits(): ReadonlySet<Breakpoint> {
    return this.#exits;
  }
}

function put<K>(map: Map<K, Set<Breakpoint>>, key: K, b: Breakpoint): void {
  const list = map.get(key);
  if (b.enabled) {
    if (list) list.add(b);
    else map.set(key, new Set([b]));
  } else if (list?.delete(b) && list.size === 0) map.delete(key);
}
