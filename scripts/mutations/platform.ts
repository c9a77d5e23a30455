/**
 * Mistakes in the platform that guests of Xen find: XenStore and consoles.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const DOM0 = "src/dom0", STORE_TEST = `${DOM0}/xenstored_test.ts`;
const HOSTILE_TEST = `${DOM0}/hostile_test.ts`, MODEL_TEST = `${DOM0}/model_test.ts`;
const STATE_TEST = `${DOM0}/state_test.ts`, CONSOLE_TEST = `${DOM0}/consoled_test.ts`;
const SEEN_TEST = "src/debug/platform_test.ts";
const CLIENT_TEST = `${DOM0}/client_test.ts`;

const WATCHED = "xenstore: watches are told of what changes below them, in the order of watches";
const PERMITTED = "xenstore: who may not read a node, nor that above it, is not told of it";
const INHERITED = "xenstore: what is made has the permissions above it, and its maker's name";
const QUOTAS = "xenstore: quotas are xenstored's, to the last one";
const MODEL =
  "xenstore is as its model, with transactions that are done at their end or not (seed 1)";
const TOLD =
  "xenstore: a transaction's changes are told at its end, and those of one given up never";
const DEATH = "xenstore: a domain that dies leaves no nodes and no rights";
const WRAPS = "xenstore: messages wrap at every place of both rings, in parts of every size";
const FULL = "xenstore: who does not read answers is not served, and loses none of them";
const BROKEN = "xenstore: indices that make no sense, or a message too long, end the connection";
const SLOW =
  "xenstore: who makes events for one that does not read waits for him, or until they are dropped";
const SAVED = "xenstore: saved anywhere, and loaded elsewhere, all goes on the same (seed 1)";
const DOMAIN0_TEST = `${DOM0}/domain0_test.ts`;
const CONSOLE_FULL = "a sink that takes no more leaves the ring full, and loses nothing";
const CONSOLE_BROKEN = "a console ring whose indices make no sense stands still until they do";

const CALLS = "src/xen/calls", MEMORY_TEST = `${CALLS}/memory_op_test.ts`;
const WAY = "(intel hap, 32 bits)";
const BALLOON =
  `memory given back is the host's, zeroed, and comes again where it is asked for ${WAY}`;
const COUNTED = `reservations: how many extents are done, whatever is wrong ${WAY}`;

export const PLATFORM_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf(`${DOM0}/watches.ts`, STORE_TEST, [
    [
      "XenStore: a watch hears of its own node alone",
      "exact ? watch.path === path : isWithin(path, watch.path)",
      "watch.path === path",
      WATCHED,
    ],
    [
      "XenStore: a watch inside a removed tree is not told",
      "exact ? watch.path === path : isWithin(path, watch.path)",
      "!exact && isWithin(path, watch.path)",
      WATCHED,
    ],
    [
      "XenStore: a watch hears of what its owner may not read",
      "if (reads(there.permissions)) return true;",
      "if (there.permissions.length) return true;",
      PERMITTED,
    ],
    [
      "XenStore: who loses the right to read is not told of that",
      "if (before && reads(before)) return true;",
      "",
      PERMITTED,
    ],
    [
      "XenStore: everybody hears of domains that go",
      "if (!(accessOf(watcher, special.get(path)!) & ACCESS.read)) continue;",
      "",
      "xenstore: @introduceDomain and @releaseDomain",
    ],
  ]),
  ...mutationsOf(`${DOM0}/requests.ts`, STORE_TEST, [
    [
      "XenStore: a new watch begins without an event",
      "afterwards(() => greet(caller, added));",
      "",
      WATCHED,
    ],
    [
      "XenStore: a part of a directory ends within a name",
      "all.lastIndexOf(0, from + room - 1) + 1",
      "from + room",
      "xenstore: many children come in parts, and not as one",
    ],
  ]),
  ...mutationsOf(`${DOM0}/operations.ts`, STORE_TEST, [
    [
      "XenStore: what is made has no permissions of the node above",
      "{ domain: caller.id, access: owner.access }, ...others]",
      "{ domain: caller.id, access: 0 }]",
      INHERITED,
    ],
    [
      "XenStore: what a domain makes belongs to the owner above",
      "const permissions = isPrivileged(caller)\n",
      "const permissions = isPrivileged(caller) || true\n",
      INHERITED,
    ],
    [
      "XenStore: everybody learns what is not there",
      `accessOf(caller, node.permissions) & wanted ? refusal : "EACCES"`,
      "refusal",
      INHERITED,
    ],
    [
      "XenStore: what is below a removed node stays",
      "const refusal = remove(childPath(at, child));",
      "const refusal = undefined as StoreRefusal | undefined;",
      WATCHED,
    ],
  ]),
  ...mutationsOf(`${DOM0}/operations.ts`, HOSTILE_TEST, [
    [
      "XenStore: a domain may own a node more than its quota",
      `accounts.reached(caller.id, "nodes")\n      ? "ENOSPC"`,
      `accounts.of(caller.id).nodes > accounts.quotas.nodes\n      ? "ENOSPC"`,
      QUOTAS,
    ],
    [
      "XenStore: removed nodes are counted on",
      "tree.own(ownerOf(node), -1);\n  };",
      "};",
      QUOTAS,
    ],
    [
      "XenStore: what could not be made whole stays in part",
      "tree.remove(at);\n      tree.own(permissions[0].domain, -1);",
      "tree.own(permissions[0].domain, -1);",
      QUOTAS,
    ],
  ]),
  ...mutationsOf(`${DOM0}/quotas.ts`, HOSTILE_TEST, [[
    "XenStore: memory is not bounded",
    "if (checked && domain !== 0 && memory >= this.quotas.memory) return false;",
    "",
    "xenstore: memory that is kept for a domain is bounded",
  ]]),
  ...mutationsOf(`${DOM0}/transactions.ts`, MODEL_TEST, [
    [
      "XenStore: a transaction does not conflict",
      `if ((store.read(path)?.generation ?? 0) !== generation) return "EAGAIN";`,
      "",
      MODEL,
    ],
  ]),
  ...mutationsOf(`${DOM0}/transactions.ts`, STORE_TEST, [
    [
      "XenStore: a transaction reads what others write later",
      "if (seen) return seen.node;",
      "if (seen?.modified) return seen.node;",
      "xenstore: a transaction sees what it saw, and conflicts with whoever changes that",
    ],
    [
      "XenStore: nobody is told of what a transaction removes",
      `if (tell !== "none") store`,
      `if (tell !== "none" && node) store`,
      TOLD,
    ],
    [
      "XenStore: a transaction that is given up is made",
      "return this.#refusal() ?? this.#apply();",
      "return this.#apply() ?? this.#refusal();",
      "xenstore: a transaction sees what it saw, and conflicts with whoever changes that",
    ],
  ]),
  ...mutationsOf(`${DOM0}/transactions.ts`, HOSTILE_TEST, [[
    "XenStore: a transaction is made though a part of it failed",
    `if (this.#failed) return "ENOMEM";`,
    "",
    "xenstore: a transaction has quotas, and fails when one was used up",
  ]]),
  ...mutationsOf(`${DOM0}/xenstored.ts`, STORE_TEST, [
    [
      "XenStore: a dead domain's nodes stay",
      `this.#disown(domain, "/");`,
      "",
      DEATH,
    ],
    [
      "XenStore: a domain inherits the rights of one that had its number",
      "this.#withdraw(domain);",
      "",
      DEATH,
    ],
    [
      "XenStore: an end of a channel is left open",
      "if (connection.port) this.host.unbind(connection.port);",
      "",
      "xenstore: released, a domain is as one that was never introduced",
    ],
    [
      "XenStore: nobody is notified of an answer",
      "if (connection.port) this.host.notify(connection.port);",
      "",
      "xenstore: a domain asks for a new beginning",
    ],
  ]),
  ...mutationsOf(`${DOM0}/xenstored.ts`, CLIENT_TEST, [[
    "XenStore: domain 0 is told while a change is made",
    "this.#tell.push(tell);",
    "tell();",
    "StoreClient.watch() calls when all is done, in the order of changes",
  ]]),
  ...mutationsOf(`${DOM0}/ring.ts`, HOSTILE_TEST, [
    [
      "a ring wraps a byte too late",
      "if (from + length <= size) return page.read(data + from, length);",
      "if (from + length <= size + 1) return page.read(data + from, length);",
      WRAPS,
    ],
    [
      "a ring is written past its end",
      "const first = Math.min(length, size - to);",
      "const first = Math.min(length, size - to + 1);",
      WRAPS,
    ],
    [
      "a ring's indices are believed",
      "return used > this.place.size ? undefined : used;",
      "return Math.min(used, this.place.size);",
      BROKEN,
    ],
  ]),
  ...mutationsOf(`${DOM0}/connection.ts`, HOSTILE_TEST, [
    [
      "XenStore: an answer is lost when the ring is full",
      "if (this.#written < message.bytes.length) break;",
      "",
      FULL,
    ],
    [
      "XenStore: a domain that does not read is served on",
      `if (accounts.reached(this.id, "outstanding") || accounts.reached(this.id, "memory")) return;`,
      "",
      FULL,
    ],
    [
      "XenStore: events of a request are not counted as its own",
      "if (open) open.messages++;",
      "if (open) open.messages = 1;",
      SLOW,
    ],
    [
      "XenStore: events wait forever",
      "expires > now || n === 0 && this.#written > 0;",
      "expires > now || this.#written >= 0 || n === 0;",
      SLOW,
    ],
    [
      "XenStore: a message of any length is taken",
      "if (length > XENSTORE.PAYLOAD_MAX) return this.#break(XENSTORE.ERROR_PROTO);",
      "",
      BROKEN,
    ],
  ]),
  ...mutationsOf(`${DOM0}/connection.ts`, STORE_TEST, [[
    "XenStore: an event that waits is sent again",
    `if (path[0] !== "@" && this.#queue.some(same)) return;`,
    "",
    "xenstore: an event that waits already is not sent twice",
  ]]),
  ...mutationsOf(`${DOM0}/connection.ts`, STATE_TEST, [
    ["XenStore: half a message is not saved", "this.#incoming = saved.incoming;", "", SAVED],
    [
      "XenStore: what is in the ring of a message is not saved",
      "this.#written = saved.written;",
      "",
      SAVED,
    ],
  ]),
  ...mutationsOf(`${DOM0}/consoled.ts`, CONSOLE_TEST, [
    [
      "a console loses what its sink does not take",
      "if (taken > 0) ring.skip(taken);",
      "if (taken > 0) ring.skip(bytes.length);",
      CONSOLE_FULL,
    ],
    [
      "a console's keys are lost when the ring is full",
      "this.#typed = this.#typed.slice(put);",
      "this.#typed = NOTHING;",
      "what is typed waits for room in the ring",
    ],
  ]),
  ...mutationsOf(`${DOM0}/domain0.ts`, DOMAIN0_TEST, [
    [
      "domain 0 does not hear a console",
      "if (served?.port === port) served.ring.run();",
      "",
      "a guest's console is its domain's: written, and typed to where it wrote last (intel hap, 32 bits)",
    ],
    [
      "domain 0 tells a domain of nothing",
      "notify: (port) => void this.channels.send(port),",
      "notify: () => {},",
      "a guest asks xenstore over its ring, and is told of an answer (intel hap, 32 bits)",
    ],
  ]),
  ...mutationsOf(`${DOM0}/xenstored.ts`, STORE_TEST, [[
    "XenStore: a released domain's page stays mapped",
    "this.host.letGo(domain);",
    "",
    "xenstore: released, a domain is as one that was never introduced",
  ]]),
  ...mutationsOf(`${DOM0}/ring.ts`, CONSOLE_TEST, [[
    "a console believes indices",
    "return used > this.place.size ? undefined : used;",
    "return used;",
    CONSOLE_BROKEN,
  ]]),
  ...mutationsOf("src/xen/physmap.ts", MEMORY_TEST, [
    ["memory given back is still counted", "    this.pages--;\n", "", BALLOON],
    [
      "memory given back stays the domain's",
      "    this.pages--;\n    p2m.frames.release(frame);",
      "    this.pages--;",
      BALLOON,
    ],
    [
      "a domain gets more than its maximum",
      "this.pages + pages > this.maxPages || !this.#hasRoom(pages)",
      "!this.#hasRoom(pages)",
      COUNTED,
    ],
    [
      "a guest takes what the host has not",
      "this.pages + pages > this.maxPages || !this.#hasRoom(pages)",
      "this.pages + pages > this.maxPages",
      `a host without memory refuses, and stands ${WAY}`,
    ],
    [
      "another domain's page is given back",
      "if (this.isForeign(frame)) return -ENXIO;",
      "",
      `another domain's page in the map stays there ${WAY}`,
    ],
    [
      "a page of the hypervisor's is at two places",
      "if (old >= 0) p2m.unmap(old);",
      "",
      `add_to_physmap: each space, and each refusal ${WAY}`,
    ],
  ]),
  ...mutationsOf("src/xen/p2m.ts", MEMORY_TEST, [[
    "a page that comes while A20 is closed is seen at one place",
    "if (!this.a20) this.#write(this.#slot(guestFrame + A20), entry);",
    "",
    `with A20 closed, pages that come and go are seen at both megabytes ${WAY}`,
  ]]),
  ...mutationsOf("src/xen/p2m.ts", "src/xen/p2m_test.ts", [[
    "a frame that leaves the map is watched for ever",
    "    this.#tell(guestFrame);\n    this.#show(guestFrame, 0n);",
    "    this.#show(guestFrame, 0n);",
    "what was derived from a frame is given up before it leaves the map",
  ]]),
  ...mutationsOf("src/xen/exits.ts", MEMORY_TEST, [[
    "a call that is to be made again is over",
    "if (!again) skip(e, exit);",
    "skip(e, exit);",
    `many extents are done in several goes, and a populated map can be large ${WAY}`,
  ]]),
  ...mutationsOf(`${CALLS}/memory_op.ts`, MEMORY_TEST, [
    [
      "a batch ends with its first error",
      "if (written < 0) return written;",
      "if (written < 0 || error.getInt32(0, true) < 0) return written;",
      `add_to_physmap_batch: an errno for each ${WAY}`,
    ],
    [
      "an extent to go on from is forgotten",
      "for (let n = start; n < count; n++) {",
      "for (let n = 0; n < count; n++) {",
      COUNTED,
    ],
  ]),
  ...mutationsOf(`${CALLS}/multicall.ts`, `${CALLS}/multicall_test.ts`, [
    [
      "a multicall goes on though its vCPU waits",
      "(n > 0 && leaves(call))",
      "false",
      `multicall: one that waits is woken, and the rest is made then ${WAY}`,
    ],
    [
      "a multicall in a multicall is made",
      "if (call.isWithin) return -EINVAL;",
      "if (call.isWithin) return 0;",
      `multicall: each call has its result, whatever the others' ${WAY}`,
    ],
    [
      "a multicall's entry forgets how far its call came",
      'args.forEach((value, n) => entry.set("args", value, n));',
      "",
      `multicall: many calls, and calls of many parts, are made in several goes ${WAY}`,
    ],
  ]),
  ...mutationsOf(`${CALLS}/hvm_op.ts`, `${CALLS}/hvm_op_test.ts`, [
    [
      "a parameter that is no more is refused as a secret one",
      "if (DEPRECATED.has(index)) return -EINVAL;",
      "",
      `hvm_op: each parameter by its rule ${WAY}`,
    ],
    [
      "a guest reads parameters of others",
      "if (!isSelf(call, domid)) return -EPERM;",
      "",
      `hvm_op: parameters of others ${WAY}`,
    ],
  ]),
  ...mutationsOf("src/xen/console_log.ts", `${CALLS}/console_io_test.ts`, [[
    "a domain's line on Xen's console has no end",
    "byte === NEWLINE || this.#line.length === LINE",
    "byte === NEWLINE",
    `console_io: lines with the domain's number, cleaned, cut, kept up to a bound ${WAY}`,
  ]]),
  ...mutationsOf("src/xen/grants.ts", SEEN_TEST, [[
    "grants: whoever looks on at the granter is not asked",
    "return refused === undefined && table !== this ? table?.watch?.(kind, 0, fields) : refused;",
    "return refused;",
    "uses of grants are seen by both, and refused with any status (intel hap, 32 bits)",
  ]]),
  ...mutationsOf("src/xen/event_channels.ts", SEEN_TEST, [[
    "events: one that finds another pending is not told as lost",
    "lost: pending || masked,",
    "lost: masked,",
    "an event is seen where it is sent and where it comes, with what is lost (intel hap, 32 bits)",
  ]]),
  ...mutationsOf("src/xen/refusal.ts", "src/debug/hypercalls_test.ts", [[
    "hypercalls: the rule that refused one is told of those after it",
    "  last = undefined;\n  return taken;",
    "  return taken;",
    "hypercalls are traced when they are made, with arguments, result and errno (intel hap, 32 bits)",
  ]]),
];
