// The FIFO ABI of event channels, as a guest finds its queues.
import { assert, assertEquals } from "@std/assert";
import { XEN_ERRNO } from "../abi/xen/errno.ts";
import { EVTCHN_FIFO, EVTCHNOP } from "../abi/xen/event_channel.ts";
import { DOMID, VIRQ } from "../abi/xen/xen.ts";
import { CALL_WAYS, CallGuest, type CallWay, callWayName } from "../debug/testing/calls.ts";
import { hostHash, loadHost, saveHost } from "./state.ts";

const { EACCES, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP } = XEN_ERRNO;
const { PENDING, MASKED, LINKED, LINK_MASK } = EVTCHN_FIFO;
/** Guest frames of control blocks and of the first page of words. */
const CONTROL = 0x150, WORDS = 0x151;

type Ops = typeof EVTCHNOP;

class FifoGuest {
  constructor(readonly guest: CallGuest) {}
  static async make(way: CallWay): Promise<FifoGuest> {
    return new FifoGuest(await CallGuest.make(way));
  }

  op<K extends keyof Ops>(name: K, values: Readonly<Record<string, number>>) {
    return this.guest.op("event_channel_op", EVTCHNOP[name], values);
  }
  result<K extends keyof Ops>(name: K, values: Readonly<Record<string, number>>) {
    return this.op(name, values).result;
  }
  ipi(): number {
    return this.op("bind_ipi", { vcpu: 0 }).out.get("port");
  }
  /** Makes FIFO the ABI, with a page of words. */
  begin(): void {
    assertEquals(this.result("init_control", { control_gfn: CONTROL, offset: 64, vcpu: 0 }), 0);
    assertEquals(this.result("expand_array", { array_gfn: WORDS }), 0);
  }
  #view(at: number): DataView {
    return new DataView(this.guest.domain.memory.read(at, 128).buffer);
  }
  word(port: number): number {
    return this.#view(WORDS * 4096 + 4 * port).getUint32(0, true);
  }
  setWord(port: number, value: number): void {
    this.guest.guest.write(WORDS * 4096 + 4 * port, new Uint8Array(Uint32Array.of(value).buffer));
  }
  get ready(): number {
    return this.#view(CONTROL * 4096 + 64).getUint32(0, true);
  }
  head(priority: number): number {
    return this.#view(CONTROL * 4096 + 64).getUint32(8 + 4 * priority, true);
  }
  /** Takes all of a queue out, as a guest does: the ports in their order. */
  drain(priority: number): number[] {
    const ports = [];
    for (let port = this.head(priority); port !== 0;) {
      ports.push(port);
      const word = this.word(port);
      // The guest clears LINKED and the link, then handles the event: PENDING goes.
      this.setWord(port, (word & ~(1 << LINKED | 1 << PENDING | LINK_MASK)) >>> 0);
      port = word & LINK_MASK;
    }
    this.guest.guest.write(CONTROL * 4096 + 64, new Uint8Array(4));
    this.guest.guest.write(CONTROL * 4096 + 72 + 4 * priority, new Uint8Array(4));
    this.guest.xen.memory.setByte(this.guest.xen.vcpus[0].info, 0);
    return ports;
  }
}

const bit = (word: number, n: number) => word >>> n & 1;

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`events are queued by priority, in the order they came (${name})`, async () => {
    const fifo = await FifoGuest.make(way);
    fifo.begin();
    const ports = [fifo.ipi(), fifo.ipi(), fifo.ipi()], [first, second, third] = ports;
    assertEquals(fifo.result("set_priority", { port: second, priority: 3 }), 0);
    for (const port of [third, second, first]) assertEquals(fifo.result("send", { port }), 0);
    assertEquals([fifo.ready, fifo.head(3), fifo.head(7)], [1 << 3 | 1 << 7, second, third]);
    assertEquals(fifo.word(third) & LINK_MASK, first);
    assertEquals(fifo.guest.xen.memory.byte(fifo.guest.xen.vcpus[0].info), 1);
    // One that is pending already is not queued once more.
    fifo.op("send", { port: third });
    assertEquals(fifo.drain(7), [third, first]);
    assertEquals(fifo.drain(3), [second]);
    // The queue is empty: what comes now is its head.
    fifo.op("send", { port: first });
    assertEquals([fifo.head(7), fifo.drain(7)], [first, [first]]);
  });

  Deno.test(`a masked event is queued when it is unmasked; a linked port is nobody's when it is closed (${name})`, async () => {
    const fifo = await FifoGuest.make(way);
    fifo.begin();
    const port = fifo.ipi();
    fifo.setWord(port, 1 << MASKED >>> 0);
    fifo.op("send", { port });
    assertEquals([bit(fifo.word(port), PENDING), bit(fifo.word(port), LINKED), fifo.ready], [
      1,
      0,
      0,
    ]);
    assertEquals(fifo.result("unmask", { port }), 0);
    assertEquals([bit(fifo.word(port), LINKED), fifo.head(7)], [1, port]);
    assertEquals(fifo.result("close", { port }), 0);
    assertEquals(bit(fifo.word(port), PENDING), 0);
    const other = fifo.ipi();
    assert(other !== port, "it is linked still");
    assertEquals(fifo.drain(7), [port]);
    assertEquals(fifo.ipi(), port);
  });

  Deno.test(`what came before there was a queue, or a word, is pending in it (${name})`, async () => {
    const fifo = await FifoGuest.make(way), port = fifo.ipi();
    fifo.op("send", { port });
    assertEquals(fifo.result("init_control", { control_gfn: CONTROL, offset: 64, vcpu: 0 }), 0);
    const other = fifo.ipi();
    fifo.op("send", { port: other });
    assertEquals(fifo.ready, 0);
    assertEquals(fifo.result("expand_array", { array_gfn: WORDS }), 0);
    assertEquals(fifo.drain(7), [port, other]);
  });

  Deno.test(`what Xen refuses of the FIFO ABI (${name})`, async () => {
    const fifo = await FifoGuest.make(way), control = { control_gfn: CONTROL, offset: 0, vcpu: 0 };
    const refused = (given: Partial<typeof control>) =>
      fifo.result("init_control", { ...control, ...given });
    assertEquals(fifo.result("expand_array", { array_gfn: WORDS }), -EOPNOTSUPP);
    assertEquals(fifo.result("set_priority", { port: fifo.ipi(), priority: 1 }), -ENOSYS);
    assertEquals(
      [{ vcpu: 1 }, { offset: 4 }, { offset: 4096 }, { offset: 4032 }, { control_gfn: 0xf0000 }]
        .map(refused),
      [-ENOENT, -EINVAL, -EINVAL, -EINVAL, -EINVAL],
    );
    fifo.begin();
    assertEquals(refused({}), -EINVAL);
    assertEquals(fifo.result("expand_array", { array_gfn: 0xf0000 }), -EINVAL);
    assertEquals(fifo.result("set_priority", { port: 1, priority: 16 }), -EINVAL);
    assertEquals(fifo.result("set_priority", { port: 99, priority: 1 }), -EACCES);
    assertEquals(fifo.result("set_priority", { port: 9999, priority: 1 }), -EINVAL);
    for (let page = 1; page < 128; page++) {
      assertEquals(fifo.result("expand_array", { array_gfn: WORDS }), 0);
    }
    assertEquals(fifo.result("expand_array", { array_gfn: WORDS }), -ENOSPC);
    // A reset lets go of all of it, and the two-level ABI is there again.
    const { frames } = fifo.guest.engine.p2m, frame = fifo.guest.engine.p2m.machineFrame(WORDS);
    assertEquals(frames.uses(frame), 128);
    assertEquals(fifo.result("reset", { dom: DOMID.SELF }), 0);
    assertEquals([frames.uses(frame), fifo.guest.xen.channels.abi.name], [0, "two-level"]);
  });
}

Deno.test("queues are saved: loaded, the guest finds the same events in the same order", async () => {
  const fifo = await FifoGuest.make(CALL_WAYS[1]), { host } = fifo.guest.guest;
  fifo.begin();
  const ports = [fifo.ipi(), fifo.ipi()];
  fifo.op("bind_virq", { virq: VIRQ.TIMER, vcpu: 0 });
  fifo.op("send", { port: ports[1] });
  const saved = saveHost(host);
  const on = () => {
    fifo.op("send", { port: ports[0] });
    return [hostHash(host), fifo.drain(7)];
  };
  const first = on();
  loadHost(host, saved);
  assertEquals(on(), first);
  assertEquals(first[1], [ports[1], ports[0]]);
});

Deno.test("a page that the hypervisor uses stays what it is when the guest takes it out of its map", async () => {
  const fifo = await FifoGuest.make(CALL_WAYS[0]), { p2m } = fifo.guest.engine;
  fifo.begin();
  const frame = p2m.machineFrame(WORDS), { free } = p2m.frames;
  assertEquals(fifo.guest.xen.physmap.giveBack(WORDS), 0);
  assertEquals(p2m.frames.free, free);
  const port = fifo.ipi();
  fifo.op("send", { port });
  assert(fifo.guest.xen.memory.word(frame * 4096 + 4 * port) !== 0);
  fifo.op("reset", { dom: DOMID.SELF });
  assertEquals([p2m.frames.free, p2m.frames.owners[frame]], [free + 1, 0]);
});
