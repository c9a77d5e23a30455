// memory_op: what a guest has of memory, gets, gives back and moves; each refusal by its errno.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { MEMOP, XENMAPSPACE, XENMEM, XENMEMF } from "../../abi/xen/memory.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import { e820, encodeE820 } from "../../builder/e820.ts";
import {
  ARGUMENT,
  CALL_WAYS,
  CallGuest,
  type CallWay,
  callWayName,
} from "../../debug/testing/calls.ts";
import { hostHash, loadHost, saveHost } from "../state.ts";

const {
  EACCES,
  EDOM,
  EFAULT,
  EILSEQ,
  EINVAL,
  ENOENT,
  ENOSYS,
  ENXIO,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  ESRCH,
  EXDEV,
} = XEN_ERRNO;
const { SELF } = DOMID;

/** Bytes of a guest; its pages, with the two it shares with domain 0 and without the hole for video. */
const MEMORY = 2 << 20, PAGES = MEMORY / 4096 - 0x20 + 2;
/** Guest frames: RAM of no other use, and a hole. */
const PAGE = 0x170, HOLE = 0x4000;
/** Where lists are; nowhere. */
const LIST = ARGUMENT + 0x400, NOWHERE = 0x4000_0000;
/** Guest frames that there can be. */
const FRAMES = 2 ** 21;

type Ops = typeof XENMEM;
type Values = Readonly<Record<string, number | bigint>>;

class Guest {
  constructor(readonly guest: CallGuest) {}
  static async make(way: CallWay, more: Parameters<typeof CallGuest.make>[1] = {}) {
    return new Guest(await CallGuest.make(way, more));
  }
  get physmap() {
    return this.guest.xen.physmap;
  }
  get p2m() {
    return this.guest.engine.p2m;
  }
  get free() {
    return this.p2m.frames.free;
  }
  list(at: number, ...values: (number | bigint)[]): void {
    const size = this.guest.width / 8, bytes = new Uint8Array(size * values.length);
    const view = new DataView(bytes.buffer);
    values.forEach((value, n) => {
      if (size === 8) view.setBigUint64(8 * n, BigInt(value), true);
      else view.setUint32(4 * n, Number(value), true);
    });
    this.guest.guest.write(at, bytes);
  }
  /** An operation that goes on from extent `start`. */
  op<K extends keyof Ops>(name: K, values: Values = {}, start = 0) {
    const { guest } = this, command = XENMEM[name].number + (start << MEMOP.EXTENT_SHIFT);
    if (!XENMEM[name].arg) return { result: guest.call("memory_op", command, ARGUMENT) };
    // deno-lint-ignore no-explicit-any
    const view = guest.argument(XENMEM[name] as any, values);
    const result = guest.call("memory_op", command, ARGUMENT);
    // deno-lint-ignore no-explicit-any
    return { result, out: guest.argumentNow(view) as any };
  }
  result<K extends keyof Ops>(name: K, values: Values = {}, start = 0) {
    return this.op(name, values, start).result;
  }
  /** Extents of one of the three operations that count them. */
  reserve(
    name: "increase_reservation" | "decrease_reservation" | "populate_physmap",
    frames: readonly number[],
    more: Values = {},
    start = 0,
  ) {
    this.list(LIST, ...frames);
    const values = { domid: SELF, extent_start: LIST, nr_extents: frames.length, ...more };
    return this.result(name, values, start);
  }
  add(
    space: keyof typeof XENMAPSPACE,
    idx: number | bigint,
    gpfn: number | bigint,
    more: Values = {},
    start = 0,
  ) {
    const values = { domid: SELF, space: XENMAPSPACE[space], idx, gpfn, ...more };
    return this.result("add_to_physmap", values, start);
  }
  has(frame: number): boolean {
    return this.p2m.machineFrame(frame) >= 0;
  }
  /** What may be asked of its own memory. */
  counts() {
    return (["current_reservation", "maximum_reservation", "maximum_gpfn"] as const).map((name) =>
      this.result(name, { domid: SELF })
    );
  }
}

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`a guest may ask what it has of memory, and of no other domain (${name})`, async () => {
    const one = await Guest.make(way), two = await Guest.make(way, { host: one.guest.guest.host });
    assertEquals(one.counts(), [PAGES, MEMORY / 4096 + 256, 0xf_ffff]);
    assertEquals(one.result("maximum_ram_page"), (16 << 20) / 4096 - 1);
    for (const asked of ["current_reservation", "maximum_reservation", "maximum_gpfn"] as const) {
      assertEquals(
        one.result(asked, { domid: one.guest.domain.id }),
        one.result(asked, { domid: SELF }),
      );
      assertEquals(one.result(asked, { domid: two.guest.domain.id }), -EPERM);
      assertEquals([one.result(asked, { domid: 0 }), one.result(asked, { domid: 77 })], [
        -EPERM,
        -ESRCH,
      ]);
      assertEquals(one.result(asked, { domid: SELF }, 1), -EINVAL);
      assertEquals(one.guest.call("memory_op", XENMEM[asked].number, NOWHERE), -EFAULT);
    }
    assertEquals(one.result("maximum_ram_page", {}, 1), -EINVAL);
    const grown = await Guest.make(way, { host: one.guest.guest.host, maxMemory: 2 * MEMORY });
    assertEquals(grown.counts()[1], 2 * MEMORY / 4096 + 256);
  });

  Deno.test(`memory given back is the host's, zeroed, and comes again where it is asked for (${name})`, async () => {
    const guest = await Guest.make(way), { free } = guest, { memory } = guest.guest.domain;
    memory.write(PAGE * 4096, new Uint8Array(4096).fill(7));
    assertEquals(guest.reserve("decrease_reservation", [PAGE, PAGE + 1, HOLE, PAGE + 2]), 2);
    assertEquals([guest.free, guest.counts()[0], guest.has(PAGE)], [free + 2, PAGES - 2, false]);
    assertThrows(() => memory.read(PAGE * 4096, 4), RangeError, "there is no memory");
    assertThrows(
      () => memory.write(PAGE * 4096 - 2, new Uint8Array(4)),
      RangeError,
      "there is no memory",
    );
    assertEquals(guest.reserve("populate_physmap", [PAGE, HOLE + 1]), 2);
    assertEquals(guest.counts()[0], PAGES);
    assertEquals(memory.read(PAGE * 4096, 4096), new Uint8Array(4096));
    memory.write((HOLE + 1) * 4096, Uint8Array.of(1, 2, 3));
    assertEquals(memory.read((HOLE + 1) * 4096, 3), Uint8Array.of(1, 2, 3));
    // An extent of four pages; and what is not all there is given back as far as it is.
    assertEquals(guest.reserve("populate_physmap", [HOLE + 4], { extent_order: 2 }), 1);
    assertEquals(guest.reserve("decrease_reservation", [HOLE + 6], { extent_order: 2 }), 0);
    assertEquals(guest.counts()[0], PAGES + 2);
    assertEquals([4, 5, 6, 7].map((n) => guest.has(HOLE + n)), [true, true, false, false]);
    // What was at a place that is populated stays the domain's, out of its reach.
    memory.write(PAGE * 4096, Uint8Array.of(9));
    assertEquals(guest.reserve("populate_physmap", [PAGE]), 1);
    assertEquals([guest.counts()[0], memory.read(PAGE * 4096, 1)[0]], [PAGES + 3, 0]);
    // With the domain, all goes.
    const { id, host } = guest.guest.domain, { frames } = guest.p2m;
    guest.guest.domain.destroy();
    assertEquals([...frames.owners].filter((owner) => owner === id).length, 0);
    assert(host.machine.size > 0);
  });

  Deno.test(`reservations: how many extents are done, whatever is wrong (${name})`, async () => {
    const guest = await Guest.make(way);
    const all = ["increase_reservation", "decrease_reservation", "populate_physmap"] as const;
    for (const what of all) {
      const at = (more: Values, start = 0) => guest.reserve(what, [HOLE], more, start);
      assertEquals(at({ domid: 0 }), 0);
      assertEquals(at({ domid: 77 }), 0);
      assertEquals(at({ extent_order: 10 }), 0);
      assertEquals(at({ nr_extents: 0 }), 0);
      assertEquals(at({ mem_flags: 1 }), 0);
      assertEquals(at({ nr_extents: 2 ** 26 }, 3), 3);
      assertEquals(at({ nr_extents: 5 }, 5), 5);
      assertEquals(at({ domid: 77, nr_extents: 9 }, 4), 4);
      const command = XENMEM[what].number | 6 << MEMOP.EXTENT_SHIFT;
      assertEquals(guest.guest.call("memory_op", command, NOWHERE), 6);
    }
    assertEquals(guest.counts()[0], PAGES);
    assertEquals(
      guest.reserve("populate_physmap", [HOLE], { mem_flags: XENMEMF.populate_on_demand }),
      0,
    );
    assertEquals(guest.reserve("populate_physmap", [HOLE], { mem_flags: 0x120 }), 1);
    assertEquals(guest.reserve("decrease_reservation", [HOLE], { mem_flags: 0xffff_ffff }), 1);
    // A list that cannot be read; frames that cannot be.
    assertEquals(guest.reserve("populate_physmap", [HOLE], { extent_start: NOWHERE }), 0);
    assertEquals(guest.reserve("decrease_reservation", [PAGE], { extent_start: NOWHERE }), 0);
    assertEquals(guest.reserve("populate_physmap", [FRAMES - 1, FRAMES, HOLE]), 1);
    assertEquals(guest.reserve("populate_physmap", [FRAMES - 4], { extent_order: 3 }), 0);
    assertEquals(guest.counts()[2], FRAMES - 1);
    assertEquals(guest.reserve("decrease_reservation", [FRAMES - 1, FRAMES]), 1);
    // From an extent on.
    assertEquals(guest.reserve("populate_physmap", [HOLE, HOLE + 1, HOLE + 2], {}, 2), 3);
    assertEquals([0, 1, 2].map((n) => guest.has(HOLE + n)), [false, false, true]);
    assertEquals(guest.reserve("decrease_reservation", [HOLE + 2]), 1);
    // Further pages that are nowhere; up to the most that it may have.
    const [have, most] = guest.counts() as number[];
    assertEquals(guest.reserve("increase_reservation", [0, 0], { extent_order: 1 }), 2);
    assertEquals(guest.counts()[0], have + 4);
    const frames = Array.from({ length: most - have }, (_, n) => HOLE + n);
    assertEquals(guest.reserve("populate_physmap", frames), most - have - 4);
    assertEquals([guest.counts()[0], guest.reserve("increase_reservation", [0])], [most, 0]);
  });

  Deno.test(`many extents are done in several goes, and a populated map can be large (${name})`, async () => {
    const guest = await Guest.make(way, { maxMemory: 3 * MEMORY }), { vcpu } = guest.guest.engine;
    const frames = Array.from({ length: 1000 }, (_, n) => HOLE + n);
    const exits = vcpu.exits.hypercall ?? 0;
    assertEquals(guest.reserve("populate_physmap", frames), 1000);
    assert(vcpu.exits.hypercall! - exits > 3, "a thousand pages at once");
    assertEquals(guest.counts()[0], PAGES + 1000);
    assertEquals(guest.reserve("decrease_reservation", frames), 1000);
    assertEquals(guest.counts()[0], PAGES);
    const range = { space: XENMAPSPACE.gmfn_range, size: 300 };
    guest.reserve("populate_physmap", frames.slice(0, 300));
    const machine = guest.p2m.machineFrame(HOLE + 299);
    assertEquals(guest.add("gmfn_range", HOLE, HOLE + 0x1000, range), 0);
    assertEquals([guest.has(HOLE), guest.p2m.machineFrame(HOLE + 0x1000 + 299)], [false, machine]);
  });

  Deno.test(`a host without memory refuses, and stands (${name})`, async () => {
    const guest = await Guest.make(way, { maxMemory: 64 << 20 });
    const frames = Array.from({ length: 500 }, (_, n) => HOLE + n);
    let got = 0;
    for (let n = 0; n < 10; n++) {
      got += guest.reserve("populate_physmap", frames.map((frame) => frame + 500 * n))!;
    }
    assert(got > 1000 && guest.free <= 3, `${got} pages, and ${guest.free} are free`);
    // The last ones are kept for tables.
    while (guest.free > 0) guest.p2m.frames.allocate(guest.guest.domain.id);
    assertEquals(guest.add("shared_info", 0, 0x1f_0000), -XEN_ERRNO.ENOMEM);
    assertEquals(guest.add("grant_table", 9, PAGE), -EINVAL);
    assertEquals(guest.reserve("decrease_reservation", frames), 500);
    assertEquals(guest.add("shared_info", 0, 0x1f_0000), 0);
  });

  Deno.test(`add_to_physmap: each space, and each refusal (${name})`, async () => {
    const guest = await Guest.make(way),
      { free } = guest,
      shared = guest.guest.xen.sharedInfo / 4096;
    const id = guest.guest.domain.id;
    // The hypervisor's page at one place; RAM that was there is free.
    assertEquals([guest.add("shared_info", 0, PAGE), guest.p2m.machineFrame(PAGE)], [0, shared]);
    assertEquals([guest.free, guest.counts()[0]], [free + 1, PAGES - 1]);
    assertEquals([guest.add("shared_info", 0, HOLE, { domid: id }), guest.has(PAGE)], [0, false]);
    assertEquals(guest.add("shared_info", 1, PAGE), -EINVAL);
    assertEquals(guest.add("grant_table", 1, PAGE), 0);
    assertEquals(guest.p2m.machineFrame(PAGE), guest.guest.xen.grants.shared[1]);
    assertEquals(guest.add("grant_table", 64, PAGE), -EINVAL);
    assertEquals(guest.add("grant_table", 0x8000_0000, PAGE), -EINVAL);
    guest.guest.xen.grants.setVersion(2);
    assertEquals(guest.add("grant_table", 0x8000_0000, PAGE), 0);
    assertEquals(guest.p2m.machineFrame(PAGE), guest.guest.xen.grants.status[0]);
    // Memory of the guest's own, from one place to another.
    const moved = guest.p2m.machineFrame(PAGE + 1), before = guest.free;
    assertEquals(guest.add("gmfn", PAGE + 1, PAGE + 2), 0);
    assertEquals([guest.p2m.machineFrame(PAGE + 2), guest.has(PAGE + 1)], [moved, false]);
    assertEquals(guest.free, before + 1);
    assertEquals(guest.add("gmfn", PAGE + 2, PAGE + 2), 0);
    assertEquals(guest.add("gmfn", PAGE + 1, PAGE + 3), -EINVAL);
    // A ROM is at two places.
    assertEquals(guest.add("gmfn", 0xf_fff0, PAGE), -EXDEV);
    assertEquals(guest.add("gmfn_foreign", 0, PAGE), -ENOSYS);
    assertEquals(guest.add("dev_mmio", 0, PAGE), -EACCES);
    const odd = { space: 77 };
    assertEquals(guest.add("gmfn", 0, PAGE, odd), -EINVAL);
    assertEquals(guest.add("shared_info", 0, FRAMES), -EINVAL);
    const most = way.width === 64 ? 2n ** 64n - 1n : BigInt(2 ** 23);
    assertEquals(guest.add("shared_info", 0, most), -EINVAL);
    for (const [domid, errno] of [[0, EACCES], [77, ESRCH]] as const) {
      assertEquals(guest.add("shared_info", 0, PAGE, { domid }), -errno);
    }
    assertEquals(guest.add("shared_info", 0, PAGE, {}, 0x1_0000), -EDOM);
    const { number } = XENMEM.add_to_physmap;
    assertEquals(guest.guest.call("memory_op", number, NOWHERE), -EFAULT);
    // Ranges.
    const range = (idx: number | bigint, gpfn: number | bigint, size: number, start = 0) =>
      guest.add("gmfn_range", idx, gpfn, { size }, start);
    assertEquals(range(PAGE + 4, HOLE + 8, 3), 0);
    assertEquals([8, 9, 10].map((n) => guest.has(HOLE + n)), [true, true, true]);
    assertEquals(range(PAGE + 8, HOLE + 16, 3, 1), 0);
    assertEquals([16, 17, 18].map((n) => guest.has(HOLE + n)), [false, true, true]);
    assertEquals([range(0, 0, 0), range(PAGE, PAGE, 2, 2), range(PAGE, PAGE, 2, 3)], [
      0,
      -EILSEQ,
      -EILSEQ,
    ]);
    const end = 2n ** BigInt(way.width) - 1n;
    assertEquals([range(end, PAGE, 2), range(PAGE, end, 2)], [-EOVERFLOW, -EOVERFLOW]);
    assertEquals(range(HOLE + 0x100, PAGE, 2), -EINVAL);
  });

  Deno.test(`add_to_physmap_batch: an errno for each (${name})`, async () => {
    const guest = await Guest.make(way), errors = LIST + 0x200;
    const batch = (more: Values = {}, start = 0) => {
      guest.list(LIST, 0, 1, 0, 0);
      guest.list(LIST + 0x100, HOLE, HOLE, HOLE + 1, FRAMES);
      guest.guest.guest.write(errors, new Uint8Array(16).fill(0xcc));
      const values = {
        domid: SELF,
        space: XENMAPSPACE.shared_info,
        size: 4,
        idxs: LIST,
        gpfns: LIST + 0x100,
        errs: errors,
        ...more,
      };
      const result = guest.result("add_to_physmap_batch", values, start);
      return [result, ...new Int32Array(guest.guest.domain.memory.read(errors, 16).buffer)];
    };
    const none = 0xcccc_cccc | 0;
    assertEquals(batch(), [0, 0, -EINVAL, 0, -EINVAL]);
    assertEquals([guest.has(HOLE), guest.has(HOLE + 1)], [false, true]);
    assertEquals(batch({ size: 2 }), [0, 0, -EINVAL, none, none]);
    assertEquals(batch({}, 2), [0, none, none, 0, -EINVAL]);
    const foreign = { space: XENMAPSPACE.gmfn_foreign, "u.foreign_domid": 0 };
    assertEquals(batch(foreign), [0, -EPERM, -EPERM, -EPERM, -EPERM]);
    const result = (more: Values, start = 0) => batch(more, start)[0];
    assertEquals(result({ space: XENMAPSPACE.gmfn_range }), -EOPNOTSUPP);
    assertEquals(result({ space: XENMAPSPACE.dev_mmio }), -EACCES);
    assertEquals([result({ domid: 0 }), result({ domid: 77 })], [-EACCES, -ESRCH]);
    assertEquals([result({ size: 0 }), result({}, 4), result({}, 5)], [0, -EILSEQ, -EILSEQ]);
    assertEquals(result({}, 0x1_0000), -EDOM);
    for (const list of ["idxs", "gpfns", "errs"]) {
      assertEquals(result({ [list]: NOWHERE }), -EFAULT);
    }
  });

  Deno.test(`remove_from_physmap takes a page out of reach, and frees nothing (${name})`, async () => {
    const guest = await Guest.make(way), { free } = guest;
    const remove = (gpfn: number, domid: number = SELF, start = 0) =>
      guest.result("remove_from_physmap", { domid, gpfn }, start);
    assertEquals([remove(PAGE), guest.has(PAGE), guest.free], [0, false, free]);
    assertEquals([guest.counts()[0], remove(PAGE), remove(HOLE)], [PAGES, -ENOENT, -ENOENT]);
    assertEquals([remove(FRAMES), remove(PAGE, 0), remove(PAGE, 77)], [-ENOENT, -EACCES, -ESRCH]);
    assertEquals(remove(PAGE + 1, SELF, 1), -EINVAL);
    guest.add("shared_info", 0, HOLE);
    assertEquals([remove(HOLE), guest.has(HOLE), guest.add("shared_info", 0, HOLE)], [0, false, 0]);
  });

  Deno.test(`the map of addresses is told, and can be set (${name})`, async () => {
    const guest = await Guest.make(way), map = encodeE820(e820(MEMORY, true));
    const told = (nr_entries: number) => {
      const { result, out } = guest.op("memory_map", { nr_entries, buffer: LIST });
      const count = out.get("nr_entries");
      return [result, count, guest.guest.domain.memory.read(LIST, 20 * count)];
    };
    assertEquals(told(100), [0, map.length / 20, map]);
    assertEquals(told(2), [0, 2, map.slice(0, 40)]);
    assertEquals(guest.result("memory_map", { nr_entries: 2, buffer: NOWHERE }), -EFAULT);
    const set = (count: number, domid: number = SELF, buffer = LIST) =>
      guest.result("set_memory_map", { domid, "map.nr_entries": count, "map.buffer": buffer });
    assertEquals([set(1), told(100)], [0, [0, 1, map.slice(0, 20)]]);
    assertEquals([set(1025), set(1, 0), set(1, 77), set(1, SELF, NOWHERE)], [
      -EINVAL,
      -EPERM,
      -ESRCH,
      -EFAULT,
    ]);
    assertEquals([set(0), guest.result("memory_map", { nr_entries: 1, buffer: LIST })], [
      0,
      -ENOSYS,
    ]);
    assertEquals(guest.guest.call("memory_op", XENMEM.memory_map.number, NOWHERE), -ENOSYS);
  });

  Deno.test(`extents are exchanged for others of as many pages (${name})`, async () => {
    const guest = await Guest.make(way);
    const exchange = (given: number[], wanted: number[], more: Values = {}, start = 0) => {
      guest.list(LIST, ...given);
      guest.list(LIST + 0x100, ...wanted);
      const { result, out } = guest.op("exchange", {
        "in.extent_start": LIST,
        "in.nr_extents": given.length,
        "in.domid": SELF,
        "out.extent_start": LIST + 0x100,
        "out.nr_extents": wanted.length,
        "out.domid": SELF,
        ...more,
      }, start);
      return [result, Number(out.get("nr_exchanged"))];
    };
    assertEquals(exchange([PAGE, PAGE + 1], [HOLE, HOLE + 1]), [0, 2]);
    assertEquals([PAGE, PAGE + 1, HOLE, HOLE + 1].map((n) => guest.has(n)), [
      false,
      false,
      true,
      true,
    ]);
    assertEquals(exchange([HOLE, HOLE + 1], [PAGE], { "out.extent_order": 1 }), [0, 2]);
    assertEquals(exchange([PAGE], [HOLE, HOLE + 1], { "in.extent_order": 1 }), [0, 1]);
    assertEquals(guest.counts()[0], PAGES);
    // The second is not there; what was done before stays.
    assertEquals(exchange([HOLE, HOLE + 5], [PAGE, PAGE + 1]), [-EINVAL, 1]);
    assertEquals(exchange([PAGE], [FRAMES]), [-EINVAL, 0]);
    assertEquals([guest.has(PAGE), exchange([], [])], [true, [0, 0]]);
    assertEquals(exchange([PAGE], [HOLE], { nr_exchanged: 1 }), [0, 1]);
    const orders = { "in.extent_order": 10, "out.extent_order": 10 };
    assertEquals(exchange([PAGE], [HOLE], orders), [-EPERM, 0]);
    assertEquals(exchange([PAGE], [HOLE, HOLE + 1]), [-EINVAL, 0]);
    assertEquals(exchange([PAGE], [HOLE], { nr_exchanged: 2 }), [-EINVAL, 2]);
    assertEquals(exchange([PAGE], [HOLE], { "out.domid": 0 }), [-EINVAL, 0]);
    for (const [domid, errno] of [[0, EPERM], [77, ESRCH]] as const) {
      assertEquals(exchange([PAGE], [HOLE], { "in.domid": domid, "out.domid": domid }), [
        -errno,
        0,
      ]);
    }
    assertEquals(exchange([PAGE], [HOLE], { "in.extent_start": NOWHERE }), [-EFAULT, 0]);
    assertEquals(exchange([PAGE], [HOLE], {}, 1)[0], -EINVAL);
    assertEquals(guest.guest.call("memory_op", XENMEM.exchange.number, NOWHERE), -EFAULT);
  });

  Deno.test(`what is domain 0's, or not there (${name})`, async () => {
    const guest = await Guest.make(way), wide = way.width === 64;
    const call = (number: number, at = ARGUMENT) => guest.guest.call("memory_op", number, at);
    guest.guest.guest.write(ARGUMENT, new Uint8Array(256));
    const result = (name: keyof Ops, values: Values = {}, start = 0) =>
      guest.result(name, values, start);
    assertEquals([result("get_pod_target", { domid: SELF }), result("set_pod_target")], [
      -EPERM,
      -EINVAL,
    ]);
    assertEquals(result("get_pod_target", { domid: 77 }), -ESRCH);
    assertEquals(call(XENMEM.get_pod_target.number, NOWHERE), -EFAULT);
    const claim = (values: Values, start = 0) => result("claim_pages", values, start);
    const id = guest.guest.domain.id;
    const claims = [
      claim({ domid: id }),
      claim({ domid: SELF }),
      claim({ domid: id, extent_order: 1 }),
      claim({ domid: id, mem_flags: 1 }),
      claim({ domid: id, extent_start: 1 }),
      claim({ domid: id }, 1),
      call(XENMEM.claim_pages.number, NOWHERE),
    ];
    const expected = [EPERM, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EFAULT];
    assertEquals(claims, expected.map((errno) => wide ? -errno : -ENOSYS));
    const vnuma = (values: Values) => result("get_vnumainfo", values);
    assertEquals(
      [
        vnuma({ domid: SELF }),
        vnuma({ domid: SELF, pad: 1 }),
        vnuma({ domid: 0 }),
        vnuma({ domid: 77 }),
      ],
      [-EOPNOTSUPP, -EINVAL, -EPERM, -ESRCH],
    );
    assertEquals([
      call(XENMEM.acquire_resource.number),
      call(XENMEM.acquire_resource.number, NOWHERE),
    ], [
      -EACCES,
      -EACCES,
    ]);
    const access = (domid: number) => result("access_op", { domid });
    assertEquals([access(SELF), access(id), access(0), access(77)], [
      -ESRCH,
      -EPERM,
      -EINVAL,
      -ESRCH,
    ]);
    const devices = guest.op("reserved_device_memory_map", { nr_entries: 5 });
    assertEquals([devices.result, devices.out.get("nr_entries")], [0, 0]);
    assertEquals(result("reserved_device_memory_map", { flags: 2 }), -EINVAL);
    assertEquals([result("get_sharing_freed_pages"), result("get_sharing_shared_pages")], [0, 0]);
    const table = guest.op("machphys_mfn_list", { max_extents: 4, nr_extents: 9 });
    const none32 = [-EOPNOTSUPP, 9];
    assertEquals([table.result, table.out.get("nr_extents")], wide ? [0, 0] : none32);
    assertEquals(result("machphys_compat_mfn_list"), -EOPNOTSUPP);
    const none = ["machine_memory_map", "machphys_mapping", "paging_op", "sharing_op"] as const;
    for (const name of none) assertEquals(call(XENMEM[name].number, NOWHERE), -ENOSYS, name);
    assertEquals([call(8), call(29), call(63)], [-ENOSYS, -ENOSYS, -ENOSYS]);
  });

  Deno.test(`another domain's page in the map stays there (${name})`, async () => {
    const one = await Guest.make(way), two = await Guest.make(way, { host: one.guest.guest.host });
    const frame = two.p2m.machineFrame(PAGE);
    one.p2m.frames.hold(frame);
    assert(one.physmap.mapForeign(HOLE, frame, false));
    assertEquals(one.reserve("decrease_reservation", [HOLE]), 0);
    assertEquals(one.reserve("populate_physmap", [HOLE]), 0);
    assertEquals(one.add("shared_info", 0, HOLE), -ENXIO);
    assertEquals(one.add("gmfn", HOLE, PAGE), -EINVAL);
    assertEquals(one.result("remove_from_physmap", { domid: SELF, gpfn: HOLE }), -ENOENT);
    assertEquals(one.p2m.machineFrame(HOLE), frame);
    assert(one.physmap.unmapForeign(HOLE, frame));
    one.p2m.frames.letGo(frame);
  });

  Deno.test(`with A20 closed, pages that come and go are seen at both megabytes (${name})`, async () => {
    const guest = await Guest.make(way), { p2m } = guest, even = 0x70, odd = even | 0x100;
    p2m.a20 = false;
    assertEquals(guest.reserve("decrease_reservation", [even]), 1);
    // Another frame than it had, which is somewhere else.
    assertEquals(guest.reserve("populate_physmap", [HOLE, even]), 2);
    const machine = p2m.machineFrame(even);
    p2m.machine.write(machine * 4096, Uint8Array.of(0x5a));
    // What the processor finds there.
    const read = () => {
      guest.guest.guest.enter(way.width === 64 ? "long" : "pae", `mov ebx, [${odd * 4096}]\nhlt`);
      guest.guest.guest.run();
      return Number(guest.guest.guest.reg("rbx") & 0xffn);
    };
    assertEquals(read(), 0x5a);
    p2m.a20 = true;
    assertEquals(read(), 0);
  });
}

Deno.test("frames beyond the processor's addresses lead to memory, and are saved; there are not too many", async () => {
  for (const way of CALL_WAYS) {
    const guest = await Guest.make(way), { host } = guest.guest.guest, far = 0x7fff_ffff;
    assertEquals(guest.reserve("populate_physmap", [far, 2 ** 23]), 1);
    assertEquals(guest.add("gmfn", far, far - 600), 0);
    assertEquals(guest.add("shared_info", 0, far), 0);
    assertEquals([guest.has(far), guest.p2m.writable(far - 600)], [true, true]);
    assertEquals(guest.counts()[2], far);
    const frame = guest.p2m.machineFrame(far - 600), saved = saveHost(host), hash = hostHash(host);
    assertEquals(guest.reserve("decrease_reservation", [far - 600]), 1);
    assertEquals(guest.add("shared_info", 0, PAGE), 0);
    assertEquals([guest.has(far), guest.has(far - 600)], [false, false]);
    loadHost(host, saved);
    assertEquals([hostHash(host), guest.p2m.machineFrame(far - 600)], [hash, frame]);
    assertEquals([guest.p2m.guestFrame(frame), guest.counts()[2]], [far - 600, far]);
    assertEquals(guest.reserve("populate_physmap", [0x8000_0005]), 1);
    assertEquals(guest.counts()[2], way.width === 32 ? 0x7fff_ffff : 0x8000_0005);
    // Each place needs tables, which stay.
    const results = Array.from(
      { length: 70 },
      (_, n) => guest.add("shared_info", 0, 2 ** 25 + 2 ** 18 * n),
    );
    assertEquals(results.filter((result) => result === 0).length, 61);
    assertEquals(results.at(-1), -XEN_ERRNO.ENOMEM);
    assertEquals([guest.add("shared_info", 0, 2 ** 25 + 1), guest.add("shared_info", 0, PAGE)], [
      0,
      0,
    ]);
  }
});

Deno.test("what a guest has of memory is saved; loaded, it gets no more than it would have", async () => {
  const guest = await Guest.make(CALL_WAYS[0]), { host } = guest.guest.guest;
  guest.reserve("decrease_reservation", [PAGE]);
  guest.reserve("increase_reservation", [0, 0]);
  guest.result("set_memory_map", { domid: SELF, "map.nr_entries": 0 });
  const saved = saveHost(host), hash = hostHash(host), counts = guest.counts();
  guest.reserve("populate_physmap", [HOLE, HOLE + 1, PAGE]);
  guest.result("set_memory_map", { domid: SELF, "map.nr_entries": 1, "map.buffer": LIST });
  loadHost(host, saved);
  assertEquals([hostHash(host), guest.counts(), guest.has(HOLE)], [hash, counts, false]);
  assertEquals(guest.result("memory_map", { nr_entries: 1, buffer: LIST }), -ENOSYS);
});
