// Hypercalls under the debugger: by name, decoded, with what they gave; denied; counted; unseen by the guest.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { EVTCHNOP } from "../abi/xen/event_channel.ts";
import { GNTTABOP } from "../abi/xen/grant_table.ts";
import { HYPERCALLS } from "../abi/xen/hypercalls.ts";
import { XENVER } from "../abi/xen/version.ts";
import { DOMID, VIRQ } from "../abi/xen/xen.ts";
import { hostHash } from "../xen/state.ts";
import { GuestDomain } from "./domain.ts";
import { ARGUMENT, CALL_WAYS, CallGuest, type CallWay, callWayName } from "./testing/calls.ts";

const { EINVAL, ENOSYS, EPERM, ESRCH } = XEN_ERRNO;

async function watched(way: CallWay) {
  const guest = await CallGuest.make(way);
  return { guest, dom: new GuestDomain(guest.guest.built, undefined, () => {}) };
}
/** Some calls, with and without errors. */
function calls(guest: CallGuest) {
  const { send, bind_virq, alloc_unbound } = EVTCHNOP, name = "event_channel_op";
  return [
    guest.call("xen_version", XENVER.version.number),
    guest.op(name, bind_virq, { virq: VIRQ.DEBUG, vcpu: 0 }).result,
    guest.op(name, send, { port: 9 }).result,
    guest.op(name, alloc_unbound, { dom: 77, remote_dom: 0 }).result,
    guest.call(name, send.number, 0xf000_0000),
    guest.call(name, 99, ARGUMENT),
    guest.call(63),
    guest.op("grant_table_op", GNTTABOP.query_size, { dom: DOMID.SELF }).result,
  ];
}

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`hypercalls are traced when they are made, with arguments, result and errno (${name})`, async () => {
    const { guest, dom } = await watched(way);
    const trace = dom.trace("hypercall");
    const lines: string[] = [];
    dom.trace("hypercall", {}, (call) => void lines.push(call.describe()));
    calls(guest);
    assertEquals(lines.slice(0, 7), [
      "hypercall xen_version version = 0x40011",
      "hypercall event_channel_op bind_virq {virq: DEBUG, vcpu: 0, port: 3} = 0",
      "hypercall event_channel_op send {port: 9} = -EINVAL (port 9 is closed)",
      "hypercall event_channel_op alloc_unbound {dom: 77, remote_dom: 0, port: 0} = -ESRCH (there is no domain 77 with channels and grants)",
      "hypercall event_channel_op send {arg: unreadable} = -EFAULT",
      "hypercall event_channel_op 99 = -ENOSYS",
      "hypercall number 0x3f = -ENOSYS",
    ]);
    const why = dom.vcpus[0].why();
    assertEquals([why.text, why.check, why.source], [
      "event_channel_op alloc_unbound: -ESRCH: there is no domain 77 with channels and grants",
      "no domain",
      "Xen public/errno.h: there is no such domain",
    ]);
    const { events } = trace;
    assertEquals(events.map(({ sub }) => sub), [
      "version",
      "bind_virq",
      "send",
      "alloc_unbound",
      "send",
      "99",
      undefined,
      "query_size",
    ]);
    const [, , send] = events;
    assertEquals(
      [send.number, send.name, send.width, send.arguments, send.result, send.error],
      [32, "event_channel_op", way.width, { port: 9 }, -EINVAL, "EINVAL"],
    );
  });

  Deno.test(`multicalls are unfolded: shown, filtered and counted call by call (${name})`, async () => {
    const { guest, dom } = await watched(way), { width } = way, size = width / 8;
    const lines: string[] = [];
    dom.trace("hypercall", {}, (call) => void lines.push(call.describe()));
    const sends = dom.trace("hypercall", { sub: "send" });
    const list = ARGUMENT + 0x100,
      words = (...values: number[]) =>
        width === 64
          ? new Uint8Array(BigUint64Array.from(values, BigInt).buffer)
          : new Uint8Array(Uint32Array.from(values).buffer);
    guest.guest.write(ARGUMENT, new Uint8Array(Uint32Array.of(9).buffer));
    guest.guest.write(list, words(HYPERCALLS.xen_version.number, 0, XENVER.version.number));
    guest.guest.write(
      list + 8 * size,
      words(HYPERCALLS.event_channel_op.number, 0, EVTCHNOP.send.number, ARGUMENT),
    );
    let stopped = 0;
    const b = dom.break("hypercall", { sub: "send" }, ({ sub }) => {
      if (sub === "send") stopped++;
      return "continue";
    });
    assertEquals(guest.call("multicall", list, 2), 0);
    b.delete();
    const [version, send] = [
      "xen_version version = 0x40011",
      "event_channel_op send {port: 9} = -EINVAL",
    ];
    assertEquals([lines.length, stopped, sends.hits], [3, 1, 1]);
    assert(lines[0].startsWith(`hypercall multicall [${version}; ${send}] = 0`), lines[0]);
    assertEquals(lines.slice(1), [`hypercall ${version}`, `hypercall ${send}`]);
    assertEquals(dom.hypercalls.total, 3);
  });

  Deno.test(`a stop is before the call, by name or number; it can be denied (${name})`, async () => {
    const { guest, dom } = await watched(way), seen: (string | undefined)[] = [];
    dom.trace("hypercall", { error: "ESRCH" }, (call) => void seen.push(call.describe()));
    const b = dom.break(
      "hypercall",
      { name: "event_channel_op", sub: "send" },
      (call) => call.deny("ESRCH"),
    );
    const { send, alloc_unbound } = EVTCHNOP;
    const { out } = guest.op("event_channel_op", alloc_unbound, {
      dom: DOMID.SELF,
      remote_dom: 0,
    });
    const port = out.get("port"), channel = guest.xen.channels.get(port)!;
    assertEquals([guest.op("event_channel_op", send, { port }).result, b.hits], [-ESRCH, 1]);
    assertEquals(seen, [`hypercall event_channel_op send {port: ${port}} = -ESRCH`]);
    b.delete();
    for (const filter of [{ number: 32 }, { name: "event_channel_op" }, { sub: "send" }] as const) {
      const stops = dom.break("hypercall", filter);
      assertEquals(guest.op("event_channel_op", send, { port }).result, undefined);
      assert(dom.stop?.kind === "hypercall");
      assertEquals(dom.stop.describe(), `hypercall event_channel_op send {port: ${port}}`);
      stops.delete();
      guest.domain.resume();
      assertEquals(guest.goOn(), 0);
    }
    assertThrows(
      () => dom.break("hypercall", { name: "memory_op", sub: "send" }),
      RangeError,
      "no such operation",
    );
    dom.break("hypercall", { name: "xen_version" }, (call) => {
      assertThrows(() => call.deny("ENOTHING"), TypeError, "an errno by name");
      return call.deny(-1);
    });
    assertEquals(guest.call("xen_version", XENVER.version.number), -EPERM);
    assertEquals(channel.state, "unbound");
  });

  Deno.test(`hypercalls are counted, with their errors; looking changes nothing (${name})`, async () => {
    const run = async (look: boolean) => {
      const { guest, dom } = await watched(way);
      if (look) {
        dom.trace("hypercall");
        dom.trace("any");
        dom.break("hypercall", {}, () => "continue");
      }
      const results = calls(guest);
      return { results, dom, hash: hostHash(guest.guest.host) };
    };
    const [plain, looked] = [await run(false), await run(true)];
    assertEquals([looked.results, looked.hash], [plain.results, plain.hash]);
    const { hypercalls } = plain.dom;
    assertEquals(hypercalls.total, 8);
    assertEquals(hypercalls.find(({ sub }) => sub === "send"), {
      name: "event_channel_op",
      sub: "send",
      count: 2,
      errors: { EINVAL: 1, EFAULT: 1 },
    });
    const unknown = hypercalls.filter((row) => [row.name, row.sub].includes("unknown"));
    assertEquals(unknown.map(({ count, errors }) => [count, errors]), [
      [1, { ENOSYS: 1 }],
      [1, { ENOSYS: 1 }],
    ]);
    assertEquals(plain.results[6], -ENOSYS);
  });
}
