/** xen_version, unknown hypercalls, console and physical devices. */
import { type HypercallName, HYPERCALLS } from "../../../../src/abi/xen/hypercalls.ts";
import { PHYSDEVOP } from "../../../../src/abi/xen/physdev.ts";
import { XENVER } from "../../../../src/abi/xen/version.ts";
import { AT, type Writer } from "../writer.ts";
import { badHandle } from "./handles.ts";

/** Bytes that xen_version writes at most; what names a build of Xen is masked. */
const HOST_TEXT = new Set(["compile_info", "changeset", "extraversion"]);

export function version(w: Writer): void {
  const [operation, { number }] = w.random.pick(Object.entries(XENVER));
  w.step({ do: "fill", at: AT.arg, length: 0x400, byte: 0xcc });
  const way = w.random.below(8);
  if (way === 0) {
    const { kind, handle } = badHandle(w);
    return w.call({ hypercall: "xen_version", operation, kind, args: [number, handle] });
  }
  // NULL is an address as others are: what is read there is the builder's.
  if (way === 1 && operation !== "get_features" || operation === "pagesize" && way < 5) {
    return w.call({ hypercall: "xen_version", operation, kind: "NULL", args: [number, 0] });
  }
  let kind = "buffer";
  if (operation === "get_features") {
    const index = w.random.pick([0, 0, 0, 1, 2, 3, 0xffff_ffff]);
    kind = `submap ${index}`;
    w.words(AT.arg, index);
  } else if (operation === "build_id") {
    const length = w.random.pick([0, 1, 4, 19, 20, 64, 0xffff_ffff]);
    kind = `length ${length}`;
    w.words(AT.arg, length);
  }
  const length = operation === "compile_info" ? 144 : 80;
  w.call({
    hypercall: "xen_version",
    operation,
    kind,
    args: [number, { at: AT.arg }],
    windows: [{
      what: "buffer",
      at: AT.arg,
      length,
      // The handle is the UUID that the toolstack gave.
      mask: HOST_TEXT.has(operation)
        ? [[0, length]]
        : operation === "guest_handle"
        ? [[0, 16]]
        : [],
    }],
  });
}

export function unknownVersion(w: Writer): void {
  const number = w.random.pick([11, 12, 63, 1000, 0x7fff_ffff, 0xffff_ffff]);
  w.call({
    hypercall: "xen_version",
    operation: "unknown",
    kind: "unknown",
    args: [number, { at: AT.arg }],
  });
}

/** Numbers that no guest of this kind has: reserved ones, those of PV, those of architectures. */
const NOT_HVM = Object.entries(HYPERCALLS).filter(([, row]) =>
  row.domains === "pv" && row.number !== 23
)
  .map(([name]) => name as HypercallName);

export function unknown(w: Writer): void {
  const r = w.random;
  const args = Array.from({ length: 5 }, () => r.pick([0, 1, { at: AT.arg }, 0xf000_0000]));
  if (r.chance(0.5)) {
    w.call({ hypercall: r.pick(NOT_HVM), kind: "of PV alone", args, direct: r.chance(0.5) });
  } else {
    const number = r.pick([
      11,
      43,
      47,
      50,
      51,
      55,
      56,
      57,
      63,
      64,
      65,
      100,
      127,
      0x8000_0000,
      0xffff_ffff,
    ]);
    w.call({
      hypercall: number,
      kind: `number ${number}`,
      args,
      direct: number > 127 || r.chance(0.5),
    });
  }
}

/** Calls that only domain 0 may make; the arguments are zero. */
export function privileged(w: Writer): void {
  const name = w.random.pick(
    ["platform_op", "sysctl", "domctl", "hypfs_op", "arch_1", "xsm_op"] as const,
  );
  w.step({ do: "fill", at: AT.arg, length: 0x100, byte: 0 });
  w.call({
    hypercall: name,
    kind: "zeros",
    args: name === "hypfs_op" ? [0, 0, 0, 0, 0] : [{ at: AT.arg }],
  });
}

export function consoleIo(w: Writer): void {
  const r = w.random;
  const bad = r.chance(0.2) ? badHandle(w) : undefined;
  const cmd = r.pick([0, 0, 1, 2, 0xffff_ffff]);
  const count = r.pick([0, 1, 16, 4096, 0xffff_ffff]);
  w.step({ do: "fill", at: AT.list, length: 16, byte: 0x40 });
  w.call({
    hypercall: "console_io",
    operation: cmd === 0 ? "write" : cmd === 1 ? "read" : "unknown",
    kind: bad?.kind ?? `${count} bytes`,
    args: [cmd, count, bad?.handle ?? { at: AT.list }],
  });
}

export function physdev(w: Writer): void {
  const r = w.random;
  const [operation, { number }] = r.chance(0.05)
    ? ["unknown", { number: r.pick([0, 4, 18, 22, 32, 1000]) }] as const
    : r.pick(Object.entries(PHYSDEVOP));
  if (r.chance(0.1)) {
    const { kind, handle } = badHandle(w);
    return w.call({ hypercall: "physdev_op", operation, kind, args: [number, handle] });
  }
  w.step({ do: "fill", at: AT.arg, length: 64, byte: 0 });
  const kind = r.pick(["zeros", "ones", "own domain"]);
  if (kind === "ones") w.step({ do: "fill", at: AT.arg, length: 64, byte: 0xff });
  if (kind === "own domain") w.words(AT.arg, 0x7ff0, r.below(3), r.below(32), r.below(64));
  w.call({
    hypercall: "physdev_op",
    operation,
    kind,
    args: [number, { at: AT.arg }],
    windows: [{ what: "argument", at: AT.arg, length: 32 }],
  });
}
