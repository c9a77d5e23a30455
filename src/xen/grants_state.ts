/** What is saved of a grant table. */
import { amount, flag, list, record, tuple, whole } from "../machine/shape.ts";
import type { ActiveGrant, GrantMapping } from "./grants.ts";

export interface SavedGrants {
  readonly version: number;
  readonly shared: readonly number[];
  readonly status: readonly number[];
  readonly active: readonly (ActiveGrant & { readonly ref: number })[];
  readonly maps: readonly (GrantMapping & { readonly handle: number })[];
  readonly copies: readonly (readonly [ref: number, count: number])[];
}
const frame = whole(0, 2 ** 21), u16 = whole(0, 0xffff), count = whole(0, 2 ** 16);
export const GRANTS_SHAPE = record({
  version: whole(1, 2),
  shared: list(frame),
  status: list(frame),
  active: list(record({
    ref: whole(0, 2 ** 18),
    domain: u16,
    frame,
    from: u16,
    length: u16,
    readers: count,
    writers: count,
  })),
  maps: list(record({
    handle: whole(0, 2 ** 20),
    domain: u16,
    ref: whole(0, 2 ** 18),
    frame,
    readonly: flag,
    at: whole(-1, 2 ** 21),
  })),
  copies: list(tuple(whole(0, 2 ** 18), amount)),
});
