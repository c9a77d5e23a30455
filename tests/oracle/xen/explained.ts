/**
 * Differences between Debian's Xen and xvm that are meant to be.
 *
 * @module
 */
import type { Difference } from "./answers.ts";

/** One of them: where, and why. */
interface Explained {
  readonly call: RegExp;
  /** All kinds if left out. */
  readonly kind?: RegExp;
  readonly what: RegExp;
  /** What Xen answers; anything if left out. */
  readonly xen?: RegExp;
  readonly why: string;
}

export const EXPLAINED: readonly Explained[] = [
  {
    call: /^xen_version\.capabilities$/,
    what: /^buffer$/,
    why: "Debian's Xen has PV64 domains, and says so; xvm names the kinds that it has",
  },
  {
    call: /^cpuid$/,
    kind: /^(leaf 6|leaf 255|the next hundred)$/,
    what: /^registers$/,
    xen: /^0+$/,
    why: "for leaves that there are not xvm's Intel processor answers as for its last basic one",
  },
  {
    call: /^hvm_op\.pagetable_dying$/,
    kind: /^self$/,
    what: /^result$/,
    xen: /^-22$/,
    why: "Debian's Xen has no shadow paging; domains of xvm that have it are heard",
  },
  {
    call: /^sched_op\.watchdog$/,
    what: /^result$/,
    xen: /^4294967268$/,
    why: "when no watchdog is free, 64-bit code gets -ENOSPC from Xen without its upper half",
  },
];

/** Why two answers differ, when they are meant to. */
export const explanation = ({ label, xen }: Difference): string | undefined =>
  EXPLAINED.find((e) =>
    e.call.test(label.call) && e.what.test(label.what) && (e.kind?.test(label.kind) ?? true) &&
    (e.xen?.test(xen) ?? true)
  )?.why;
