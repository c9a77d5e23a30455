/**
 * memory_op of a domain without a memory map of its own making: populate, give back, add to the physmap.
 *
 * @module
 */
import { layoutOf } from "../../../../src/abi/layout.ts";
import { XENMAPSPACE, XENMEM } from "../../../../src/abi/xen/memory.ts";
import { DOMID } from "../../../../src/abi/xen/xen.ts";
import { ARENA } from "../guest.ts";
import { AT, frameOf, PAGE, type Window, type Writer } from "../writer.ts";
import { badHandle, domid } from "./handles.ts";

type Operation = keyof typeof XENMEM;

/** Frames: RAM of the arena, behind all RAM, behind everything. */
function frame(w: Writer): { kind: string; value: number } {
  const r = w.random;
  return r.pick([
    { kind: "RAM", value: frameOf(AT.data) + r.below(32) },
    { kind: "RAM", value: frameOf(AT.data) + r.below(32) },
    { kind: "empty", value: 0x8000 + r.below(64) },
    { kind: "empty", value: 0x8000 + r.below(64) },
    { kind: "far", value: 0xf_0000 + r.below(16) },
    { kind: "beyond all", value: 0x7fff_ffff },
  ]);
}

/** What a frame of the arena holds now: whether it is there, and what is in it. */
const content = (at: number): Window => ({ what: "content", at, length: 8 });

const reserved = (w: Writer, kind: string): void => {
  const arg = w.struct(AT.more, XENMEM.current_reservation.arg, { domid: DOMID.SELF });
  w.call({
    hypercall: "memory_op",
    operation: "current_reservation",
    kind,
    args: [XENMEM.current_reservation.number, arg],
  });
};

function simple(operation: Operation) {
  return (w: Writer): void => {
    const { number, arg } = XENMEM[operation];
    if (!arg) {
      return w.call({ hypercall: "memory_op", operation, kind: "plain", args: [number, 0] });
    }
    const dom = domid(w);
    const handle = w.struct(AT.arg, XENMEM.current_reservation.arg, { domid: dom.value }, dom.from);
    w.call({ hypercall: "memory_op", operation, kind: dom.kind, args: [number, handle] });
  };
}

function reservation(
  operation: "increase_reservation" | "decrease_reservation" | "populate_physmap" | "claim_pages",
) {
  return (w: Writer): void => {
    const r = w.random, { number, arg: type } = XENMEM[operation];
    // An increase by 32-bit code that does not come to its end brings this Xen down with a BUG.
    const increase = operation === "increase_reservation" && w.width === 32;
    const first = frame(w), dom = domid(w);
    // Large extents stay away from the guest itself.
    const order = r.pick(
      first.kind === "RAM" ? [0, 0, 0, 1] : [0, 0, 0, 0, 1, 9, 10, 18, 40, 0xffff_ffff],
    );
    const count = increase ? 0 : r.pick([0, 1, 1, 1, 2, 3, 8]);
    const frames = Array.from(
      { length: count },
      (_, i) => first.value + i * (order < 10 ? 2 ** order : 1),
    );
    w.longs(AT.list, ...frames, 0);
    const flags = r.pick([0, 0, 0, 32, 0x1_0000, 0x100, 0xffff_ffff]);
    const bad = r.chance(0.06) ? badHandle(w) : undefined;
    const extents = r.chance(0.04)
      ? { kind: ", bad list", value: 0xf000_0000 }
      : { kind: "", value: ARENA + AT.list };
    const arg = bad?.handle ?? w.struct(AT.arg, type, {
      extent_start: extents.value,
      nr_extents: count,
      extent_order: order,
      mem_flags: flags,
      domid: dom.value,
    }, dom.from);
    w.call({
      hypercall: "memory_op",
      operation,
      kind: bad?.kind ??
        `${dom.kind}, ${first.kind} frames, order ${order}, count ${count}, flags ${flags}${extents.kind}`,
      args: [number, arg],
      windows: [{
        what: "list",
        at: AT.list,
        length: 32,
        // increase gives machine frames.
        mask: operation === "increase_reservation" ? [[0, 32]] : [],
      }, ...(first.kind === "RAM" ? [content(first.value * PAGE - ARENA)] : [])],
    });
    reserved(w, `after ${operation}`);
  };
}

function addToPhysmap(w: Writer): void {
  const r = w.random, dom = domid(w), to = frame(w);
  const [space, idx] = r.pick(
    [
      ["shared_info", 0],
      ["shared_info", 1],
      ["grant_table", 0],
      ["grant_table", 1],
      ["grant_table", 1000],
      ["grant_table", 0x8000_0000],
      ["gmfn", frameOf(AT.data) + r.below(32)],
      ["gmfn", 0xf_0000],
      ["gmfn_range", frameOf(AT.data)],
      ["gmfn_foreign", 0],
      ["dev_mmio", 0],
    ] as const,
  );
  const number = XENMAPSPACE[space];
  const bad = r.chance(0.06) ? badHandle(w) : undefined;
  const arg = bad?.handle ?? w.struct(AT.arg, XENMEM.add_to_physmap.arg, {
    domid: dom.value,
    size: r.pick([0, 1, 2]),
    space: r.chance(0.05) ? 77 : number,
    idx,
    gpfn: to.value,
  }, dom.from);
  w.call({
    hypercall: "memory_op",
    operation: "add_to_physmap",
    kind: bad?.kind ??
      `${dom.kind}, ${space} ${
        space === "gmfn" ? idx < 0x1000 ? "RAM" : "far" : idx
      }, to ${to.kind}`,
    args: [XENMEM.add_to_physmap.number, arg],
    windows: to.kind === "RAM"
      ? [content(to.value * PAGE - ARENA)].map((window) =>
        space === "shared_info" ? { ...window, mask: [[0, 8]] as const } : window
      )
      : [],
  });
}

function batch(w: Writer): void {
  const r = w.random, dom = domid(w), size = r.pick([0, 1, 2, 4]);
  const space = r.pick(
    ["shared_info", "grant_table", "gmfn", "gmfn_range", "gmfn_foreign"] as const,
  );
  const foreign = space === "gmfn_foreign" ? r.pick([0, 0x7000, DOMID.SELF]) : r.pick([0, 0, 0, 1]);
  w.longs(
    AT.list,
    ...Array.from({ length: size + 1 }, () => r.pick([0, 1, frameOf(AT.data) + r.below(32)])),
  );
  w.longs(AT.list + 64, ...Array.from({ length: size + 1 }, () => frame(w).value));
  w.step({ do: "fill", at: AT.list + 128, length: 32, byte: 0xcc });
  const base = ARENA + AT.list, bad = r.chance(0.1);
  const arg = w.struct(AT.arg, XENMEM.add_to_physmap_batch.arg, {
    domid: dom.value,
    space: XENMAPSPACE[space],
    size,
    "u.foreign_domid": foreign,
    idxs: bad ? 0xf000_0000 : base,
    gpfns: base + 64,
    errs: base + 128,
  }, dom.from);
  w.call({
    hypercall: "memory_op",
    operation: "add_to_physmap_batch",
    kind: `${dom.kind}, ${space}, foreign ${foreign}, size ${size}${bad ? ", bad list" : ""}`,
    args: [XENMEM.add_to_physmap_batch.number, arg],
    windows: [{ what: "errors", at: AT.list + 128, length: 16 }],
  });
}

function remove(w: Writer): void {
  const dom = domid(w), from = frame(w);
  const arg = w.struct(AT.arg, XENMEM.remove_from_physmap.arg, {
    domid: dom.value,
    gpfn: from.value,
  }, dom.from);
  w.call({
    hypercall: "memory_op",
    operation: "remove_from_physmap",
    kind: `${dom.kind}, ${from.kind}`,
    args: [XENMEM.remove_from_physmap.number, arg],
    windows: from.kind === "RAM" ? [content(from.value * PAGE - ARENA)] : [],
  });
  reserved(w, "after remove_from_physmap");
}

function map(operation: "memory_map" | "machine_memory_map") {
  return (w: Writer): void => {
    const r = w.random, { number, arg: type } = XENMEM[operation];
    const count = r.pick([0, 1, 2, 32]), bad = r.chance(0.1);
    w.step({ do: "fill", at: AT.list, length: 640, byte: 0xcc });
    const arg = w.struct(AT.arg, type, {
      nr_entries: count,
      buffer: bad ? 0xf000_0000 : ARENA + AT.list,
    });
    w.call({
      hypercall: "memory_op",
      operation,
      kind: `${count} entries${bad ? ", bad buffer" : ""}`,
      args: [number, arg],
      windows: [
        { what: "argument", at: AT.arg, length: 4 },
        { what: "buffer", at: AT.list, length: 160 },
      ],
    });
  };
}

/** Operations that an unprivileged domain without PV page tables is refused, or has no use for. */
function zeros(w: Writer): void {
  const operation = w.random.pick(
    [
      "machphys_mfn_list",
      "exchange",
      "machphys_mapping",
      "set_memory_map",
      "set_pod_target",
      "get_pod_target",
      "get_sharing_freed_pages",
      "get_sharing_shared_pages",
      "paging_op",
      "access_op",
      "sharing_op",
      "machphys_compat_mfn_list",
      "get_vnumainfo",
      "reserved_device_memory_map",
      "acquire_resource",
    ] as const,
  );
  const kind = w.random.pick(["zeros", "self"]);
  w.step({ do: "fill", at: AT.arg, length: 128, byte: 0 });
  if (kind === "self") {
    const { arg } = XENMEM[operation];
    const place = arg && layoutOf(arg as never, w.width).places.get("domid");
    if (place) w.set(AT.arg + place.offset, [0xf0, 0x7f]);
  }
  w.call({
    hypercall: "memory_op",
    operation,
    kind,
    args: [XENMEM[operation].number, { at: AT.arg }],
    windows: [{
      what: "argument",
      at: AT.arg,
      length: 32,
      mask: operation === "machphys_mapping" ? [[0, 24]] : [],
    }],
  });
}

function unknown(w: Writer): void {
  const number = w.random.pick([8, 29, 30, 50, 63]);
  w.call({
    hypercall: "memory_op",
    operation: "unknown",
    kind: `${number}`,
    args: [number, { at: AT.arg }],
  });
}

const MOVES: readonly (readonly [number, (w: Writer) => void])[] = [
  [2, simple("current_reservation")],
  [2, simple("maximum_reservation")],
  [2, simple("maximum_gpfn")],
  [1, (w) =>
    w.call({
      hypercall: "memory_op",
      operation: "maximum_ram_page",
      kind: "plain",
      args: [XENMEM.maximum_ram_page.number, 0],
      hostResult: true,
    })],
  [1, reservation("increase_reservation")],
  [4, reservation("decrease_reservation")],
  [5, reservation("populate_physmap")],
  [1, reservation("claim_pages")],
  [5, addToPhysmap],
  [3, batch],
  [3, remove],
  [2, map("memory_map")],
  [1, map("machine_memory_map")],
  [3, zeros],
  [1, unknown],
];
const WEIGHED = MOVES.flatMap(([weight, move]) => Array(weight).fill(move) as typeof move[]);

/** The data pages hold their own numbers, so that a page that went or moved shows. */
export function startMemory(w: Writer): void {
  for (let i = 0; i < 32; i++) w.words(AT.data + i * PAGE, 0x1000 + i, 0xabcd_0000 + i);
}

export function memory(w: Writer): void {
  w.random.pick(WEIGHED)(w);
}
