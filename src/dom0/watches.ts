/**
 * Watches: who is told of which changes.
 *
 * @module
 */
import { XENSTORE } from "../abi/xen/io/xs_wire.ts";
import { absolutePath, domainPath, isPath, isWithin, parentPath } from "./paths.ts";
import { ACCESS, accessOf, type Caller, type Permission } from "./permissions.ts";
import type { Accounts } from "./quotas.ts";
import type { NodeChange, Store, StoreRefusal } from "./store.ts";

/** Told when a domain is introduced; and when one shuts down, or is no more. */
export const INTRODUCED = "@introduceDomain", RELEASED = "@releaseDomain";

export interface PathWatch {
  /** Absolute, or special. */
  readonly path: string;
  readonly token: string;
  /** Its events have relative paths. */
  readonly relative: boolean;
}

/** Who watches. */
export interface Watcher extends Caller {
  readonly watches: PathWatch[];
  /** An event is sent, or lost. */
  send(path: string, token: string, cause: number): void;
}

/** Permissions of the special paths. */
export type SpecialPermissions = Map<string, readonly Permission[]>;

export const newSpecial = (): SpecialPermissions =>
  new Map([INTRODUCED, RELEASED].map((path) => [path, [{ domain: 0, access: 0 }]]));

/** The path as the watch's owner is told it. */
const shown = (path: string, { relative }: PathWatch, { id }: Caller): string =>
  relative ? path.slice(domainPath(id).length + 1) : path;

/** May he know of the change: can he read the node, or that above it, or could he before? */
function mayKnow(watcher: Watcher, { path, node, before }: NodeChange, store: Store): boolean {
  const reads = (permissions: readonly Permission[]) =>
    (accessOf(watcher, permissions) & ACCESS.read) !== 0;
  if (before && reads(before)) return true;
  const there = node ?? store.read(path);
  if (!there) return false;
  if (reads(there.permissions)) return true;
  const parent = store.read(parentPath(path));
  return parent !== undefined && reads(parent.permissions);
}

/**
 * Tells who watches of a change: in the order of the watchers, and of the watches of each.
 *
 * @param cause number of the request that made it; 0: nobody's
 */
export function fire(
  watchers: Iterable<Watcher>,
  change: NodeChange,
  store: Store,
  cause: number,
): void {
  const { path, exact } = change;
  for (const watcher of watchers) {
    const matching = watcher.watches.filter((watch) =>
      exact ? watch.path === path : isWithin(path, watch.path)
    );
    if (matching.length === 0 || !mayKnow(watcher, change, store)) continue;
    for (const watch of matching) watcher.send(shown(path, watch, watcher), watch.token, cause);
  }
}

/** Tells of what happened to a domain. */
export function fireSpecial(
  watchers: Iterable<Watcher>,
  path: string,
  special: SpecialPermissions,
): void {
  for (const watcher of watchers) {
    if (!(accessOf(watcher, special.get(path)!) & ACCESS.read)) continue;
    for (const watch of watcher.watches) {
      if (watch.path === path) watcher.send(path, watch.token, 0);
    }
  }
}

/** Watches a path from now on; there is an event at once. */
export function addWatch(
  watcher: Watcher,
  path: string,
  token: string,
  accounts: Accounts,
): StoreRefusal | PathWatch {
  const special = path[0] === "@", absolute = absolutePath(path, watcher.id);
  const valid = special
    ? path.length <= XENSTORE.REL_PATH_MAX
    : isPath(absolute, accounts.quotas["path-max"]);
  if (!valid) return "EINVAL";
  const same = (watch: PathWatch) => watch.path === absolute && watch.token === token;
  if (watcher.watches.some(same)) return "EEXIST";
  // xenstored compares before it adds: one more than the quota is let through.
  if (watcher.id !== 0 && watcher.watches.length > accounts.quotas.watches) return "E2BIG";
  if (!accounts.charge(watcher.id, absolute.length + token.length, true)) return "ENOMEM";
  const watch = { path: absolute, token, relative: !special && path[0] !== "/" };
  watcher.watches.push(watch);
  return watch;
}

/** The event that a new watch begins with. */
export const greet = (watcher: Watcher, watch: PathWatch): void =>
  watcher.send(shown(watch.path, watch, watcher), watch.token, 0);

export function removeWatch(
  watcher: Watcher,
  path: string,
  token: string,
  accounts: Accounts,
): StoreRefusal | undefined {
  const absolute = absolutePath(path, watcher.id), { watches } = watcher;
  const at = watches.findIndex((watch) => watch.path === absolute && watch.token === token);
  if (at < 0) return "ENOENT";
  watches.splice(at, 1);
  accounts.charge(watcher.id, -(absolute.length + token.length), false);
}

export function removeWatches(watcher: Watcher, accounts: Accounts): void {
  for (const { path, token } of watcher.watches.splice(0)) {
    accounts.charge(watcher.id, -(path.length + token.length), false);
  }
}
