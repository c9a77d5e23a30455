// Domain 0 beside a guest that knows Xen: its console and xenstore, over pages and channels of that guest.
import { assertEquals } from "@std/assert";
import { EVTCHNOP } from "../abi/xen/event_channel.ts";
import { HVM_PARAM } from "../abi/xen/hvm/params.ts";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { CALL_WAYS, CallGuest, callWayName } from "../debug/testing/calls.ts";
import { hostHash, loadHost, saveHost } from "../xen/state.ts";
import { Domain0 } from "./domain0.ts";
import { encodeMessage } from "./messages.ts";
import { CONSOLE_PAGE, type RingPlace, XENSTORE_PAGE } from "./pages.ts";
import { bytesOfText, textOf } from "./text.ts";

const { STORE_PFN, STORE_EVTCHN, CONSOLE_PFN, CONSOLE_EVTCHN } = HVM_PARAM;

/** A guest's end of its rings. */
class Rings {
  constructor(readonly guest: CallGuest) {}
  #param(n: number): number {
    return Number(this.guest.xen.params.get(n));
  }
  #word(at: number): number {
    return new DataView(this.guest.domain.memory.read(at, 4).buffer).getUint32(0, true);
  }
  #setWord(at: number, value: number): void {
    this.guest.domain.memory.write(at, new Uint8Array(Uint32Array.of(value).buffer));
  }
  put(frame: number, event: number, { data, size, indices }: RingPlace, bytes: Uint8Array): void {
    const page = this.#param(frame) * 4096, produced = this.#word(page + indices + 4);
    bytes.forEach((byte, n) =>
      this.guest.domain.memory.write(page + data + (produced + n) % size, Uint8Array.of(byte))
    );
    this.#setWord(page + indices + 4, produced + bytes.length);
    const { result } = this.guest.op("event_channel_op", EVTCHNOP.send, {
      port: this.#param(event),
    });
    assertEquals(result, 0);
  }
  take(frame: number, { data, size, indices }: RingPlace): Uint8Array {
    const page = this.#param(frame) * 4096;
    const consumed = this.#word(page + indices), produced = this.#word(page + indices + 4);
    this.#setWord(page + indices, produced);
    return Uint8Array.from(
      { length: produced - consumed },
      (_, n) => this.guest.domain.memory.read(page + data + (consumed + n) % size, 1)[0],
    );
  }
  /** Asks xenstore: the type of the answer, and its text. */
  ask(type: number, text: string): [type: number, text: string] {
    const message = { type, request: 1, transaction: 0, payload: bytesOfText(text) };
    this.put(STORE_PFN, STORE_EVTCHN, XENSTORE_PAGE.requests, encodeMessage(message));
    const answer = this.take(STORE_PFN, XENSTORE_PAGE.replies);
    return [new DataView(answer.buffer).getUint32(0, true), textOf(answer.subarray(16))];
  }
  pending(event: number): boolean {
    return this.guest.xen.channels.abi.isPending(this.#param(event));
  }
}

async function introduced(way = CALL_WAYS[0]) {
  const guest = await CallGuest.make(way);
  const domain0 = new Domain0(guest.guest.host);
  domain0.introduce(guest.domain);
  return { guest, domain0, rings: new Rings(guest) };
}

for (const way of CALL_WAYS) {
  const name = callWayName(way);

  Deno.test(`a guest asks xenstore over its ring, and is told of an answer (${name})`, async () => {
    const { guest, domain0, rings } = await introduced(way), { id } = guest.domain;
    assertEquals(rings.ask(XS.READ, "domid\0"), [XS.READ, `${id}`]);
    assertEquals(rings.pending(STORE_EVTCHN), true);
    assertEquals(rings.ask(XS.READ, "name\0"), [XS.READ, "way"]);
    assertEquals(rings.ask(XS.WRITE, "name\0other"), [XS.ERROR, "EACCES\0"]);
    assertEquals(rings.ask(XS.WRITE, "data/note\0hello"), [XS.WRITE, "OK\0"]);
    assertEquals(domain0.store.read(`/local/domain/${id}/data/note`), "hello");
    guest.domain.destroy();
    assertEquals(domain0.store.list("/local/domain"), []);
    assertEquals([domain0.grants.maps, domain0.channels.all], [[], []]);
  });

  Deno.test(`a guest's console is its domain's: written, and typed to where it wrote last (${name})`, async () => {
    const { guest, rings } = await introduced(way), { domain } = guest;
    const typed = () => textOf(rings.take(CONSOLE_PFN, CONSOLE_PAGE.input));
    domain.input(bytesOfText("early"));
    assertEquals(typed(), "");
    rings.put(CONSOLE_PFN, CONSOLE_EVTCHN, CONSOLE_PAGE.output, bytesOfText("login: "));
    assertEquals(textOf(domain.output.since(0)), "login: ");
    domain.input(bytesOfText("root\n"));
    assertEquals([typed(), rings.pending(CONSOLE_EVTCHN)], ["root\n", true]);
    domain.emit(0x3e);
    domain.input(bytesOfText("serial"));
    assertEquals(typed(), "");
  });
}

Deno.test("what domain 0 has of a guest is saved: loaded, both go on as they would have", async () => {
  const { guest, domain0, rings } = await introduced(), { host } = guest.guest;
  rings.ask(XS.WATCH, "data\0token\0");
  const saved = saveHost(host), hash = hostHash(host);
  const on = () => {
    domain0.store.write(`/local/domain/${guest.domain.id}/data/x`, "1");
    rings.put(CONSOLE_PFN, CONSOLE_EVTCHN, CONSOLE_PAGE.output, bytesOfText("more"));
    return [textOf(rings.take(STORE_PFN, XENSTORE_PAGE.replies).subarray(16)), hostHash(host)];
  };
  const first = on();
  assertEquals(String(first[0]).includes("data/x\0token\0"), true);
  loadHost(host, saved);
  assertEquals(hostHash(host), hash);
  assertEquals(on(), first);
});
