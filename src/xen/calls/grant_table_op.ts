/** grant_table_op (Xen public/grant_table.h): arrays of operations, each with a status of its own. */
import { type StructFields, type StructOf, View } from "../../abi/layout.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { GNTCOPY, GNTMAP, GNTST, GNTTABOP } from "../../abi/xen/grant_table.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import type { Call } from "../call.ts";
import { type GrantTable, isRefused, type Use } from "../grants.ts";
import { refuse } from "../refusal.ts";
import type { Handler } from "./operations.ts";

const { EBUSY, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH } = XEN_ERRNO;
const { bad_copy_arg, bad_domain, bad_virt_addr, general_error, okay, permission_denied } = GNTST;

/** Elements that one call does at a time: a call of more is made again for the rest. */
const AT_A_TIME = 128;

type Ops = typeof GNTTABOP;
type FieldsOf<K extends keyof Ops> = Ops[K]["arg"] extends StructOf<infer F extends StructFields>
  ? F
  : never;
type ViewOf<K extends keyof Ops> = View<FieldsOf<K>>;
/** What is done with one element: a status, or a negative errno for the whole call. */
interface Row<K extends keyof Ops> {
  /** One element. Its status is written into it; where there is none, a result of less than 0 ends the call. */
  readonly each: (call: Call, op: ViewOf<K>) => number;
  /** Elements have no status. */
  readonly plain?: true;
  /** There is exactly one. */
  readonly single?: true;
}

/** The table that a domain id names, as far as the caller may ask about it; or a status. */
function asked({ xen }: Call, domid: number): GrantTable | number {
  if (domid === DOMID.SELF || domid === xen.id) return xen.grants;
  return xen.tableOf(domid) ? permission_denied : bad_domain;
}

function map(call: Call, op: ViewOf<"map_grant_ref">): number {
  const flags = op.get("flags"), { grants, physmap } = call.xen;
  if (!(flags & (GNTMAP.host_map | GNTMAP.device_map))) return GNTST.bad_gntref;
  const { device_map, application_map, contains_pte } = GNTMAP;
  if (flags & (device_map | application_map | contains_pte)) return general_error;
  const at = physmap.frameNumber(op.get("host_addr") >> 12n);
  const handle = grants.map(op.get("dom"), op.get("ref"), flags, at);
  if (handle < 0) return handle;
  const mapped = grants.mapping(handle)!;
  if (at < 0 || !physmap.mapForeign(at, mapped.frame, mapped.readonly)) {
    grants.unmap(handle);
    return general_error;
  }
  op.setAll({ handle, dev_bus_addr: BigInt(mapped.frame) << 12n });
  return okay;
}

function unmap(call: Call, op: ViewOf<"unmap_grant_ref">): number {
  const handle = op.get("handle"), address = op.get("host_addr"), { grants, physmap } = call.xen;
  const mapped = grants.mapping(handle);
  if (!mapped) return refuse(GNTST.bad_handle, "no handle", handle);
  if (address === 0n) return okay;
  const at = physmap.frameNumber(address >> 12n);
  const refused = grants.refusesUnmap(handle);
  if (refused !== undefined) return refused;
  if (at !== mapped.at || !physmap.unmapForeign(at, mapped.frame)) return general_error;
  return grants.unmap(handle);
}

/** One end of a copy: the frame and the bytes of it that may be used, until it is ended. */
interface End {
  readonly frame: number;
  readonly from: number;
  readonly to: number;
  end(): void;
}
const NOTHING = () => {};

/** A use of a grant as an end of a copy; a grant that is passed on is one of its granter's. */
function granted(
  table: GrantTable,
  ref: number,
  by: number,
  write: boolean,
  once = false,
): End | number {
  const onward = ref < table.size ? table.entry(ref).onward : undefined;
  if (onward && !table.active.has(ref)) {
    const { domain } = table.entry(ref), next = table.tableOf(onward.domain);
    if (once || domain !== by || onward.domain === table.id) return general_error;
    return next ? granted(next, onward.ref, table.id, write, true) : general_error;
  }
  const use: Use = table.begin(ref, by, write, true);
  if (isRefused(use)) return use.status;
  return {
    frame: use.frame,
    from: use.from,
    to: use.from + use.length,
    end: () => table.end(ref, write),
  };
}

/** An end of a copy by what the guest says of it; or a status. */
function endOf(
  { xen }: Call,
  domid: number,
  isRef: boolean,
  ref: number,
  gmfn: bigint,
  write: boolean,
): End | number {
  const own = domid === DOMID.SELF;
  if (isRef) {
    const table = own ? xen.grants : xen.tableOf(domid);
    return table ? granted(table, ref, xen.id, write) : bad_domain;
  }
  if (!own && domid !== xen.id) return xen.tableOf(domid) ? permission_denied : bad_domain;
  const frame = xen.physmap.frameOf(Number(gmfn), write);
  return frame < 0 ? GNTST.bad_page : { frame, from: 0, to: 4096, end: NOTHING };
}

/** The ends of a copy that are grants: whose, which, and whether it is written to. */
function* grantEnds(
  { xen }: Call,
  op: ViewOf<"copy">,
): Iterable<readonly [table: GrantTable | undefined, ref: number, which: "source" | "dest"]> {
  const flags = op.get("flags");
  for (const which of ["source", "dest"] as const) {
    if (!(flags & GNTCOPY[`${which}_gref`])) continue;
    const domid = op.get(`${which}.domid`);
    const table = domid === DOMID.SELF ? xen.grants : xen.tableOf(domid);
    yield [table, op.get(`${which}.u.ref`), which];
  }
}
/** What somebody who looks on refuses a copy with. */
function copyRefused(call: Call, op: ViewOf<"copy">): number | undefined {
  for (const [table, ref, which] of grantEnds(call, op)) {
    const refused = table && call.xen.grants.refusal("grant-copy", table.id, ref, {
      write: which === "dest",
      offset: op.get(`${which}.offset`),
      length: op.get("len"),
    });
    if (refused !== undefined) return refused;
  }
}

function copy(call: Call, op: ViewOf<"copy">): number {
  const flags = op.get("flags"), length = op.get("len");
  const offsets = { source: op.get("source.offset"), dest: op.get("dest.offset") };
  if (offsets.source + length > 4096 || offsets.dest + length > 4096) return bad_copy_arg;
  const refused = copyRefused(call, op);
  if (refused !== undefined) return refused;
  const end = (which: "source" | "dest", write: boolean) =>
    endOf(
      call,
      op.get(`${which}.domid`),
      (flags & (which === "source" ? GNTCOPY.source_gref : GNTCOPY.dest_gref)) !== 0,
      op.get(`${which}.u.ref`),
      op.get(`${which}.u.gmfn`),
      write,
    );
  const source = end("source", false);
  if (typeof source === "number") return source;
  try {
    const dest = end("dest", true);
    if (typeof dest === "number") return dest;
    try {
      const within = (it: End, at: number) => at >= it.from && at + length <= it.to;
      if (!within(source, offsets.source) || !within(dest, offsets.dest)) return general_error;
      const { machine } = call.xen.memory, from = source.frame * 4096 + offsets.source;
      machine.write(dest.frame * 4096 + offsets.dest, machine.ram.subarray(from, from + length));
      for (const [table, ref] of grantEnds(call, op)) {
        table?.copies.set(ref, (table.copies.get(ref) ?? 0) + 1);
      }
      return okay;
    } finally {
      dest.end();
    }
  } finally {
    source.end();
  }
}

function setupTable(call: Call, op: ViewOf<"setup_table">): number {
  const table = asked(call, op.get("dom")), frames = op.get("nr_frames");
  if (typeof table === "number") return table;
  if (!table.grow(frames)) return general_error;
  const bytes = new Uint8Array(frames * call.width / 8), view = new DataView(bytes.buffer);
  table.shared.slice(0, frames).forEach((frame, n) => {
    const guest = call.xen.physmap.p2m.guestFrame(frame);
    if (call.width === 32) view.setInt32(4 * n, guest, true);
    else view.setBigInt64(8 * n, BigInt(guest), true);
  });
  return call.write(op.get("frame_list"), bytes) < 0 ? bad_virt_addr : okay;
}

function setVersion({ xen: { grants } }: Call, op: ViewOf<"set_version">): number {
  const version = op.get("version");
  if (version !== 1 && version !== 2) return -EINVAL;
  if (version !== grants.version && grants.busy) return -EBUSY;
  grants.setVersion(version);
  return 0;
}
function getVersion(call: Call, op: ViewOf<"get_version">): number {
  const table = asked(call, op.get("dom"));
  if (typeof table === "number") return table === bad_domain ? -ESRCH : -EPERM;
  op.set("version", table.version);
  return 0;
}
function querySize(call: Call, op: ViewOf<"query_size">): number {
  const table = asked(call, op.get("dom"));
  if (typeof table === "number") return table;
  op.setAll({ nr_frames: table.shared.length, max_nr_frames: table.maxFrames });
  return okay;
}

/** What a guest of a virtual machine has of them: all others are ENOSYS there. */
const ROWS: { readonly [K in keyof Ops]?: Row<K> } = {
  map_grant_ref: { each: map },
  unmap_grant_ref: { each: unmap },
  setup_table: { each: setupTable, single: true },
  copy: { each: copy },
  query_size: { each: querySize, single: true },
  set_version: { each: setVersion, plain: true, single: true },
  get_version: { each: getVersion, plain: true, single: true },
  swap_grant_ref: {
    each: ({ xen }, op) => xen.grants.swap(op.get("ref_a"), op.get("ref_b")),
  },
};
// deno-lint-ignore no-explicit-any
type AnyRow = Row<any>;
const BY_NUMBER = new Map(
  Object.entries(ROWS).map(([name, row]) => [
    GNTTABOP[name as keyof Ops].number,
    [GNTTABOP[name as keyof Ops].arg as StructOf, row as AnyRow] as const,
  ]),
);

export const grantTableOp: Handler = (call) => {
  const found = BY_NUMBER.get(call.low(0)), count = call.low(2), from = call.wide(1);
  if (!found) return -ENOSYS;
  const [type, { each, plain, single }] = found;
  if (count | 0 && count > 0x7fff_ffff || (single && count !== 1)) return -EINVAL;
  const now = Math.min(count, AT_A_TIME), op = new View(type, call.width);
  let at = from;
  for (let n = 0; n < now; n++, at += BigInt(op.raw.length)) {
    if (!call.fill(op.raw, at)) return -EFAULT;
    const result = each(call, op);
    if (plain && result < 0) return result;
    if (!plain) op.set("status", result);
    if (call.put(op, at)) return -EFAULT;
  }
  if (now === count) return 0;
  call.setWide(1, at);
  call.setWide(2, BigInt(count - now));
  call.again = true;
  return 0;
};
