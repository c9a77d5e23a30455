// What domains do with one another, under the debugger: events and grants seen, refused, stopped at; live
// tables; and nothing of it seen by the guests.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { EVTCHNOP } from "../abi/xen/event_channel.ts";
import { GNTMAP, GNTST, GTF } from "../abi/xen/grant_table.ts";
import { HVMOP } from "../abi/xen/hvm/hvm_op.ts";
import { DOMID, VIRQ } from "../abi/xen/xen.ts";
import { hostHash, loadHost, saveHost } from "../xen/state.ts";
import { GuestDomain } from "./domain.ts";
import { CALL_WAYS, type CallGuest, type CallWay, callWayName } from "./testing/calls.ts";
import { WayGuest } from "./testing/ways.ts";
import { Grantor, HOLE, OTHER, PAGE } from "./testing/grantor.ts";

const { EACCES, EPERM } = XEN_ERRNO;
const NAME = "event_channel_op";

/** Two guests with a channel between them. */
async function joined(way: CallWay) {
  const one = await Grantor.make(way), two = await Grantor.make(way, one);
  const guests = [one.guest, two.guest] as const;
  const doms = guests.map(({ guest }) => new GuestDomain(guest.built, undefined, () => {}));
  const { out } = one.guest.op(NAME, EVTCHNOP.alloc_unbound, {
    dom: DOMID.SELF,
    remote_dom: two.id,
  });
  const port = out.get("port");
  const bound = two.guest.op(NAME, EVTCHNOP.bind_interdomain, {
    remote_dom: one.id,
    remote_port: port,
  });
  const peer = bound.out.get("local_port");
  const send = (guest: CallGuest, port: number) => guest.op(NAME, EVTCHNOP.send, { port }).result;
  return { one, two, guests, doms, port, peer, send, host: one.guest.guest.host };
}

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`an event is seen where it is sent and where it comes, with what is lost (${name})`, async () => {
    const { one, two, guests, doms: [first, second], port, peer, send } = await joined(way);
    const seen: string[] = [];
    first.trace("event-send", {}, (e) => void seen.push(`1: ${e.describe()}`));
    second.trace("event-send", {}, (e) => void seen.push(`2: ${e.describe()}`));
    const lost = first.trace("event-send", { lost: true, incoming: true });
    const channel = first.eventChannels.get(port);
    const before = channel.sent;
    assertEquals([send(guests[1], peer), send(guests[1], peer)], [0, 0]);
    const there = `port ${peer} (domain ${one.id}, port ${port})`;
    const here = `port ${port} (domain ${two.id}, port ${peer})`;
    assertEquals(seen, [
      `2: event-send through ${there}`,
      `1: event-send to ${here}`,
      `2: event-send through ${there}, pending already`,
      `1: event-send to ${here}, pending already`,
    ]);
    assertEquals(lost.events.map(({ port, pending, masked }) => [port, pending, masked]), [
      [port, true, false],
    ]);
    assertEquals(
      [channel.sent - before, channel.merged, channel.lastBy, channel.pending, channel.state],
      [2, 1, two.id, true, "interdomain"],
    );
    assertEquals([channel.peer, second.eventChannels.get(peer).peer], [
      { domain: two.id, port: peer },
      { domain: one.id, port },
    ]);
    channel.mask();
    send(guests[1], peer);
    assertEquals([lost.events.at(-1)!.masked, channel.sentMasked, channel.masked], [true, 1, true]);
  });

  Deno.test(`an event is dropped or refused, at either end (${name})`, async () => {
    const { guests, doms: [first, second], port, peer, send } = await joined(way);
    const channel = first.eventChannels.get(port), { sent } = channel;
    const results = () => send(guests[1], peer);
    const dropped = channel.deny({ times: 2 });
    assertEquals([results(), results(), dropped.deleted, channel.sent], [0, 0, true, sent]);
    second.eventChannels.get(peer).deny({ times: 1, status: "EACCES" });
    assertEquals([results(), channel.sent], [-EACCES, sent]);
    const denied = first.break("event-send", { domain: second.id }, (e) => e.deny());
    assertEquals([results(), channel.sent, denied.hits], [-EPERM, sent, 1]);
    denied.delete();
    assertEquals([results(), channel.sent], [0, sent + 1]);
    assertThrows(() => first.eventChannels.get(99).raise(), Error, "no such port open");
  });

  Deno.test(`a stop at an event is behind the call that sends it; the other end stops, too (${name})`, async () => {
    const { guests, doms: [first, second], port, peer, host } = await joined(way);
    const plain = saveHost(host),
      run = (break_: boolean) => {
        loadHost(host, plain);
        const own = break_ && second.break("event-send", { port: peer, incoming: false });
        const far = break_ && first.break("event-send", { port, incoming: true });
        const call = () => guests[1].op(NAME, EVTCHNOP.send, { port: peer }).result;
        const result = call();
        if (own && far) {
          assertEquals([result, second.stop?.kind, first.stop?.kind], [
            undefined,
            "event-send",
            "event-send",
          ]);
          assertEquals([second.state, first.state], ["paused", "paused"]);
          assertThrows(() => second.stop!.deny(), Error, "behind what happened");
          own.delete();
          far.delete();
          guests[1].domain.resume();
          assertEquals(guests[1].goOn(), 0);
          guests[0].domain.resume();
        }
        return hostHash(host);
      };
    assertEquals(run(true), run(false));
  });

  Deno.test(`an upcall's delivery is seen, with its port (${name})`, async () => {
    const { guests: [guest], doms: [dom] } = await joined(way);
    const { out } = guest.op(NAME, EVTCHNOP.bind_virq, { virq: VIRQ.DEBUG, vcpu: 0 });
    const port = out.get("port");
    guest.op("hvm_op", HVMOP.set_evtchn_upcall_vector, { vcpu: 0, vector: 0x50 });
    const delivered = dom.trace("event-delivery", { virq: "DEBUG" });
    const sent = dom.trace("event-send", { virq: "DEBUG" });
    guest.xen.channels.raiseVirq(VIRQ.DEBUG);
    assertEquals(sent.events.map(({ port, incoming, domain }) => [port, incoming, domain]), [
      [port, true, undefined],
    ]);
    assert(dom.eventChannels.get(port).pending);
    assertEquals(delivered.hits, 0);
    guest.xen.injected(guest.xen.vcpus[0], 0x50);
    assertEquals(delivered.events.map(({ port, vector }) => [port, vector]), [[port, 0x50]]);
  });

  Deno.test(`what a script does to a channel enters from outside; its table prints (${name})`, async () => {
    const { doms: [dom], port, host } = await joined(way), channel = dom.eventChannels.get(port);
    const entries = host.world.entries.length;
    channel.mask();
    channel.raise();
    channel.unmask();
    assertEquals(host.world.entries.slice(entries).map(({ kind, data }) => [kind, data]), [
      ["event channel", { port, what: "mask" }],
      ["event channel", { port, what: "raise" }],
      ["event channel", { port, what: "unmask" }],
    ]);
    const text = Deno.inspect(dom.eventChannels);
    for (const part of ["interdomain", "domain 2:", "hypervisor", "two-level ABI"]) {
      assert(text.includes(part), text);
    }
    assertEquals([...dom.eventChannels].length, dom.eventChannels.size);
  });

  Deno.test(`uses of grants are seen by both, and refused with any status (${name})`, async () => {
    const { one, two, doms: [first, second] } = await joined(way);
    one.grant(8, two.id, PAGE);
    const seen: string[] = [];
    for (const kind of ["grant-map", "grant-unmap", "grant-copy"] as const) {
      first.trace(kind, { ref: 8 }, (e) => void seen.push(e.describe()));
    }
    const who = `ref 8 of domain ${one.id} (frame 0x170) by domain ${two.id}`;
    assertEquals(two.map(one.id, 9, HOLE).result, GNTST.general_error);
    assertEquals(
      second.vcpus[0].why().text,
      "grant_table_op map_grant_ref: an element's status: reference 9 grants no access",
    );
    const refused = first.break("grant-map", {}, (e) => e.deny("no_device_space"));
    assertEquals(two.map(one.id, 8, HOLE).result, GNTST.no_device_space);
    assertEquals([one.flags(8), first.grants.get(8).maps], [GTF.permit_access, []]);
    refused.delete();
    const { out } = two.map(one.id, 8, HOLE, GNTMAP.host_map | GNTMAP.readonly);
    const handle = out.get("handle");
    assertEquals(first.grants.get(8).maps, [
      { domain: two.id, handle, at: HOLE, readonly: true },
    ]);
    assertEquals(first.grants.get(8).flags, ["permit_access", "reading"]);
    assertEquals(second.grants.mapped, [
      { handle, domain: one.id, ref: 8, at: HOLE, readonly: true },
    ]);
    const unmap = () => two.op("unmap_grant_ref", { handle, host_addr: HOLE * 4096 }).result;
    const kept = second.break("grant-unmap", { by: two.id }, (e) => e.deny());
    assertEquals([unmap(), second.grants.mapped.length], [GNTST.general_error, 1]);
    kept.delete();
    assertEquals([unmap(), second.grants.mapped.length], [0, 0]);
    const copy = () => two.copy({ dom: one.id, ref: 8, offset: 16 }, { frame: OTHER }, 32);
    const no = second.break("grant-copy", { domain: one.id }, (e) => e.deny("bad_page"));
    assertEquals(copy(), GNTST.bad_page);
    no.delete();
    assertEquals([copy(), first.grants.get(8).copies], [0, 1]);
    const map = `grant-map ${who}`, place = ", at frame 0x4000";
    assertEquals(seen, [
      `${map}${place}`,
      `${map}, to be read${place}`,
      // Of those that the other end refuses nothing comes here.
      `grant-unmap ${who}, to be read${place}`,
      `grant-copy from ${who}, 32 bytes at 0x10`,
    ]);
    two.map(one.id, 8, HOLE);
    const picture = first.eventChannels.picture(), lines = picture.text.split("\n");
    assert(lines.every((line) => line.length <= 80), picture.text);
    assert(lines.some((line) => /port \d+ +│<═.*events: .*═>│ port \d+/.test(line)), picture.text);
    assert(lines.some((line) => /ref 8 +│─.*granted.*─>│ frame 0x4000/.test(line)), picture.text);
    for (const part of ["<svg ", "ref 8", "marker-end", "</svg>"]) {
      assert(picture.svg().includes(part));
    }
    const text = Deno.inspect(first.grants);
    for (const part of ["0x170", "permit_access", `domain ${two.id}`]) {
      assert(text.includes(part), text);
    }
    assertThrows(() => first.break("grant-map", { re: 8 } as object), TypeError);
    assertThrows(() => first.grants.get(1e6), RangeError, "references 0 to");
  });

  Deno.test(`looking at events, grants and calls changes nothing (${name})`, async () => {
    const run = async (look: boolean) => {
      const { one, two, guests, doms, port, peer, send, host } = await joined(way);
      if (look) {
        for (const dom of doms) {
          for (
            const kind of [
              "hypercall",
              "event-send",
              "event-delivery",
              "grant-map",
              "grant-unmap",
              "grant-copy",
            ] as const
          ) {
            dom.trace(kind);
            dom.break(kind, {}, () => "continue");
          }
        }
      }
      one.grant(8, two.id, PAGE);
      const { out } = two.map(one.id, 8, HOLE);
      const results = [
        send(guests[0], port),
        send(guests[1], peer),
        two.copy({ dom: one.id, ref: 8 }, { frame: OTHER }, 8),
        two.op("unmap_grant_ref", { handle: out.get("handle"), host_addr: HOLE * 4096 }).result,
        one.op("query_size", { dom: DOMID.SELF }).result,
      ];
      if (look) {
        for (const dom of doms) void [Deno.inspect(dom.eventChannels), Deno.inspect(dom.grants)];
      }
      return { results, hash: hostHash(host) };
    };
    assertEquals(await run(true), await run(false));
  });
}

Deno.test("a domain that knows nothing of Xen has no channels, grants or hypercalls to look at", async () => {
  const { built } = await WayGuest.make(CALL_WAYS[0]);
  const dom = new GuestDomain(built, undefined, () => {});
  for (
    const look of [
      () => dom.hypercalls,
      () => dom.eventChannels.size,
      () => dom.grants.size,
      () => dom.break("grant-map"),
    ]
  ) assertThrows(look, Error, "knows nothing of Xen");
});
