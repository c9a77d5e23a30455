/**
 * What each request does (docs/misc/xenstore.txt). A table: its name, who may send it, and the answer
 * to its payload.
 *
 * @module
 */
import { XENSTORE, XS } from "../abi/xen/io/xs_wire.ts";
import { DOMID } from "../abi/xen/xen.ts";
import type { Connection } from "./connection.ts";
import {
  type Access,
  getNode,
  makeNode,
  removeNode,
  setPermissions,
  writeNode,
} from "./operations.ts";
import { absolutePath, domainPath } from "./paths.ts";
import {
  ACCESS,
  accessOf,
  isPrivileged,
  parsePermission,
  type Permission,
  permissionText,
} from "./permissions.ts";
import type { Quotas } from "./quotas.ts";
import { isRefusal, type StoreNode, type StoreRefusal } from "./store.ts";
import { bytesOfText, joined, numberAt, onlyString, stringsOf, textOf } from "./text.ts";
import type { Transaction } from "./transactions.ts";
import { addWatch, greet, removeWatch, type SpecialPermissions } from "./watches.ts";

/** What requests do with domains. */
export interface Domains {
  /** Is there one of this id, introduced or not? */
  exists(domain: number): boolean;
  isIntroduced(domain: number): boolean;
  introduce(domain: number, port: number): StoreRefusal | void;
  release(domain: number): StoreRefusal | void;
  resume(domain: number): StoreRefusal | void;
  setTarget(domain: number, target: number): StoreRefusal | void;
  readonly special: SpecialPermissions;
  /** The names of what is wrong inside. */
  problems(): readonly string[];
  /** Lines about what a domain has of the store. */
  usage(domain: number): readonly string[] | undefined;
}

/** A request under way. */
export interface RequestContext extends Access {
  readonly caller: Connection;
  /** The one it names. */
  readonly transaction: Transaction | undefined;
  readonly domains: Domains;
  /** Done when the answer is on its way. */
  afterwards(work: () => void): void;
}

type Answer = Uint8Array | StoreRefusal | void;

interface RequestKind {
  readonly name: string;
  /** Domain 0's alone. */
  readonly privileged?: true;
  /** It is about no transaction, whatever the message names. */
  readonly outside?: true;
  /** @returns the payload of the answer; nothing: "OK" */
  readonly run: (context: RequestContext, payload: Uint8Array) => Answer;
}

const OK = joined(["OK"]);

/** A request about one node: the path is all there is. */
function onNode(run: (context: RequestContext, path: string) => Answer): RequestKind["run"] {
  return (context, payload) => {
    const path = onlyString(payload);
    return path === undefined ? "EINVAL" : run(context, absolutePath(path, context.caller.id));
  };
}
/** A request for what can be read of one. */
const onReadable = (show: (node: StoreNode) => Answer): RequestKind["run"] =>
  onNode((context, path) => {
    const node = getNode(context, path, ACCESS.read);
    return isRefusal(node) ? node : show(node);
  });
/** A request about one domain. */
function onDomain(
  run: (domains: Domains, domain: number) => Answer,
): RequestKind["run"] {
  return ({ domains }, payload) => {
    const text = onlyString(payload);
    return text === undefined ? "EINVAL" : run(domains, numberAt(text));
  };
}
/** A request about another domain than 0. */
const onGuest = (run: (domains: Domains, domain: number) => Answer): RequestKind["run"] =>
  onDomain((domains, domain) => domain === 0 ? "EINVAL" : run(domains, domain));

function write(context: RequestContext, payload: Uint8Array): Answer {
  const end = payload.indexOf(0);
  if (end < 0) return "EINVAL";
  const path = absolutePath(textOf(payload.subarray(0, end)), context.caller.id);
  return writeNode(context, path, payload.slice(end + 1));
}

/** As many names as fit, from an offset into all of them; an empty one behind the last. */
function directoryPart(context: RequestContext, payload: Uint8Array): Answer {
  const strings = stringsOf(payload);
  if (strings.length !== 2) return "EINVAL";
  const [path, offset] = strings;
  const node = getNode(context, absolutePath(path, context.caller.id), ACCESS.read);
  if (isRefusal(node)) return node;
  const generation = `${node.generation}\0`, all = joined(node.children);
  const from = numberAt(offset) >>> 0;
  if (from >= all.length) return bytesOfText(`${generation}\0`);
  const room = XENSTORE.PAYLOAD_MAX - generation.length - 1;
  const whole = all.length - from <= room;
  const end = whole ? all.length : all.lastIndexOf(0, from + room - 1) + 1;
  const names = textOf(all.subarray(from, Math.max(from, end)));
  return bytesOfText(generation + names + (whole ? "\0" : ""));
}

function setPerms(context: RequestContext, payload: Uint8Array): Answer {
  const { caller, domains, accounts } = context, [path, ...texts] = stringsOf(payload);
  if (texts.length === 0) return "EINVAL";
  if (!isPrivileged(caller) && texts.length > accounts.quotas.permissions) return "ENOSPC";
  const permissions: Permission[] = [];
  for (const text of texts) {
    const parsed = parsePermission(text);
    if (!parsed) return "EINVAL";
    permissions.push(domains.exists(parsed.domain) ? parsed : { ...parsed, gone: true });
  }
  if (permissions[0].gone) return "ENOENT";
  if (path[0] === "@") return setSpecial(context, path, permissions);
  return setPermissions(context, absolutePath(path, caller.id), permissions);
}
function setSpecial(
  { caller, domains: { special } }: RequestContext,
  path: string,
  permissions: readonly Permission[],
): Answer {
  const old = special.get(path), wanted = ACCESS.write | ACCESS.owner;
  if (!old) return "EINVAL";
  if ((accessOf(caller, old) & wanted) !== wanted) return "EACCES";
  special.set(path, permissions);
}

function watch({ caller, accounts, afterwards }: RequestContext, payload: Uint8Array): Answer {
  const strings = stringsOf(payload);
  if (strings.length !== 2) return "EINVAL";
  const added = addWatch(caller, strings[0], strings[1], accounts);
  if (isRefusal(added)) return added;
  afterwards(() => greet(caller, added));
}
function unwatch({ caller, accounts }: RequestContext, payload: Uint8Array): Answer {
  const strings = stringsOf(payload);
  if (strings.length !== 2) return "EINVAL";
  return removeWatch(caller, strings[0], strings[1], accounts);
}

function start({ caller, transaction, accounts }: RequestContext): Answer {
  if (transaction) return "EBUSY";
  // xenstored compares before it adds: one more than the quota is let through.
  const full = !isPrivileged(caller) && caller.transactions.size > accounts.quotas.transactions;
  return full ? "ENOSPC" : joined([`${caller.begin().id}`]);
}
function end({ caller, transaction }: RequestContext, payload: Uint8Array): Answer {
  const text = onlyString(payload);
  if (text !== "T" && text !== "F") return "EINVAL";
  if (!transaction) return "ENOENT";
  caller.end(transaction);
  return text === "T" ? transaction.commit() : undefined;
}

function introduce({ domains }: RequestContext, payload: Uint8Array): Answer {
  const [domain, frame, port] = stringsOf(payload);
  // The domain's own grant says where the page is; the frame is there for others.
  if (frame === undefined || port === undefined || numberAt(port) <= 0) return "EINVAL";
  return domains.introduce(numberAt(domain), numberAt(port));
}
function setTarget({ domains }: RequestContext, payload: Uint8Array): Answer {
  const [domain, target] = stringsOf(payload);
  if (target === undefined) return "EINVAL";
  return domains.setTarget(numberAt(domain), numberAt(target));
}

const lines = (text: readonly string[]): Uint8Array =>
  joined([text.map((line) => `${line}\n`).join("")]);

/** What CONTROL does, by the first string. */
const CONTROLS: Readonly<
  Record<string, (context: RequestContext, rest: readonly string[]) => Answer>
> = {
  check: ({ domains }) => domains.problems().length ? "EIO" : undefined,
  quota: ({ accounts, domains }, [what, name, value]) => {
    const { quotas } = accounts;
    if (what === undefined) {
      const row = ([name, value]: [string, number]) =>
        `${name.padEnd(17)}: ${`${value}`.padStart(8)}`;
      return lines(["Quota settings:", ...Object.entries(quotas).map(row)]);
    }
    if (what !== "set") {
      const usage = domains.usage(numberAt(what));
      return usage ? lines(usage) : "ENOENT";
    }
    if (!Object.hasOwn(quotas, name) || numberAt(value ?? "") < 1) return "EINVAL";
    quotas[name as keyof Quotas] = numberAt(value);
  },
  help: () => lines(Object.keys(CONTROLS)),
};
function control(context: RequestContext, payload: Uint8Array): Answer {
  const [what, ...rest] = stringsOf(payload);
  return Object.hasOwn(CONTROLS, what ?? "") ? CONTROLS[what](context, rest) : "EINVAL";
}

/** By its type. */
export const REQUESTS: Readonly<Record<number, RequestKind>> = {
  [XS.CONTROL]: { name: "CONTROL", privileged: true, run: control },
  [XS.DIRECTORY]: { name: "DIRECTORY", run: onReadable(({ children }) => joined(children)) },
  [XS.READ]: { name: "READ", run: onReadable(({ value }) => value) },
  [XS.GET_PERMS]: {
    name: "GET_PERMS",
    run: onReadable(({ permissions }) => joined(permissions.map(permissionText))),
  },
  [XS.WATCH]: { name: "WATCH", outside: true, run: watch },
  [XS.UNWATCH]: { name: "UNWATCH", outside: true, run: unwatch },
  [XS.TRANSACTION_START]: { name: "TRANSACTION_START", run: start },
  [XS.TRANSACTION_END]: { name: "TRANSACTION_END", run: end },
  [XS.INTRODUCE]: { name: "INTRODUCE", privileged: true, run: introduce },
  [XS.RELEASE]: {
    name: "RELEASE",
    privileged: true,
    run: onGuest((domains, domain) => domains.release(domain)),
  },
  [XS.GET_DOMAIN_PATH]: {
    name: "GET_DOMAIN_PATH",
    run: onDomain((_, domain) => joined([domainPath(domain >>> 0)])),
  },
  [XS.WRITE]: { name: "WRITE", run: write },
  [XS.MKDIR]: { name: "MKDIR", run: onNode(makeNode) },
  [XS.RM]: { name: "RM", run: onNode(removeNode) },
  [XS.SET_PERMS]: { name: "SET_PERMS", run: setPerms },
  [XS.IS_DOMAIN_INTRODUCED]: {
    name: "IS_DOMAIN_INTRODUCED",
    privileged: true,
    run: onDomain((domains, domain) =>
      joined([domain === DOMID.SELF || domains.isIntroduced(domain) ? "T" : "F"])
    ),
  },
  [XS.RESUME]: {
    name: "RESUME",
    privileged: true,
    run: onGuest((domains, domain) => domains.resume(domain)),
  },
  [XS.SET_TARGET]: { name: "SET_TARGET", privileged: true, run: setTarget },
  [XS.RESET_WATCHES]: { name: "RESET_WATCHES", run: ({ caller }) => caller.forget() },
  [XS.DIRECTORY_PART]: { name: "DIRECTORY_PART", run: directoryPart },
};

/**
 * Does what a request asks for.
 *
 * @param unknown it names a transaction that is none
 * @returns the payload of its answer, or why not
 */
export function runRequest(
  context: RequestContext,
  kind: RequestKind | undefined,
  payload: Uint8Array,
  unknown: boolean,
): Uint8Array | StoreRefusal {
  if (!kind) return "ENOSYS";
  if (kind.privileged && !isPrivileged(context.caller)) return "EACCES";
  if (unknown) return "ENOENT";
  return kind.run(context, payload) ?? OK;
}
