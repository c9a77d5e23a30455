/** Guests that grant one another pages, by hypercalls that a test makes one by one. */
import { assertEquals } from "@std/assert";
import { GNTCOPY, GNTMAP, GNTTABOP, GTF } from "../../abi/xen/grant_table.ts";
import { XENMEM } from "../../abi/xen/memory.ts";
import { DOMID } from "../../abi/xen/xen.ts";
import { ARGUMENT, CallGuest, type CallWay } from "./calls.ts";

const { SELF } = DOMID;
type Ops = typeof GNTTABOP;

/** Guest frames: of the table, of what is granted, and of a hole. */
export const TABLE = 0x160, PAGE = 0x170, OTHER = 0x171, HOLE = 0x4000;

export class Grantor {
  constructor(readonly guest: CallGuest) {}
  static async make(way: CallWay, beside?: Grantor): Promise<Grantor> {
    const host = beside?.guest.guest.host;
    const made = new Grantor(await CallGuest.make(way, host ? { host } : {}));
    const { result } = made.guest.op("memory_op", XENMEM.add_to_physmap, {
      domid: SELF,
      space: 1,
      idx: 0,
      gpfn: TABLE,
    });
    assertEquals(result, 0);
    return made;
  }
  get id(): number {
    return this.guest.domain.id;
  }
  get grants() {
    return this.guest.xen.grants;
  }
  /** One operation: the result, or its status where it is 0; and the argument. */
  op<K extends keyof Ops>(name: K, values: Readonly<Record<string, number | bigint>>) {
    const { guest } = this, operation = GNTTABOP[name];
    // The argument stands before the count.
    // deno-lint-ignore no-explicit-any
    const view = guest.argument(operation as any, values);
    const result = guest.call("grant_table_op", operation.number, ARGUMENT, 1);
    // deno-lint-ignore no-explicit-any
    const out: any = guest.argumentNow(view);
    const hasStatus = name !== "set_version" && name !== "get_version";
    return { result: result === 0 && hasStatus ? out.get("status") : result, out };
  }
  /** Writes an entry of version 1. */
  grant(ref: number, domain: number, frame: number, flags: number = GTF.permit_access): void {
    const bytes = new Uint8Array(8), view = new DataView(bytes.buffer);
    view.setUint16(0, flags, true);
    view.setUint16(2, domain, true);
    view.setUint32(4, frame, true);
    this.guest.guest.write(TABLE * 4096 + 8 * ref, bytes);
  }
  flags(ref: number): number {
    return new DataView(this.guest.domain.memory.read(TABLE * 4096 + 8 * ref, 2).buffer)
      .getUint16(0, true);
  }
  map(dom: number, ref: number, at: number, flags: number = GNTMAP.host_map) {
    return this.op("map_grant_ref", { dom, ref, flags, host_addr: at * 4096 });
  }
  fill(frame: number, value: number): void {
    this.guest.guest.write(frame * 4096, new Uint8Array(4096).fill(value));
  }
  bytes(frame: number, from = 0, length = 4): number[] {
    return [...this.guest.domain.memory.read(frame * 4096 + from, length)];
  }
  copy(source: End, dest: End, len: number) {
    const end = (which: string, { ref, frame, dom, offset = 0 }: End) => ({
      [`${which}.domid`]: dom ?? SELF,
      [`${which}.offset`]: offset,
      [ref === undefined ? `${which}.u.gmfn` : `${which}.u.ref`]: ref ?? frame!,
    });
    const flags = (source.ref === undefined ? 0 : GNTCOPY.source_gref) |
      (dest.ref === undefined ? 0 : GNTCOPY.dest_gref);
    return this.op("copy", { ...end("source", source), ...end("dest", dest), len, flags }).result;
  }
}
export interface End {
  readonly dom?: number;
  readonly ref?: number;
  readonly frame?: number;
  readonly offset?: number;
}
