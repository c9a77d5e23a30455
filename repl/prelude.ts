/**
 * What the prompt has before anybody made it: the names of mod.ts, and a host with the demo guest.
 * Both are made when an input first names them, because reading the sources and building the
 * processor take longer than anything else at start-up.
 *
 * @module
 */
import { openDemo, publicApi } from "./api.ts";
import { firstUse } from "./evaluator/uses.ts";
import type { Session } from "./session.ts";

/** Names that stand for the host and what is on it. */
const OBJECTS = ["hv", "dom", "vcpu"];
const NAMED = new RegExp(`\\b(?:${OBJECTS.join("|")})\\b`);
/** Dot-commands that need no domain. */
const PLAIN = /^\.(?!attach)/;

/** Makes what mod.ts exports known at the prompt, under its own names and as `xvm`; and the demo. */
export function prelude(session: Session, { demo = false } = {}): void {
  let api: Promise<Record<string, unknown>> | undefined;
  let host: Promise<void> | undefined;
  const needApi = () =>
    api ??= publicApi().then((names) => {
      session.evaluator.define({ ...names, xvm: names });
      return names;
    });
  const needHost = () =>
    host ??= needApi().then(async () => {
      if (!session.hypervisor()) session.use(await openDemo());
    });
  session.expected = demo ? "demo" : undefined;
  session.supply = async (input, command) => {
    if (input === null) await (demo && !session.hypervisor() ? needHost() : needApi());
    if (input === null) return;
    const wantsHost = command ? !PLAIN.test(command) : usesHost(input);
    if (demo && wantsHost && !session.hypervisor()) await needHost();
    else if (command ? wantsHost : namesUnknown(input)) await needApi();
  };
}

/** Whether code wants what is there: it does not when the first thing it does is to make its own host. */
function usesHost(input: string): boolean {
  if (!NAMED.test(input)) return false;
  const first = firstUse(input, OBJECTS);
  return first !== null && !(first.name === "hv" && first.use === "write");
}

/** Whether the text names something that is not there, and that mod.ts may export. */
function namesUnknown(text: string): boolean {
  const names = text.match(/\b(?:xvm|kinds|[A-Z]\w*)\b/g) ?? [];
  return names.some((name) => !(name in globalThis));
}
