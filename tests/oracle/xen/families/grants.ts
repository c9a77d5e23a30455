/**
 * Grants of the domain to itself: both versions, entries in every state, maps of pages that then share
 * what is written.
 *
 * @module
 */
import { layoutOf, offsetOf } from "../../../../src/abi/layout.ts";
import {
  GNTMAP,
  GNTTAB_CACHE,
  GNTTABOP,
  GRANT_ENTRY_V1,
  GRANT_ENTRY_V2,
  GTF,
} from "../../../../src/abi/xen/grant_table.ts";
import {
  XENMAPIDX_grant_table_status,
  XENMAPSPACE,
  XENMEM,
} from "../../../../src/abi/xen/memory.ts";
import { DOMID } from "../../../../src/abi/xen/xen.ts";
import { ARENA } from "../guest.ts";
import { AT, frameOf, OWN_DOMID, PAGE, type Window, type Writer } from "../writer.ts";
import { badHandle } from "./handles.ts";

type Operation = keyof typeof GNTTABOP;

/** What the program knows of its grants. */
export interface Grants {
  version: 1 | 2;
  /** What it wrote into entries. */
  readonly entries: Map<number, string>;
  /** Maps that it made: handle's slot, where, and the reference. */
  readonly maps: { slot: number; at: number; kind: string }[];
  next: number;
}

export const newGrants = (version: 1 | 2): Grants => ({
  version,
  entries: new Map(),
  maps: [],
  next: 0,
});

/** References that programs use; those below 8 are Xen's and its tools'. */
const FIRST = 8, COUNT = 16;
/** Pages to map at. */
const MAPS = 384;
const entrySize = (g: Grants): number => g.version === 1 ? 8 : 16;
const entryAt = (g: Grants, ref: number): number => AT.grants + ref * entrySize(g);

function windows(g: Grants): Window[] {
  const size = entrySize(g);
  // Domids of entries are the run's own; a transitive one has two.
  const mask = Array.from(
    { length: COUNT },
    (_, i) => [i * size + 2, g.version === 1 ? 2 : 4] as const,
  );
  const entries = { what: "entries", at: entryAt(g, FIRST), length: COUNT * size, mask };
  return g.version === 1
    ? [entries]
    : [entries, { what: "status", at: AT.status + 2 * FIRST, length: 2 * COUNT }];
}

/** A domid for a field. */
function domain(w: Writer, field: string, own = 6) {
  const r = w.random, n = r.below(own + 4);
  if (n < own) return { kind: "own", value: 0, from: { [field]: OWN_DOMID } };
  const [kind, value] =
    ([["self", DOMID.SELF], ["domain 0", 0], ["none", 0x7000], ["reserved", DOMID.XEN]] as const)[
      n - own
    ];
  return { kind, value, from: {} };
}

function call(
  w: Writer,
  g: Grants,
  operation: Operation,
  kind: string,
  count = 1,
  more: Window[] = [],
  mask: Window["mask"] = [],
): void {
  const { number, arg } = GNTTABOP[operation];
  const { size } = layoutOf(arg as never, w.width);
  w.call({
    hypercall: "grant_table_op",
    operation,
    kind: count === 1 ? kind : `${kind}, count ${count}`,
    args: [number, { at: AT.arg }, count],
    windows: [
      {
        what: "argument",
        at: AT.arg,
        length: Math.min(size * Math.max(1, Math.min(count, 2)), 96),
        mask,
      },
      ...windows(g),
      ...more,
    ],
  });
}

const offset = (w: Writer, operation: Operation, path: string): number =>
  offsetOf(GNTTABOP[operation].arg as never, path as never, w.width);

/** Puts the table into the physmap: the first page, and the first of status. */
function showTable(w: Writer, g: Grants): void {
  for (
    const [idx, at] of [
      [0, AT.grants],
      ...(g.version === 2 ? [[XENMAPIDX_grant_table_status, AT.status]] : []),
    ]
  ) {
    const arg = w.struct(AT.more, XENMEM.add_to_physmap.arg, {
      domid: DOMID.SELF,
      space: XENMAPSPACE.grant_table,
      idx,
      gpfn: frameOf(at),
    });
    w.call({
      hypercall: "memory_op",
      operation: "add_to_physmap",
      kind: idx === 0 ? "grant table" : "grant status",
      args: [XENMEM.add_to_physmap.number, arg],
    });
  }
}

function setVersion(w: Writer, g: Grants, version: number): void {
  w.struct(AT.arg, GNTTABOP.set_version.arg, { version });
  call(w, g, "set_version", `version ${version}`);
}

export function startGrants(w: Writer, g: Grants): void {
  for (let i = 0; i < 32; i++) w.words(AT.data + i * PAGE, 0x1000 + i, 0xabcd_0000 + i);
  setVersion(w, g, g.version);
  showTable(w, g);
}

/** The guest grants, or takes back: one entry is written whole. */
function write(w: Writer, g: Grants): void {
  const r = w.random, ref = FIRST + r.below(COUNT), at = entryAt(g, ref);
  const [kind, flags] = r.pick(
    [
      ["access", GTF.permit_access],
      ["access", GTF.permit_access],
      ["access", GTF.permit_access],
      ["read-only access", GTF.permit_access | GTF.readonly],
      ["transfer", GTF.accept_transfer],
      ["nothing", GTF.invalid],
      ["nothing", GTF.invalid],
      ...(g.version === 2
        ? [["transitive", GTF.transitive], ["sub-page", GTF.permit_access | GTF.sub_page]] as const
        : []),
    ] as const,
  );
  const page = AT.data + r.below(16) * PAGE;
  const [where, frame] = r.pick(
    [["", frameOf(page)], ["", frameOf(page)], ["", frameOf(page)], [
      ", no page",
      0xf_0000,
    ]] as const,
  );
  const [whom, domid, from] = r.pick(
    [
      ["", 0, true],
      ["", 0, true],
      ["", 0, true],
      [", to domain 0", 0, false],
    ] as const,
  );
  if (g.version === 1) w.struct(at, GRANT_ENTRY_V1, { flags: 0, domid, frame });
  else if (kind === "transitive") {
    w.struct(at, GRANT_ENTRY_V2, {
      "transitive.trans_domid": 0,
      "transitive.gref": FIRST + r.below(COUNT),
    }, { "transitive.trans_domid": OWN_DOMID });
  } else {
    w.struct(at, GRANT_ENTRY_V2, {
      "full_page.frame": frame,
      "hdr.domid": domid,
      ...(kind === "sub-page"
        ? { "sub_page.page_off": r.pick([0, 16, 4000]), "sub_page.length": r.pick([16, 96, 200]) }
        : {}),
    });
  }
  if (from) w.step({ do: "copy", to: at + 2, from: OWN_DOMID.slot, length: 2 });
  // The flags last, as a guest must.
  w.set(at, [flags & 255, flags >> 8]);
  g.entries.set(ref, `${kind}${where}${whom}`);
}

/** A reference: one that was written, or none. */
function reference(w: Writer, g: Grants, good = false): { kind: string; value: number } {
  const r = w.random;
  const granted = [...g.entries].filter(([, kind]) => kind === "access");
  if (good && granted.length > 0) {
    const [value, kind] = r.pick(granted);
    return { kind, value };
  }
  if (g.entries.size > 0 && r.chance(0.9)) {
    const [ref, kind] = r.pick([...g.entries]);
    return { kind, value: ref };
  }
  const value = r.pick([FIRST + COUNT + 2, 600, 100_000, 0xffff_ffff]);
  return { kind: `ref ${value}`, value };
}

function map(w: Writer, g: Grants): void {
  const r = w.random, asked = domain(w, "dom"), ref = reference(w, g);
  const [how, flags] = r.pick(
    [
      ["host", GNTMAP.host_map],
      ["host", GNTMAP.host_map],
      ["host", GNTMAP.host_map],
      ["host, read-only", GNTMAP.host_map | GNTMAP.readonly],
      ["host, read-only", GNTMAP.host_map | GNTMAP.readonly],
      ["device", GNTMAP.device_map],
      ["host and device", GNTMAP.host_map | GNTMAP.device_map],
      ["for user mode", GNTMAP.host_map | GNTMAP.application_map],
      ["by entry", GNTMAP.host_map | GNTMAP.contains_pte],
      ["neither", 0],
      ["bit 31", GNTMAP.host_map | 0x8000_0000],
    ] as const,
  );
  // No map of the domain's own page: Xen would take the page from where it was.
  const dom = asked.kind === "own" && how.startsWith("host") && !ref.kind.startsWith("ref")
    ? { kind: "none", value: 0x7000, from: {} }
    : asked;
  // A place of its own: to map over a map is the end of the domain.
  const at = AT.maps + (g.next++ % MAPS) * PAGE;
  const [where, host] = r.pick(
    [["", ARENA + at], ["", ARENA + at], ["", ARENA + at], [", unaligned", ARENA + at + 8], [
      ", far",
      0xf000_0000 + g.next * PAGE,
    ]] as const,
  );
  w.struct(AT.arg, GNTTABOP.map_grant_ref.arg, {
    host_addr: host,
    flags,
    ref: ref.value,
    status: 77,
    handle: 0xcccc,
  }, {});
  w.step({
    do: "copy",
    to: AT.arg + offset(w, "map_grant_ref", "dom"),
    from: OWN_DOMID.slot,
    length: 2,
  });
  if (dom.kind !== "own") {
    w.set(AT.arg + offset(w, "map_grant_ref", "dom"), [dom.value & 255, dom.value >> 8]);
  }
  const bus = offset(w, "map_grant_ref", "dev_bus_addr");
  call(w, g, "map_grant_ref", `${ref.kind}; ${how}${where}; from ${dom.kind}`, 1, [
    { what: "map", at, length: 8 },
  ], [[offset(w, "map_grant_ref", "dom"), 2], [bus, 8]]);
  const slot = w.slot();
  w.step({ do: "copy", to: slot, from: AT.arg + offset(w, "map_grant_ref", "handle"), length: 4 });
  // Some of those that cannot be there are unmapped, too.
  if (r.chance(0.4)) g.maps.push({ slot, at: where === "" ? at : 0, kind: how });
}

/** Fills an unmap's argument: handle and address of one map, or wrong ones. */
function unmapOf(w: Writer, g: Grants, operation: "unmap_grant_ref" | "unmap_and_replace"): string {
  const r = w.random;
  const one = g.maps.length > 0 && r.chance(0.9) ? r.pick(g.maps.slice(-6)) : undefined;
  const right = r.chance(0.8);
  const host_addr = one && right && one.at !== 0
    ? ARENA + one.at
    : ARENA + AT.maps + r.below(g.next + 1) * PAGE + (r.chance(0.2) ? 8 : 0);
  const values = { host_addr, handle: r.pick([0, 1, 999, 0xffff_ffff]), status: 77 };
  if (operation === "unmap_grant_ref") {
    const dev_bus_addr = r.chance(0.1) ? 0x1000 : 0;
    w.struct(AT.arg, GNTTABOP.unmap_grant_ref.arg, { ...values, dev_bus_addr });
  } else {w.struct(AT.arg, GNTTABOP.unmap_and_replace.arg, {
      ...values,
      new_addr: ARENA + AT.maps + r.below(g.next + 1) * PAGE,
    });}
  if (one) {
    w.step({ do: "copy", to: AT.arg + offset(w, operation, "handle"), from: one.slot, length: 4 });
  }
  if (one && right) g.maps.splice(g.maps.indexOf(one), 1);
  return one
    ? `a map (${one.kind})${right ? "" : ", wrong address"}`
    : `no map, handle ${values.handle}`;
}

function unmap(operation: "unmap_grant_ref" | "unmap_and_replace") {
  return (w: Writer, g: Grants): void => {
    const kind = unmapOf(w, g, operation);
    call(
      w,
      g,
      operation,
      kind,
      1,
      [{ what: "maps", at: AT.maps, length: 4 }],
      operation === "unmap_grant_ref" ? [[8, 8]] : [],
    );
  };
}

function copy(w: Writer, g: Grants): void {
  const r = w.random, type = GNTTABOP.copy.arg, good = r.chance(0.5);
  const side = (name: "source" | "dest") => {
    const gref = r.chance(0.6), ref = reference(w, g, good);
    const dom = domain(w, `${name}.domid`, good ? 1000 : gref ? 8 : 1);
    const self = !gref && (good || r.chance(0.8));
    const far = !good && r.chance(0.1);
    const page = r.below(16);
    const offset = r.pick(good ? [0, 16, 4000] : [0, 0, 16, 4000, 4095, 4096]);
    return {
      gref,
      offset,
      kind: gref
        ? `${ref.kind} of ${dom.kind}`
        : `${far ? "no page" : "page"} of ${self ? "self" : dom.kind}`,
      at: AT.data + page * PAGE,
      values: {
        ...(gref
          ? { [`${name}.u.ref`]: ref.value }
          : { [`${name}.u.gmfn`]: far ? 0xf_0000 : frameOf(AT.data + page * PAGE) }),
        [`${name}.domid`]: self ? DOMID.SELF : dom.value,
        [`${name}.offset`]: offset,
      },
      from: self ? {} : dom.from,
    };
  };
  const source = side("source"), dest = side("dest");
  const len = r.pick(good ? [0, 1, 8, 96] : [0, 1, 8, 96, 96, 4096, 4097, 0xffff]);
  const flags = (source.gref ? 1 : 0) | (dest.gref ? 2 : 0) | (r.chance(0.02) ? 4 : 0);
  w.words(source.at + 16, r.u32(), r.u32());
  w.struct(AT.arg, type, { ...source.values, ...dest.values, len, flags, status: 77 } as never, {
    ...source.from,
    ...dest.from,
  });
  const mask = [offset(w, "copy", "source.domid"), offset(w, "copy", "dest.domid")].map((at) =>
    [at, 2] as const
  );
  call(
    w,
    g,
    "copy",
    `${source.kind}, +${source.offset} to ${dest.kind}, +${dest.offset}, ${len} bytes${
      flags & 4 ? ", flag 4" : ""
    }`,
    1,
    [
      { what: "destination", at: dest.at, length: 32 },
    ],
    mask,
  );
}

function transfer(w: Writer, g: Grants): void {
  const dom = domain(w, "domid"), ref = reference(w, g);
  const mfn = w.random.pick([frameOf(AT.data + 20 * PAGE), 0xf_0000]);
  w.struct(
    AT.arg,
    GNTTABOP.transfer.arg,
    { mfn, ref: ref.value, domid: dom.value, status: 77 },
    dom.from,
  );
  call(
    w,
    g,
    "transfer",
    `${mfn === 0xf_0000 ? "no page" : "a page"} to ${ref.kind} of ${dom.kind}`,
    1,
    [],
    [[w.width / 8, 2]],
  );
}

/** Sizes, versions, frames. */
function ask(w: Writer, g: Grants): void {
  const r = w.random, dom = domain(w, "dom");
  const mask = (operation: Operation): Window["mask"] => [[offset(w, operation, "dom"), 2]];
  switch (r.below(6)) {
    case 0:
      w.struct(AT.arg, GNTTABOP.query_size.arg, { dom: dom.value, status: 77 }, dom.from);
      return call(w, g, "query_size", dom.kind, 1, [], mask("query_size"));
    case 1:
      w.struct(AT.arg, GNTTABOP.get_version.arg, { dom: dom.value }, dom.from);
      return call(w, g, "get_version", dom.kind, 1, [], mask("get_version"));
    case 2: {
      const nr_frames = r.pick([0, 1, 2, 64, 65, 1000]);
      w.longs(AT.list, 0, 0, 0, 0);
      w.struct(AT.arg, GNTTABOP.setup_table.arg, {
        dom: dom.value,
        nr_frames,
        status: 77,
        frame_list: ARENA + AT.list,
      }, dom.from);
      return call(
        w,
        g,
        "setup_table",
        `${nr_frames} frames, ${dom.kind}`,
        1,
        [],
        mask("setup_table"),
      );
    }
    case 3: {
      const nr_frames = r.pick([0, 1, 2, 1000]);
      w.struct(AT.arg, GNTTABOP.get_status_frames.arg, {
        dom: dom.value,
        nr_frames,
        status: 77,
        frame_list: ARENA + AT.list,
      }, dom.from);
      return call(
        w,
        g,
        "get_status_frames",
        `${nr_frames} frames, ${dom.kind}`,
        1,
        [],
        mask("get_status_frames"),
      );
    }
    case 4:
      w.struct(AT.arg, GNTTABOP.dump_table.arg, { dom: dom.value, status: 77 }, dom.from);
      return call(w, g, "dump_table", dom.kind, 1, [], mask("dump_table"));
    default:
      return setVersion(w, g, r.pick([0, 3, g.version, 0xffff_ffff]));
  }
}

function swap(w: Writer, g: Grants): void {
  const a = reference(w, g), b = reference(w, g);
  w.struct(AT.arg, GNTTABOP.swap_grant_ref.arg, { ref_a: a.value, ref_b: b.value, status: 77 });
  call(w, g, "swap_grant_ref", `${a.kind} and ${b.kind}`);
}

function flush(w: Writer, g: Grants): void {
  const r = w.random, ref = reference(w, g);
  const op = r.pick([
    0,
    GNTTAB_CACHE.CLEAN,
    GNTTAB_CACHE.INVAL,
    (GNTTAB_CACHE.SOURCE_GREF | 1) >>> 0,
    8,
  ]);
  w.struct(AT.arg, GNTTABOP.cache_flush.arg, { "a.ref": ref.value, offset: 0, length: 64, op });
  call(w, g, "cache_flush", `op ${op}`);
}

/** Through a map: what is written there is seen in the page that was granted. */
function touch(w: Writer, g: Grants): void {
  const r = w.random, page = Math.max(0, g.next - 1 - r.below(8));
  w.words(AT.maps + page * PAGE, r.u32());
  w.label({ do: "dump", at: AT.maps + page * PAGE, length: 8 }, "grant map", "written", "map");
  for (let i = 0; i < 4; i++) {
    w.label(
      { do: "dump", at: AT.data + (4 * r.below(4) + i) * PAGE, length: 8 },
      "grant map",
      "written",
      "page",
    );
  }
}

function oddCall(w: Writer, g: Grants): void {
  const r = w.random;
  const [operation, { number }] = r.pick(Object.entries(GNTTABOP));
  if (r.chance(0.4)) {
    const { kind, handle } = badHandle(w);
    return w.call({
      hypercall: "grant_table_op",
      operation,
      kind,
      args: [number, handle, r.pick([1, 1, 2])],
      windows: windows(g),
    });
  }
  if (r.chance(0.5)) {
    const count = r.pick([0, 0x8000_0000, 0xffff_ffff]);
    return w.call({
      hypercall: "grant_table_op",
      operation,
      kind: `count ${count}`,
      args: [number, { at: AT.arg }, count],
    });
  }
  w.call({
    hypercall: "grant_table_op",
    operation: "unknown",
    kind: "unknown",
    args: [r.pick([13, 14, 100, 0x7fff_ffff]), { at: AT.arg }, 1],
  });
}

const MOVES: readonly (readonly [number, (w: Writer, g: Grants) => void])[] = [
  [8, map],
  [6, unmap("unmap_grant_ref")],
  [1, unmap("unmap_and_replace")],
  [8, copy],
  [1, transfer],
  [4, ask],
  [2, swap],
  [1, flush],
  [2, touch],
  [1, oddCall],
];
const WEIGHED = MOVES.flatMap(([weight, move]) => Array(weight).fill(move) as typeof move[]);

export function grant(w: Writer, g: Grants): void {
  if (w.random.chance(0.5)) write(w, g);
  w.random.pick(WEIGHED)(w, g);
}
