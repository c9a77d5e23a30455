/**
 * The breakpoints of a domain, found by what they wait for: an event asks only those whose kind, and
 * whose address, it has; to add one or take one away costs the same however many there are.
 *
 * @module
 */
import type { Break } from "./breakpoint.ts";
import { everywhere, isPlatform, type Kind } from "../kinds.ts";

const NONE: ReadonlySet<Break> = new Set();

export class BreakpointTable {
  /** All of them, switched off ones too, in the order they were made. */
  readonly all: Set<Break> = new Set();
  readonly #byKind = new Map<Kind, Set<Break>>();
  readonly #byAddress = new Map<bigint, Set<Break>>();
  readonly #exits = new Set<Break>();

  /** Takes in what a breakpoint has come to: new, enabled or not, deleted. */
  update(b: Break): void {
    if (b.deleted) this.all.delete(b);
    else this.all.add(b);
    put(this.#byKind, b.kind, b);
    if (b.kind === "execute") put(this.#byAddress, b.filter.address as bigint, b);
    if (everywhere.includes(b.kind) || isPlatform(b.kind)) return;
    if (b.enabled) this.#exits.add(b);
    else this.#exits.delete(b);
  }

  /** The enabled ones of a kind. */
  of(kind: Kind): ReadonlySet<Break> {
    return this.#byKind.get(kind) ?? NONE;
  }
  /** The enabled ones of kind "execute" at a linear address. */
  at(address: bigint): ReadonlySet<Break> {
    return this.#byAddress.get(address) ?? NONE;
  }
  /** The enabled ones that wait for exits. */
  get exits(): ReadonlySet<Break> {
    return this.#exits;
  }
}

function put<K>(map: Map<K, Set<Break>>, key: K, b: Break): void {
  const list = map.get(key);
  if (b.enabled) {
    if (list) list.add(b);
    else map.set(key, new Set([b]));
  } else if (list?.delete(b) && list.size === 0) map.delete(key);
}
