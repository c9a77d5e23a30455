/**
 * Differences between Debian's Xen and xvm that are meant to be.
 *
 * @module
 */
import type { Difference } from "./answers.ts";

/** One of them: where, and why. */
interface Explained {
  readonly call: RegExp;
  readonly what: RegExp;
  readonly why: string;
}

export const EXPLAINED: readonly Explained[] = [
  {
    call: /^xen_version\.capabilities$/,
    what: /^buffer$/,
    why: "Debian's Xen has PV64 domains, and says so; xvm names the kinds that it has",
  },
];

/** Why two answers differ, when they are meant to. */
export const explanation = ({ label }: Difference): string | undefined =>
  EXPLAINED.find(({ call, what }) => call.test(label.call) && what.test(label.what))?.why;
