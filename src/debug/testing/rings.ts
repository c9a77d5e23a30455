/** A guest with domain 0 beside it, whose ends of the rings a test writes and reads. */
import { assertEquals } from "@std/assert";
import { EVTCHNOP } from "../../abi/xen/event_channel.ts";
import { HVM_PARAM } from "../../abi/xen/hvm/params.ts";
import { Domain0 } from "../../dom0/domain0.ts";
import { encodeMessage } from "../../dom0/messages.ts";
import { type RingPlace, XENSTORE_PAGE } from "../../dom0/pages.ts";
import { bytesOfText, textOf } from "../../dom0/text.ts";
import { CALL_WAYS, CallGuest } from "./calls.ts";

const { STORE_PFN, STORE_EVTCHN } = HVM_PARAM;

/** A guest's end of its rings. */
export class Rings {
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

export async function introduced(way = CALL_WAYS[0]) {
  const guest = await CallGuest.make(way);
  const domain0 = new Domain0(guest.guest.host);
  domain0.introduce(guest.domain);
  return { guest, domain0, rings: new Rings(guest) };
}
