/** Who looks on at what a domain does with others: events, grants. */

/** What there is to see. */
export type PlatformKind =
  | "event-send"
  | "event-delivery"
  | "grant-map"
  | "grant-unmap"
  | "grant-copy"
  | "xenstore";

/**
 * Asked before something happens.
 *
 * @param vcpu whose affair it is, where the domain does not do it itself
 * @returns undefined: it happens; else it does not, and that is its result (0, a status, -errno)
 */
export type PlatformWatch = (
  kind: PlatformKind,
  vcpu: number,
  fields: Readonly<Record<string, unknown>>,
) => number | undefined;
