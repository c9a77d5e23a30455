/**
 * What requests do with nodes, in whatever tree: rights, parents, owners.
 *
 * @module
 */
import { childPath, isPath, leafName, parentPath } from "./paths.ts";
import { ACCESS, accessOf, type Caller, isPrivileged, type Permission } from "./permissions.ts";
import type { Accounts } from "./quotas.ts";
import {
  isRefusal,
  type NodeContent,
  ownerOf,
  type StoreNode,
  type StoreRefusal,
  type Tree,
} from "./store.ts";

/** A request's view of the store. */
export interface Access {
  readonly tree: Tree;
  readonly caller: Caller;
  readonly accounts: Accounts;
}

const EMPTY = new Uint8Array();

/** A node with which the caller may do all that is wanted (bits of {@linkcode ACCESS}). */
export function getNode(access: Access, path: string, wanted: number): StoreNode | StoreRefusal {
  const { tree, caller, accounts } = access;
  if (!isPath(path, accounts.quotas["path-max"])) return "EINVAL";
  const node = tree.read(path);
  if (isRefusal(node)) return node;
  if (node && (accessOf(caller, node.permissions) & wanted) === wanted) return node;
  return refusalBy(access, path, node ? "EACCES" : "ENOENT", wanted);
}

/** Whether there is a node is a secret of those who may not do anything of the kind above it. */
function refusalBy(
  { tree, caller }: Access,
  path: string,
  refusal: StoreRefusal,
  wanted: number,
): StoreRefusal {
  for (let at = parentPath(path);; at = parentPath(at)) {
    const node = tree.read(at);
    if (isRefusal(node)) return node;
    if (node) return accessOf(caller, node.permissions) & wanted ? refusal : "EACCES";
  }
}

/** Writes a value; a node that is missing is made, and those above it. */
export function writeNode(access: Access, path: string, value: Uint8Array): StoreRefusal | void {
  const { tree, caller } = access, node = getNode(access, path, ACCESS.write);
  const refusal = node === "ENOENT"
    ? createNode(access, path, value)
    : isRefusal(node)
    ? node
    : tree.put(path, { ...node, value }, caller, true);
  if (refusal) return refusal;
  tree.changed({ path, exact: false });
}

/** There is a node afterwards. */
export function makeNode(access: Access, path: string): StoreRefusal | void {
  const node = getNode(access, path, ACCESS.write);
  if (node !== "ENOENT") return isRefusal(node) ? node : undefined;
  const refusal = createNode(access, path, EMPTY);
  if (refusal) return refusal;
  access.tree.changed({ path, exact: false });
}

/** New nodes have the permissions of the one above; what a domain makes is its own. */
function createNode(access: Access, path: string, value: Uint8Array): StoreRefusal | undefined {
  const { tree, caller, accounts } = access, fresh = [path];
  let parent: StoreNode;
  for (;;) {
    const above = parentPath(fresh[0]), node = tree.read(above);
    if (isRefusal(node)) return node;
    if (node) {
      parent = node;
      break;
    }
    fresh.unshift(above);
  }
  tree.creates();
  const [owner, ...others] = parent.permissions;
  const permissions = isPrivileged(caller)
    ? parent.permissions
    : [{ domain: caller.id, access: owner.access }, ...others];
  const content = (at: string, n: number): NodeContent => ({
    value: at === path ? value : EMPTY,
    permissions,
    children: at === path ? [] : [leafName(fresh[n + 1])],
  });
  const made: string[] = [];
  let refusal: StoreRefusal | undefined;
  // The lowest first, and at last the one that was there.
  for (let n = fresh.length - 1; n >= 0 && !refusal; n--) {
    refusal = accounts.reached(caller.id, "nodes")
      ? "ENOSPC"
      : tree.put(fresh[n], content(fresh[n], n), caller, true);
    if (refusal) break;
    tree.own(permissions[0].domain, 1);
    made.push(fresh[n]);
  }
  const children = [...parent.children, leafName(fresh[0])];
  refusal ??= tree.put(parentPath(fresh[0]), { ...parent, children }, caller, true);
  if (refusal) {
    for (const at of made) {
      tree.remove(at);
      tree.own(permissions[0].domain, -1);
      tree.fail();
    }
  }
  return refusal;
}

/** There is no node afterwards, nor what was below it. */
export function removeNode(access: Access, path: string): StoreRefusal | void {
  const node = getNode(access, path, ACCESS.write);
  if (node === "ENOENT") {
    const parent = access.tree.read(parentPath(path));
    return parent === undefined ? "ENOENT" : isRefusal(parent) ? parent : undefined;
  }
  if (isRefusal(node)) return node;
  if (path === "/") return "EINVAL";
  return cutOff(access, path);
}

/** Takes away a node that is there, whoever may do it. */
export function cutOff({ tree, caller }: Access, path: string): StoreRefusal | undefined {
  const above = parentPath(path), parent = tree.read(above);
  if (isRefusal(parent)) return parent;
  if (!parent) return "EINVAL";
  const remove = (at: string): StoreRefusal | undefined => {
    const node = tree.read(at);
    if (isRefusal(node)) return "EIO";
    if (!node) return undefined;
    for (const child of node.children) {
      const refusal = remove(childPath(at, child));
      if (refusal) return refusal;
    }
    tree.remove(at);
    // While those above are there: who could read it by its own permissions, or theirs, is told.
    tree.changed({ path: at, exact: at !== path, node });
    tree.own(ownerOf(node), -1);
  };
  const leaf = leafName(path);
  const children = parent.children.filter((child) => child !== leaf);
  return remove(path) ?? tree.put(above, { ...parent, children }, caller, false);
}

/** Owners, and domain 0, say who may do what; domain 0 alone changes the owner. */
export function setPermissions(
  access: Access,
  path: string,
  permissions: readonly Permission[],
): StoreRefusal | void {
  const { tree, caller } = access, node = getNode(access, path, ACCESS.write | ACCESS.owner);
  if (isRefusal(node)) return node;
  const [{ domain }] = permissions;
  if (!isPrivileged(caller) && domain !== ownerOf(node)) return "EPERM";
  const refusal = tree.put(path, { ...node, permissions }, caller, true);
  if (refusal) return refusal;
  tree.own(ownerOf(node), -1);
  tree.own(domain, 1);
  tree.changed({ path, exact: false, before: node.permissions });
}
