/**
 * What a domain that knows Xen does with others, as kinds to break on: events, grants, requests to
 * xenstore. They are no exits: a stop is behind the hypercall that did it, and an action can refuse it
 * before.
 *
 * @module
 */
import { XEN_ERRNO, type XenErrno } from "../abi/xen/errno.ts";
import { EVTCHNSTAT } from "../abi/xen/event_channel.ts";
import { GNTST } from "../abi/xen/grant_table.ts";
import { XS, XSD_ERRORS } from "../abi/xen/io/xs_wire.ts";
import { VIRQ } from "../abi/xen/xen.ts";
import type { KindRow, Refusal, Values } from "../hvm/exit_kinds.ts";
import { flag, u16, u32, u8 } from "../hvm/fields.ts";
import type { PlatformKind } from "../xen/platform_watch.ts";
import { hex } from "./values.ts";

const ERRNO: Refusal = {
  names: XEN_ERRNO,
  expected: 'an errno by name, such as "EPERM", or by number',
  plainly: "EPERM" satisfies XenErrno,
  values: (errno): Values => ({ result: -errno }),
};
const STATUS: Refusal = {
  names: GNTST,
  expected: 'a status of grants by name, such as "permission_denied", or by number',
  plainly: "general_error" satisfies keyof typeof GNTST,
  values: (status): Values => ({ result: -status }),
};

const domain = { is: "number", max: 0xffff, optional: true } as const;
const peer = { is: "number", max: 0xffff_ffff, optional: true } as const;
const frame = { is: "number", max: 2 ** 52, optional: true } as const;
const place = { is: "number", min: -1, max: 2 ** 52 } as const;
const state = {
  is: "choice",
  of: Object.keys(EVTCHNSTAT) as readonly (keyof typeof EVTCHNSTAT)[],
} as const;
const virq = {
  is: "choice",
  of: Object.keys(VIRQ) as readonly (keyof typeof VIRQ)[],
  optional: true,
} as const;
/** Requests by name: "read", "get-perms"… */
const REQUESTS: readonly string[] = Object.keys(XS)
  .filter((name) => !["WATCH_EVENT", "ERROR", "TYPE_COUNT", "INVALID"].includes(name))
  .map((name) => name.toLowerCase().replaceAll("_", "-"));

/** `port 5 (domain 0, port 3)`. */
const channelText = ({ port, state, domain, peer, virq }: Values): string => {
  const whom = state === "interdomain" ? `domain ${domain}, port ${peer}` : virq ?? state;
  return `port ${port} (${whom})`;
};

/** `ref 8 of domain 1 (frame 0x1234) by domain 0`. */
const grantText = ({ domain, ref, frame, by }: Values): string =>
  `ref ${ref} of domain ${domain}` +
  (frame === undefined ? "" : ` (frame ${hex(frame as number)})`) + ` by domain ${by}`;
const rights = ({ readonly }: Values): string => readonly ? ", to be read" : "";
const placeText = ({ at }: Values): string =>
  (at as number) < 0 ? "" : `, at frame ${hex(at as number)}`;

/** Kinds of what domains do with one another. */
export const PLATFORM_KINDS = {
  "event-send": {
    meaning: "an event is sent by the domain, or to it",
    example: "b event-send port=5 lost",
    fields: {
      port: u32,
      state,
      domain,
      peer,
      virq,
      incoming: flag,
      target: u8,
      pending: flag,
      masked: flag,
      lost: flag,
    },
    help:
      "`port` is the domain's own; `incoming`: it comes to it, from `domain` (of the hypervisor's own " +
      "there is none), through `peer`; else it goes to them. `target` is the vCPU that is told. `lost`: the " +
      "guest is not told of it, because the port is masked or has an event pending already. A stop is " +
      "behind the hypercall that sent it, or where the hypervisor did. skip() drops the event, deny() " +
      "refuses it with an errno.",
    refuses: ERRNO,
    describe: (f: Values): string =>
      `event-send ${f.incoming ? "to" : "through"} ${channelText(f)}` +
      (f.masked ? ", masked" : "") + (f.pending ? ", pending already" : ""),
  },
  "event-delivery": {
    meaning: "a vCPU is given the upcall for an event",
    example: "b event-delivery virq=TIMER",
    fields: { port: u32, state, domain, peer, virq, vector: u8 },
    help: "One for each port that is pending then, and not masked: `vector` is that of the upcall.",
    describe: (f: Values): string =>
      `event-delivery ${channelText(f)}, by vector ${hex(f.vector as number)}`,
  },
  "grant-map": {
    meaning: "a domain maps a grant: of the domain's, or the domain one of others",
    example: "b grant-map by=0",
    fields: { domain: u16, ref: u32, frame, by: u16, readonly: flag, at: place },
    help:
      "`domain` has granted `ref`, a guest frame of its; `by` maps it at its frame `at` (-1: nowhere in " +
      "a guest's memory, as domain 0). deny(status) refuses it.",
    refuses: STATUS,
    describe: (f: Values): string => `grant-map ${grantText(f)}${rights(f)}${placeText(f)}`,
  },
  "grant-unmap": {
    meaning: "a domain ends a mapping of a grant",
    example: "b grant-unmap ref=8",
    fields: { domain: u16, ref: u32, frame, by: u16, readonly: flag, at: place },
    refuses: STATUS,
    describe: (f: Values): string => `grant-unmap ${grantText(f)}${rights(f)}${placeText(f)}`,
  },
  "grant-copy": {
    meaning: "a domain copies from a grant, or to one",
    example: "b grant-copy write",
    fields: { domain: u16, ref: u32, frame, by: u16, write: flag, offset: u16, length: u16 },
    help: "`write`: it copies to the grant.",
    refuses: STATUS,
    describe: (f: Values): string =>
      `grant-copy ${f.write ? "to" : "from"} ${grantText(f)}, ${f.length} bytes at ${
        hex(f.offset as number)
      }`,
  },
  xenstore: {
    meaning: "the guest asks something of xenstore",
    example: "b xenstore write path=/local/domain/1/*",
    fields: {
      request: { is: "choice", of: REQUESTS },
      path: { is: "path", optional: true },
      value: { is: "text", optional: true },
      transaction: u32,
      answer: { is: "text", optional: true },
      error: { is: "choice", of: XSD_ERRORS, optional: true },
    },
    help:
      "`path` is absolute; `value` is what is written, a watch's token, or what else the request has. " +
      "A trace has its event with the `answer`, or the `error`. A stop is behind the hypercall that told " +
      "xenstore of the request; deny(errno) refuses it.",
    refuses: ERRNO,
    describe: ({ request, path = "", value, transaction, answer, error }: Values): string =>
      `xenstore ${request} ${path}` + (value === undefined ? "" : ` ${JSON.stringify(value)}`) +
      (transaction ? `, in transaction ${transaction}` : "") +
      (error === undefined ? "" : ` = ${error}`) +
      (answer === undefined ? "" : ` = ${JSON.stringify(answer)}`),
  },
} as const satisfies Readonly<Record<PlatformKind, KindRow>>;
