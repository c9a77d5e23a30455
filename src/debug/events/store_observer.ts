/**
 * A domain's requests to xenstore as breakpoints and traces see them: before the store has done one, and
 * with the answer.
 *
 * @module
 */
import { errnoName } from "../../abi/xen/errno.ts";
import { XS, XSD_ERRORS } from "../../abi/xen/io/xs_wire.ts";
import { Domain0 } from "../../dom0/domain0.ts";
import type { XsMessage } from "../../dom0/messages.ts";
import { absolutePath } from "../../dom0/paths.ts";
import type { StoreRefusal } from "../../dom0/store.ts";
import { textOf } from "../../dom0/text.ts";
import type { SeenRequest, Xenstored } from "../../dom0/xenstored.ts";
import type { Values } from "../../hvm/exit_kinds.ts";
import type { Subject } from "../subject.ts";

const NAMES = new Map<number, string>(
  Object.entries(XS).map(([name, type]) => [type, name.toLowerCase().replaceAll("_", "-")]),
);

/** Who is asked: the result of a request that is refused, below 0. */
export type AskStore = (fields: Values, answered: boolean) => number | undefined;

export class StoreObserver {
  #on: Xenstored | undefined;

  constructor(readonly subject: Subject, readonly ask: AskStore) {}

  /** Whether anybody looks. */
  arm(wanted: boolean): void {
    const zero = this.subject.host.peers.get(0);
    const store = wanted && zero instanceof Domain0 ? zero.xenstored : undefined;
    if (store === this.#on) return;
    this.#on?.onRequest.delete(this.#requested);
    this.#on?.onAnswer.delete(this.#answered);
    store?.onRequest.add(this.#requested);
    store?.onAnswer.add(this.#answered);
    this.#on = store;
  }

  readonly #requested = (domain: number, message: XsMessage): StoreRefusal | void => {
    if (domain !== this.subject.id) return;
    const refused = this.ask(requestFields(domain, message), false);
    if (refused !== undefined) return refusalOf(refused);
  };
  readonly #answered = ({ domain, message, type, payload }: SeenRequest): void => {
    if (domain !== this.subject.id) return;
    const text = payloadText(payload), failed = type === XS.ERROR;
    this.ask({
      ...requestFields(domain, message),
      ...failed ? { error: text } : { answer: text },
    }, true);
  };
}

/** What xenstore has no word for is EINVAL. */
function refusalOf(result: number): StoreRefusal {
  const name = errnoName(result) as StoreRefusal | undefined;
  return name && XSD_ERRORS.includes(name) ? name : "EINVAL";
}

function requestFields(domain: number, { type, transaction, payload }: XsMessage): Values {
  const request = NAMES.get(type) ?? `${type}`, text = textOf(payload), end = text.indexOf("\0");
  const [first, rest] = end < 0 ? [text, ""] : [text.slice(0, end), text.slice(end + 1)];
  const path = WITHOUT_PATH.includes(request) ? undefined : absolutePath(first, domain);
  const value = path === undefined ? payloadText(payload) : spaced(rest);
  return { request, ...path !== undefined && { path }, ...value && { value }, transaction };
}
const WITHOUT_PATH = [
  "transaction-start",
  "transaction-end",
  "get-domain-path",
  "is-domain-introduced",
  "introduce",
  "release",
  "resume",
  "set-target",
  "reset-watches",
  "control",
];
const spaced = (text: string): string => text.replace(/\0+$/, "").replaceAll("\0", " ");
const payloadText = (payload: Uint8Array): string => spaced(textOf(payload));
