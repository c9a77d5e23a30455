// Grants between domains: mapped, copied, passed on, and ended in whatever order.
import { assert, assertEquals } from "@std/assert";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { GNTMAP, GNTST, GTF } from "../abi/xen/grant_table.ts";
import { DOMID } from "../abi/xen/xen.ts";
import { CALL_WAYS, callWayName } from "../debug/testing/calls.ts";
import { Grantor, HOLE, OTHER, PAGE, TABLE } from "../debug/testing/grantor.ts";
import { hostHash, loadHost, saveHost } from "./state.ts";

const { bad_copy_arg, bad_domain, bad_gntref, bad_handle, bad_page, eagain, general_error } = GNTST;
const { permission_denied } = GNTST;
const { SELF } = DOMID;
for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`a granted page is mapped, written through, and unmapped (${name})`, async () => {
    const one = await Grantor.make(way), two = await Grantor.make(way, one);
    one.fill(PAGE, 7);
    one.grant(8, two.id, PAGE);
    const { p2m } = one.guest.engine, frame = p2m.machineFrame(PAGE);
    const mapped = two.map(one.id, 8, HOLE);
    assertEquals([mapped.result, mapped.out.get("dev_bus_addr")], [0, BigInt(frame) << 12n]);
    assertEquals(one.flags(8), GTF.permit_access | GTF.reading | GTF.writing);
    assertEquals(two.bytes(HOLE), [7, 7, 7, 7]);
    two.fill(HOLE, 9);
    assertEquals(one.bytes(PAGE), [9, 9, 9, 9]);
    // Once more, to read only: the guest may not write there.
    const again = two.map(one.id, 8, HOLE + 1, GNTMAP.host_map | GNTMAP.readonly);
    assertEquals([again.result, two.guest.engine.p2m.writable(HOLE + 1)], [0, false]);
    const unmap = (handle: number, at: number) =>
      two.op("unmap_grant_ref", { handle, host_addr: at * 4096 }).result;
    assertEquals(unmap(mapped.out.get("handle"), HOLE + 1), general_error);
    assertEquals(unmap(mapped.out.get("handle"), HOLE), 0);
    assertEquals(one.flags(8), GTF.permit_access | GTF.reading);
    assertEquals(unmap(again.out.get("handle"), HOLE + 1), 0);
    assertEquals(one.flags(8), GTF.permit_access);
    assertEquals(unmap(again.out.get("handle"), HOLE + 1), bad_handle);
    assertEquals([two.guest.engine.p2m.machineFrame(HOLE), p2m.frames.uses(frame)], [-1, 0]);
  });

  Deno.test(`what is not granted so cannot be mapped (${name})`, async () => {
    const one = await Grantor.make(way), two = await Grantor.make(way, one);
    one.grant(8, two.id, PAGE, GTF.permit_access | GTF.readonly);
    one.grant(9, one.id, PAGE);
    one.grant(10, two.id, 0x9_0000);
    one.grant(11, two.id, PAGE, GTF.invalid);
    const status = (ref: number, flags: number = GNTMAP.host_map, at = HOLE, dom = one.id) =>
      two.map(dom, ref, at, flags).result;
    assertEquals(
      [8, 9, 10, 11, 511, 512].map((ref) => status(ref)),
      [general_error, general_error, bad_page, general_error, general_error, bad_gntref],
    );
    assertEquals(status(8, GNTMAP.host_map | GNTMAP.readonly), 0);
    assertEquals(status(8, 0), bad_gntref);
    assertEquals(status(8, GNTMAP.device_map), general_error);
    assertEquals(status(8, GNTMAP.host_map, HOLE, 77), bad_domain);
    assertEquals(status(8, GNTMAP.host_map, HOLE, SELF), bad_domain);
    // Where another grant is already, or beyond all addresses.
    const readonly = GNTMAP.host_map | GNTMAP.readonly;
    assertEquals(status(8, readonly), general_error);
    assertEquals(status(8, readonly, 2 ** 40 - 1), general_error);
    assertEquals(one.grants.active.get(8)!.readers, 1);
    // What is another's cannot be granted on.
    two.grant(20, one.id, HOLE);
    assertEquals(one.map(two.id, 20, HOLE).result, bad_page);
  });

  Deno.test(`bytes are copied between pages, granted or own (${name})`, async () => {
    const one = await Grantor.make(way), two = await Grantor.make(way, one);
    one.fill(PAGE, 5);
    two.fill(PAGE, 6);
    one.grant(8, two.id, PAGE);
    one.grant(9, two.id, OTHER, GTF.permit_access | GTF.readonly);
    const granted = { dom: one.id, ref: 8 }, own = { frame: PAGE };
    assertEquals(two.copy(granted, { ...own, offset: 100 }, 16), 0);
    assertEquals(two.bytes(PAGE, 98, 4), [6, 6, 5, 5]);
    assertEquals(two.bytes(PAGE, 114, 4), [5, 5, 6, 6]);
    assertEquals(two.copy({ ...own, offset: 4000 }, { ...granted, offset: 1 }, 2), 0);
    assertEquals(one.bytes(PAGE, 0, 4), [5, 6, 6, 5]);
    assertEquals(one.flags(8), GTF.permit_access);
    const readonly = { dom: one.id, ref: 9 };
    assertEquals(two.copy(own, readonly, 4), general_error);
    assertEquals(two.copy(readonly, own, 4), 0);
    assertEquals(two.copy({ ...granted, offset: 4090 }, own, 8), bad_copy_arg);
    assertEquals(two.copy({ dom: one.id, frame: PAGE }, own, 8), permission_denied);
    assertEquals(two.copy({ dom: 77, ref: 8 }, own, 8), bad_domain);
    assertEquals(two.copy({ frame: 0x9_0000 }, own, 8), bad_page);
    assertEquals(two.grants.active.size + one.grants.active.size, 0);
  });

  Deno.test(`the death of either side leaves nothing held (${name})`, async () => {
    const one = await Grantor.make(way), two = await Grantor.make(way, one);
    const { frames } = one.guest.engine.p2m, { free } = frames;
    const three = await Grantor.make(way, one);
    three.fill(PAGE, 3);
    three.grant(8, two.id, PAGE);
    const frame = three.guest.engine.p2m.machineFrame(PAGE);
    const mapped = two.map(three.id, 8, HOLE);
    assertEquals(mapped.result, 0);
    three.guest.domain.destroy();
    // The page lives on where it is mapped; the rest of that domain is free.
    assertEquals([two.bytes(HOLE), frames.owners[frame]], [[3, 3, 3, 3], three.id]);
    assertEquals(free - frames.free <= 4, true);
    const handle = mapped.out.get("handle");
    assertEquals(two.op("unmap_grant_ref", { handle, host_addr: HOLE * 4096 }).result, 0);
    assertEquals(frames.owners[frame], 0);
    // And the other way round.
    one.grant(8, two.id, PAGE);
    assertEquals(two.map(one.id, 8, HOLE).result, 0);
    two.guest.domain.destroy();
    assertEquals([one.flags(8), one.grants.active.size], [GTF.permit_access, 0]);
    assertEquals(frames.uses(one.guest.engine.p2m.machineFrame(PAGE)), 0);
  });
}

Deno.test("version 2: parts of pages, grants passed on, status words apart", async () => {
  const way = CALL_WAYS[1];
  const one = await Grantor.make(way), two = await Grantor.make(way, one);
  const three = await Grantor.make(way, one);
  for (const it of [one, two]) {
    assertEquals(it.op("set_version", { version: 2 }).result, 0);
    assertEquals(it.op("get_version", { dom: SELF }).out.get("version"), 2);
  }
  assertEquals(one.op("set_version", { version: 3 }).result, -XEN_ERRNO.EINVAL);
  const write = (to: Grantor, ref: number, halves: Record<number, number>, frame: bigint) => {
    const bytes = new Uint8Array(16), view = new DataView(bytes.buffer);
    for (const [at, value] of Object.entries(halves)) view.setUint16(Number(at), value, true);
    view.setBigUint64(8, frame, true);
    to.guest.guest.write(TABLE * 4096 + 16 * ref, bytes);
  };
  one.fill(PAGE, 4);
  // 16 bytes from 32 on, for domain two, who passes it on to three.
  write(one, 8, { 0: GTF.permit_access | GTF.sub_page, 2: two.id, 4: 32, 6: 16 }, BigInt(PAGE));
  write(two, 9, { 0: GTF.transitive, 2: three.id, 4: one.id }, 8n);
  const whole = { dom: two.id, ref: 9, offset: 32 };
  assertEquals(three.copy(whole, { frame: PAGE }, 16), 0);
  assertEquals(three.bytes(PAGE, 14, 4), [4, 4, 0, 0]);
  assertEquals(three.copy({ ...whole, offset: 33 }, { frame: PAGE }, 16), general_error);
  assertEquals(three.map(two.id, 9, HOLE).result, general_error);
  assertEquals(two.map(one.id, 8, HOLE).result, general_error);
  // A whole page can be mapped: its status word says so, its flags do not.
  write(one, 10, { 0: GTF.permit_access, 2: two.id }, BigInt(PAGE));
  const mapped = two.map(one.id, 10, HOLE);
  assertEquals([mapped.result, one.grants.entry(10).flags], [0, GTF.permit_access]);
  const word = one.guest.xen.memory.half(one.grants.status[0] * 4096 + 20);
  assertEquals(word, GTF.reading | GTF.writing);
  assertEquals(one.op("set_version", { version: 1 }).result, -XEN_ERRNO.EBUSY);
  assertEquals(one.op("swap_grant_ref", { ref_a: 10, ref_b: 11 }).result, eagain);
  assertEquals(one.op("swap_grant_ref", { ref_a: 8, ref_b: 11 }).result, 0);
  assertEquals(one.grants.entry(11).length, 16);
});

Deno.test("many operations of one call are done in parts, and each has its status", async () => {
  const one = await Grantor.make(CALL_WAYS[0]), two = await Grantor.make(CALL_WAYS[0], one);
  one.grant(8, two.id, PAGE);
  const count = 300, size = 32;
  const bytes = new Uint8Array(count * size), view = new DataView(bytes.buffer);
  for (let n = 0; n < count; n++) {
    view.setBigUint64(n * size, BigInt((HOLE + n) * 4096), true);
    view.setUint32(n * size + 8, GNTMAP.host_map, true);
    view.setUint32(n * size + 12, 8, true);
    view.setUint16(n * size + 16, one.id, true);
    view.setInt16(n * size + 18, 99, true);
  }
  const at = 0x10_0000;
  two.guest.guest.write(at, bytes);
  assertEquals(two.guest.call("grant_table_op", 0, at, count), 0);
  const after = new DataView(two.guest.domain.memory.read(at, count * size).buffer);
  const statuses = Array.from({ length: count }, (_, n) => after.getInt16(n * size + 18, true));
  // A grant has room for 255 uses.
  assertEquals(statuses.filter((status) => status === 0).length, 255);
  assert(statuses.slice(255).every((status) => status === general_error));
  assertEquals(two.grants.maps.length, 255);
  assertEquals(two.guest.call("grant_table_op", 0, at, -1), -XEN_ERRNO.EINVAL);
  assertEquals(two.guest.call("grant_table_op", 2, at, 2), -XEN_ERRNO.EINVAL);
  assertEquals(two.guest.call("grant_table_op", 4, at, 1), -XEN_ERRNO.ENOSYS);
});

Deno.test("grants and mappings are saved, and end after a load as they would have", async () => {
  const one = await Grantor.make(CALL_WAYS[0]), two = await Grantor.make(CALL_WAYS[0], one);
  const { host } = one.guest.guest;
  one.grant(8, two.id, PAGE);
  const handle = two.map(one.id, 8, HOLE).out.get("handle");
  const saved = saveHost(host), hash = hostHash(host);
  const on = () => {
    const { result } = two.op("unmap_grant_ref", { handle, host_addr: HOLE * 4096 });
    return [result, one.flags(8), hostHash(host)];
  };
  const first = on();
  assertEquals(first.slice(0, 2), [0, GTF.permit_access]);
  loadHost(host, saved);
  assertEquals(hostHash(host), hash);
  assertEquals(on(), first);
});
