// multicall: calls made one after the other by one, results, and what ends them or comes between.
import { assert, assertEquals } from "@std/assert";
import { sizeOf, View } from "../../abi/layout.ts";
import { XEN_ERRNO } from "../../abi/xen/errno.ts";
import { EVTCHNOP } from "../../abi/xen/event_channel.ts";
import { type HypercallName, HYPERCALLS } from "../../abi/xen/hypercalls.ts";
import { MEMOP, XENMEM } from "../../abi/xen/memory.ts";
import { SCHEDOP } from "../../abi/xen/sched.ts";
import { DOMID, MULTICALL_ENTRY } from "../../abi/xen/xen.ts";
import { XENVER } from "../../abi/xen/version.ts";
import {
  ARGUMENT,
  CALL_WAYS,
  CallGuest,
  type CallWay,
  callWayName,
} from "../../debug/testing/calls.ts";

const { EFAULT, EINVAL, ENOSYS } = XEN_ERRNO;

/** Where the list is, and an argument that calls share; nowhere; where what is mapped ends. */
const LIST = ARGUMENT + 0x1000, SHARED = ARGUMENT + 0x800, NOWHERE = 0x4000_0000, END = 0x20_0000;
/** What stands in a result that was not written. */
const NONE = -1234n;

type One = readonly [op: HypercallName | number, ...args: (number | bigint)[]];

class Guest {
  private constructor(readonly guest: CallGuest) {}
  static async make(way: CallWay) {
    return new Guest(await CallGuest.make(way));
  }
  get size() {
    return sizeOf(MULTICALL_ENTRY, this.guest.width);
  }
  put(calls: readonly One[], at = LIST): void {
    calls.forEach(([op, ...args], n) => {
      const entry = new View(MULTICALL_ENTRY, this.guest.width);
      entry.set("op", BigInt(typeof op === "number" ? op : HYPERCALLS[op].number));
      entry.set("result", NONE);
      args.forEach((value, i) => entry.set("args", BigInt(value), i));
      this.guest.guest.write(at + n * this.size, entry.raw);
    });
  }
  entry(n: number, at = LIST) {
    const bytes = this.guest.domain.memory.read(at + n * this.size, this.size);
    return new View(MULTICALL_ENTRY, this.guest.width, bytes);
  }
  results(count: number, at = LIST): number[] {
    const { width } = this.guest;
    return Array.from(
      { length: count },
      (_, n) => Number(BigInt.asIntN(width, this.entry(n, at).get("result"))),
    );
  }
  make(calls: readonly One[], count = calls.length, at = LIST): number | undefined {
    this.put(calls, at);
    return this.guest.call("multicall", at, count);
  }
}

const version: One = ["xen_version", XENVER.version.number, 0];
const VERSION = 4 << 16 | 17, none = Number(NONE);

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`multicall: each call has its result, whatever the others' (${name})`, async () => {
    const guest = await Guest.make(way);
    const calls: One[] = [
      version,
      ["xen_version", 99, 0],
      [63],
      [0x8000_0001],
      ["event_channel_op", EVTCHNOP.send.number, NOWHERE],
      ["multicall", LIST, 1],
      ["set_timer_op", 0, 0],
      version,
    ];
    assertEquals(guest.make(calls), 0);
    const errors = [ENOSYS, ENOSYS, ENOSYS, EFAULT, EINVAL].map((errno) => -errno);
    assertEquals(guest.results(8), [VERSION, ...errors, 0, VERSION]);
    assertEquals(guest.make([version], 0), 0);
    assertEquals(guest.results(1), [none]);
    // Arguments stay as they were.
    assertEquals([guest.entry(0).get("op"), guest.entry(0).get("args", 1)], [17n, 0n]);
  });

  Deno.test(`multicall: an entry that cannot be read or written ends it (${name})`, async () => {
    const guest = await Guest.make(way), at = END - 2 * guest.size;
    assertEquals(guest.guest.call("multicall", NOWHERE, 1), -EFAULT);
    assertEquals(guest.make([version, version], 3, at), -EFAULT);
    assertEquals(guest.results(2, at), [VERSION, VERSION]);
    // A page that the guest may not write: the result has nowhere to go, and no further call is made.
    const rom = 0x170, frame = guest.guest.engine.p2m;
    guest.put([["event_channel_op", EVTCHNOP.bind_ipi.number, SHARED], version], rom * 4096);
    frame.protect(rom, { read: true, write: false, execute: true });
    const before = guest.guest.xen.channels.all.length;
    assertEquals(guest.guest.call("multicall", rom * 4096, 2), -EFAULT);
    assertEquals(guest.guest.xen.channels.all.length, before + 1);
    assertEquals(guest.results(2, rom * 4096), [none, none]);
  });

  Deno.test(`multicall: many calls, and calls of many parts, are made in several goes (${name})`, async () => {
    const guest = await Guest.make(way), { vcpu } = guest.guest.engine;
    const count = 200, exits = vcpu.exits.hypercall ?? 0;
    assertEquals(guest.make(Array.from({ length: count }, () => version)), 0);
    assertEquals(new Set(guest.results(count)), new Set([VERSION]));
    assert(vcpu.exits.hypercall! - exits > 3, "all at once");
    // 260 extents take more than one go, in the middle.
    const frames = 0x8_0000, { width } = guest.guest;
    const list = new DataView(new ArrayBuffer(260 * width / 8));
    for (let n = 0; n < 260; n++) {
      if (width === 64) list.setBigUint64(8 * n, BigInt(0x4000 + n), true);
      else list.setUint32(4 * n, 0x4000 + n, true);
    }
    guest.guest.guest.write(frames, new Uint8Array(list.buffer));
    guest.guest.argument(XENMEM.populate_physmap, {
      domid: DOMID.SELF,
      extent_start: frames,
      nr_extents: 260,
    });
    const populate: One = ["memory_op", XENMEM.populate_physmap.number, ARGUMENT];
    assertEquals(guest.make([version, populate, version]), 0);
    assertEquals(guest.results(3), [VERSION, 260, VERSION]);
    assertEquals(guest.guest.engine.p2m.machineFrame(0x4000 + 259) >= 0, true);
    // The call goes on from what stands in its entry.
    const extent = Number(guest.entry(1).get("args", 0)) >> MEMOP.EXTENT_SHIFT;
    assert(extent > 0 && extent < 260, `extent ${extent}`);
  });

  Deno.test(`multicall: one that waits is woken, and the rest is made then (${name})`, async () => {
    const guest = await Guest.make(way), { xen, domain } = guest.guest;
    const calls: One[] = [version, ["sched_op", SCHEDOP.block.number, 0], version];
    assertEquals(guest.make(calls), undefined);
    assertEquals([domain.state.kind, guest.results(3)], ["blocked", [VERSION, 0, none]]);
    xen.vcpus[0].unblock();
    domain.wake(domain.vcpus[0]);
    assertEquals([guest.guest.goOn(), guest.results(3)], [0, [VERSION, 0, VERSION]]);
  });

  Deno.test(`multicall: a shutdown in it is the end (${name})`, async () => {
    const guest = await Guest.make(way), { domain } = guest.guest;
    guest.guest.guest.write(SHARED, Uint8Array.of(0, 0, 0, 0));
    const shutdown: One = ["sched_op", SCHEDOP.shutdown.number, SHARED];
    guest.make([version, shutdown, version]);
    assertEquals([domain.state.kind, guest.results(3)], ["shutdown", [VERSION, 0, none]]);
  });
}
