/** Several calls in one. */
import { HYPERCALLS } from "../../../../src/abi/xen/hypercalls.ts";
import { layoutOf } from "../../../../src/abi/layout.ts";
import { MULTICALL_ENTRY } from "../../../../src/abi/xen/xen.ts";
import { View } from "../../../../src/abi/layout.ts";
import { ARENA } from "../guest.ts";
import { AT, type Writer } from "../writer.ts";
import { badHandle } from "./handles.ts";

export function multicall(w: Writer): void {
  const r = w.random, { size } = layoutOf(MULTICALL_ENTRY, w.width);
  const count = r.pick([0, 1, 2, 3, 5, 8]);
  const kinds: string[] = [];
  for (let i = 0; i < count; i++) {
    const entry = new View(MULTICALL_ENTRY, w.width);
    const [kind, op, ...args] = r.pick(
      [
        ["version", HYPERCALLS.xen_version.number, 0, 0],
        ["pagesize", HYPERCALLS.xen_version.number, 7, 0],
        ["features", HYPERCALLS.xen_version.number, 6, ARENA + AT.more],
        ["bad handle", HYPERCALLS.xen_version.number, 1, 0xf000_0000],
        ["yield", HYPERCALLS.sched_op.number, 0, 0],
        ["unmask port 900", HYPERCALLS.event_channel_op.number, 9, ARENA + AT.more + 64],
        ["unknown", 63, 0, 0],
        ["number 0xffffffff", 0xffff_ffff, 0, 0],
        ["of PV alone", HYPERCALLS.set_gdt.number, 0, 0],
        ["nested", HYPERCALLS.multicall.number, ARENA + AT.more + 128, 0],
        ["nested, one", HYPERCALLS.multicall.number, ARENA + AT.more + 128, 1],
      ] as const,
    );
    entry.set("op", op).set("result", 0x1234_5678);
    args.forEach((value, n) => entry.set("args", value, n));
    kinds.push(kind);
    w.set(AT.list + i * size, entry.raw);
  }
  w.words(AT.more, 0, 0);
  w.words(AT.more + 64, 900);
  w.set(
    AT.more + 128,
    new View(MULTICALL_ENTRY, w.width).set("op", HYPERCALLS.xen_version.number).raw,
  );
  const bad = r.chance(0.1) ? badHandle(w) : undefined;
  w.call({
    hypercall: "multicall",
    kind: bad?.kind ?? (kinds.join(", ") || "none"),
    args: [bad?.handle ?? { at: AT.list }, count],
    windows: Array.from({ length: count }, (_, i) => ({
      what: `entry ${i}`,
      at: AT.list + i * size,
      length: 2 * w.width / 8,
    })),
  });
}
