/** XENMEM_exchange: extents of memory are given back for others of other sizes, as many pages. */
import type { StructFields, StructOf, View } from "../../abi/layout.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import type { XENMEM } from "../../abi/xen/memory.ts";
import type { Call } from "../call.ts";
import { ofSelf } from "./domid.ts";
import { frameAt, MAX_ORDER } from "./lists.ts";

const { EFAULT, EINVAL, EPERM } = XEN_ERRNO;

type Argument = typeof XENMEM.exchange.arg extends StructOf<infer F extends StructFields> ? View<F>
  : never;

/** Pages that are exchanged at a time: a call of more is made again for the rest. */
const AT_A_TIME = 512;

/** Frames that a part of a list of extents begins with; undefined: EFAULT. */
function frames(call: Call, list: bigint, from: number, count: number): bigint[] | undefined {
  const read: bigint[] = [];
  for (let n = from; n < from + count; n++) {
    const frame = frameAt(call, list, n);
    if (frame === undefined) return undefined;
    read.push(frame);
  }
  return read;
}

/** Exchanges as many extents as make the larger of the two: 0 or an errno, and nothing is changed. */
function exchangeOne(
  { xen: { physmap } }: Call,
  given: bigint[],
  wanted: bigint[],
  orders: Orders,
) {
  const { frames } = physmap.p2m, old: number[] = [];
  for (const first of given) {
    for (let n = 0n; n < 2n ** BigInt(orders.given); n++) {
      const guest = physmap.frameNumber(first + n), frame = physmap.frameOf(guest, false);
      if (frame < 0 || frames.uses(frame) > 0) return -EINVAL;
      old.push(guest);
    }
  }
  const pages = 2 ** orders.wanted;
  if (!wanted.every((first) => physmap.mayPopulate(first, pages))) return -EINVAL;
  for (const guest of old) physmap.giveBack(guest);
  for (const first of wanted) physmap.populate(first, pages);
  return 0;
}
interface Orders {
  readonly given: number;
  readonly wanted: number;
}

/** The guest learns how many extents were exchanged, whatever the result. */
function ended(call: Call, args: Argument, done: number, result: number): number {
  args.set("nr_exchanged", done);
  return call.putField(args, "nr_exchanged", call.wide(1)) || result;
}

export function exchange(call: Call, args: Argument): number {
  const orders = { given: args.get("in.extent_order"), wanted: args.get("out.extent_order") };
  const counts = { given: args.get("in.nr_extents"), wanted: args.get("out.nr_extents") };
  const done = args.get("nr_exchanged"), most = Math.max(orders.given, orders.wanted);
  const fail = (errno: number) => ended(call, args, Number(done), errno);
  if (most > MAX_ORDER) return fail(-EPERM);
  const given = counts.given << BigInt(orders.given),
    wanted = counts.wanted << BigInt(orders.wanted);
  const fits = given < 2n ** BigInt(call.width);
  const same = args.get("in.domid") === args.get("out.domid") && given === wanted;
  if (done > counts.given || !same || !fits) return fail(-EINVAL);
  if (done === counts.given) return fail(0);
  const refused = ofSelf(call, args.get("in.domid"));
  if (refused) return fail(refused);
  // Extents of each list that are as much memory as one of the larger ones.
  const parts = { given: 2 ** (most - orders.given), wanted: 2 ** (most - orders.wanted) };
  const lists = { given: args.get("in.extent_start"), wanted: args.get("out.extent_start") };
  const first = Math.floor(Number(done) / parts.given), all = Number(counts.given) / parts.given;
  const end = first + Math.max(1, AT_A_TIME >> most);
  for (let n = first; n < all; n++) {
    if (n === end) {
      call.again = true;
      return ended(call, args, n * parts.given, 0);
    }
    const from = frames(call, lists.given, n * parts.given, parts.given);
    const to = frames(call, lists.wanted, n * parts.wanted, parts.wanted);
    const result = from && to ? exchangeOne(call, from, to, orders) : -EFAULT;
    if (result < 0) return ended(call, args, n * parts.given, result);
  }
  return ended(call, args, Number(counts.given), 0);
}
