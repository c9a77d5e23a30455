/**
 * XenStore's state as it is saved, and what is wrong with one that has the shape.
 *
 * @module
 */
import { XENSTORE } from "../abi/xen/io/xs_wire.ts";
import { amount, list, record, text, tuple, whole } from "../machine/shape.ts";
import { refuse } from "../machine/state_block.ts";
import {
  CONNECTION_SHAPE,
  REQUESTS_SHAPE,
  type SavedConnection,
  type SavedRequests,
} from "./connection.ts";
import { childPath, domainPath, isPath, isWithin } from "./paths.ts";
import { announcedLength, XS_HEADER } from "./messages.ts";
import { PERMISSIONS_SHAPE, type SavedPermissions } from "./permissions.ts";
import { QUOTAS, type Quotas } from "./quotas.ts";
import { SAVED_NODE, type SavedNode } from "./store_state.ts";
import type { SavedTransaction } from "./transactions.ts";

export interface SavedXenstore {
  readonly generation: number;
  /** By path. */
  readonly nodes: readonly (readonly [path: string, node: SavedNode])[];
  /** Of {@linkcode INTRODUCED}, and of {@linkcode RELEASED}. */
  readonly special: readonly SavedPermissions[];
  readonly quotas: Quotas;
  readonly requests: SavedRequests;
  /** In the order of introduction. */
  readonly connections: readonly SavedConnection[];
}

export const XENSTORE_SHAPE = record({
  generation: amount,
  nodes: list(tuple(text, SAVED_NODE)),
  special: tuple(PERMISSIONS_SHAPE, PERMISSIONS_SHAPE),
  quotas: record(Object.fromEntries(Object.keys(QUOTAS).map((name) => [name, whole(1)]))),
  requests: REQUESTS_SHAPE,
  connections: list(CONNECTION_SHAPE),
});

/** Refuses what has the shape, and is no state. @throws {RecordError} */
export function checkSaved(saved: SavedXenstore): void {
  const [problem] = problemsOf(saved);
  if (problem !== undefined) refuse(`xenstore: ${problem}`);
}

/** What is wrong, in words; usually nothing. */
export function problemsOf(saved: SavedXenstore): string[] {
  return [
    ...treeProblems(saved),
    ...saved.special.flatMap((each) => each.length ? [] : ["a special path has no owner"]),
    ...saved.connections.flatMap((each) => connectionProblems(each, saved)),
    ...requestProblems(saved),
  ];
}

/** No quota lets a longer one through. */
const LONGEST = XENSTORE.PAYLOAD_MAX;

function treeProblems({ nodes, generation }: SavedXenstore): string[] {
  const found: string[] = [], all = new Map(nodes), listed = new Set<string>();
  if (!all.has("/")) found.push("there is no root");
  nodes.forEach(([path, node], n) => {
    if (!isPath(path, LONGEST)) found.push(`${JSON.stringify(path)} is no path`);
    if (n > 0 && nodes[n - 1][0] >= path) found.push(`${path} is out of order`);
    found.push(...nodeProblems(path, node, generation));
    for (const child of node[2].map((leaf) => childPath(path, leaf))) {
      if (!all.has(child)) found.push(`${child} is listed, and not there`);
      if (listed.has(child)) found.push(`${child} is listed twice`);
      listed.add(child);
    }
  });
  for (const [path] of nodes) {
    if (path !== "/" && !listed.has(path)) found.push(`${path} is not listed above it`);
  }
  return found;
}
function nodeProblems(path: string, node: SavedNode, last: number): string[] {
  const [, permissions, , generation] = node;
  if (permissions.length === 0) return [`${path} has no owner`];
  return generation > last ? [`${path} has generation ${generation}, the last one is ${last}`] : [];
}

function connectionProblems(it: SavedConnection, saved: SavedXenstore): string[] {
  const { id, target, watches, transactions, incoming, queue, written } = it, found: string[] = [];
  const say = (text: string) => found.push(`domain ${id}: ${text}`);
  const same = saved.connections.filter((other) => other.id === id);
  if (same.length > 1) say("it is connected twice");
  if (target !== null && !saved.connections.some((other) => other.id === target)) {
    say(`its target ${target} is not connected`);
  }
  const names = watches.map(([path, token]) => `${path}\0${token}`);
  if (new Set(names).size < names.length) say("a watch is there twice");
  for (const [path, token, relative] of watches) {
    const valid = path[0] === "@" ? !relative : isPath(path, LONGEST);
    // deno-lint-ignore no-control-regex
    const plain = /^[\x01-\xff]*$/.test(path + token);
    const own = !relative || isWithin(path, domainPath(id)) && path !== domainPath(id);
    if (!valid || !plain || !own) say(`${JSON.stringify(path)} cannot be watched so`);
  }
  found.push(...transactions.flatMap((each) => transactionProblems(each, it, saved.generation)));
  if (!isPart(incoming)) say("what has come in is no part of a message");
  if (queue.some(([bytes]) => !isMessage(bytes))) say("what waits is no message");
  if (written > 0 && written >= (queue[0]?.[0].length ?? 0)) say(`${written} bytes are written`);
  return found;
}
function transactionProblems(
  { id, accessed }: SavedTransaction,
  { id: domain, transactions }: SavedConnection,
  last: number,
): string[] {
  const found: string[] = [],
    say = (text: string) => found.push(`domain ${domain}: transaction ${id}: ${text}`);
  if (transactions.filter((other) => other.id === id).length > 1) say("it is there twice");
  if (new Set(accessed.map(([path]) => path)).size < accessed.length) say("a node is there twice");
  for (const [path, node, generation, before] of accessed) {
    if (!isPath(path, LONGEST)) say(`${JSON.stringify(path)} is no path`);
    if (node) found.push(...nodeProblems(path, node, last));
    if (before?.length === 0) say(`${path} had no owner`);
    if (generation > last) say(`${path} had generation ${generation}, the last one is ${last}`);
  }
  return found;
}

const isMessage = (bytes: Uint8Array): boolean =>
  bytes.length >= XS_HEADER && bytes.length <= XS_HEADER + XENSTORE.PAYLOAD_MAX &&
  announcedLength(bytes) === bytes.length - XS_HEADER;
/** Less than a message, if its length can be told. */
const isPart = (bytes: Uint8Array): boolean =>
  bytes.length < XS_HEADER ||
  announcedLength(bytes) <= XENSTORE.PAYLOAD_MAX &&
    bytes.length < XS_HEADER + announcedLength(bytes);

function requestProblems({ requests, connections }: SavedXenstore): string[] {
  const found: string[] = [], left = new Map<number, number>();
  for (const { queue } of connections) {
    for (const [, , cause] of queue) left.set(cause, (left.get(cause) ?? 0) + 1);
  }
  requests.open.forEach(([request, domain, messages], n) => {
    if (request > requests.last || n > 0 && requests.open[n - 1][0] >= request) {
      found.push(`request ${request} is out of order`);
    }
    if (left.get(request) !== messages) {
      found.push(`request ${request} has ${left.get(request) ?? 0} messages, and not ${messages}`);
    }
    if (!connections.some(({ id }) => id === domain)) {
      found.push(`request ${request} is of domain ${domain}, which is not connected`);
    }
  });
  return found;
}
