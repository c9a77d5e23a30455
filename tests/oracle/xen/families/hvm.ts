/** hvm_op: parameters, the upcall vector, time; Xen's CPUID leaves and MSR. */
import { HVM_NR_PARAMS, HVM_PARAM } from "../../../../src/abi/xen/hvm/params.ts";
import { HVMOP } from "../../../../src/abi/xen/hvm/hvm_op.ts";
import { HYPERCALL_PAGE } from "../guest.ts";
import { absolute, AT, frameOf, type Writer } from "../writer.ts";
import { badHandle, domid } from "./handles.ts";

const NAMES = new Map(Object.entries(HVM_PARAM).map(([name, index]) => [index as number, name]));
/** Parameters whose value is a frame of the host's choice. */
const FRAMES = new Set([
  "STORE_PFN",
  "CONSOLE_PFN",
  "IOREQ_PFN",
  "BUFIOREQ_PFN",
  "IDENT_PT",
  "VM86_TSS",
  "VM86_TSS_SIZED",
  "PAGING_RING_PFN",
  "MONITOR_RING_PFN",
  "SHARING_RING_PFN",
  "IOREQ_SERVER_PFN",
]);

/** Values worth a try for a parameter. */
function value(w: Writer, name: string): bigint {
  const r = w.random;
  if (name === "CALLBACK_IRQ") {
    const type = BigInt(r.pick([0, 0, 1, 2, 2, 3, 255]));
    return type << 56n | BigInt(r.pick([0, 1, 15, 16, 0x30, 0xf3, 0xff, 0x1ff]));
  }
  return r.pick([0n, 1n, 2n, 3n, 4n, 5n, 0x10n, 0x400n, 0xffff_ffffn, 0xffff_ffff_ffff_ffffn]);
}

function param(operation: "set_param" | "get_param") {
  return (w: Writer): void => {
    const r = w.random, { number, arg: type } = HVMOP[operation];
    const index = r.chance(0.05)
      ? r.pick([HVM_NR_PARAMS, 100, 0xffff_ffff])
      : r.below(HVM_NR_PARAMS);
    const name = NAMES.get(index) ?? `${index}`;
    // They end a domain that has no room for the TSS there.
    if (name.startsWith("VM86_TSS") && operation === "set_param") return;
    const dom = r.chance(0.7) ? { kind: "domain self", value: 0x7ff0, from: {} } : domid(w);
    if (r.chance(0.03)) {
      const bad = badHandle(w);
      return w.call({ hypercall: "hvm_op", operation, kind: bad.kind, args: [number, bad.handle] });
    }
    const given = operation === "set_param" ? value(w, name) : 0n;
    const arg = w.struct(AT.arg, type, { domid: dom.value, index, value: given }, dom.from);
    w.call({
      hypercall: "hvm_op",
      operation,
      kind: `${dom.kind}, ${name}${operation === "set_param" ? ` ${given.toString(16)}` : ""}`,
      args: [number, arg],
      windows: [{
        what: "argument",
        at: AT.arg,
        length: 16,
        mask: FRAMES.has(name) ? [[0, 2], [8, 8]] : [[0, 2]],
      }],
    });
    // What became of it.
    if (operation === "set_param" && r.chance(0.7)) {
      w.struct(AT.arg, type, { domid: 0x7ff0, index });
      w.call({
        hypercall: "hvm_op",
        operation: "get_param",
        kind: `domain self, ${name}`,
        args: [HVMOP.get_param.number, { at: AT.arg }],
        windows: [{
          what: "argument",
          at: AT.arg,
          length: 16,
          mask: FRAMES.has(name) ? [[8, 8]] : [],
        }],
      });
    }
  };
}

function upcall(w: Writer): void {
  const r = w.random, { number, arg: type } = HVMOP.set_evtchn_upcall_vector;
  const vcpu = r.pick([0, 0, 1, 2, 200]), vector = r.pick([0, 1, 15, 16, 17, 0x30, 0xf0, 0xff]);
  const bad = r.chance(0.05) ? badHandle(w) : undefined;
  const arg = bad?.handle ?? w.struct(AT.arg, type, { vcpu, vector });
  w.call({
    hypercall: "hvm_op",
    operation: "set_evtchn_upcall_vector",
    kind: bad?.kind ?? `vcpu ${vcpu}, vector ${vector}`,
    args: [number, arg],
  });
}

function memType(w: Writer): void {
  const { number, arg: type } = HVMOP.get_mem_type, dom = domid(w);
  const [kind, pfn] = w.random.pick(
    [["RAM", frameOf(AT.data)], ["shared_info or RAM", frameOf(AT.shared)], [
      "none",
      0xf_0000,
    ]] as const,
  );
  const arg = w.struct(AT.arg, type, { domid: dom.value, pfn }, dom.from);
  w.call({
    hypercall: "hvm_op",
    operation: "get_mem_type",
    kind: `${dom.kind}, ${kind}`,
    args: [number, arg],
    windows: [{ what: "argument", at: AT.arg, length: 16, mask: [[0, 2]] }],
  });
}

function time(w: Writer): void {
  const { number, arg: type } = HVMOP.get_time;
  const bad = w.random.chance(0.2) ? badHandle(w) : undefined;
  w.call({
    hypercall: "hvm_op",
    operation: "get_time",
    kind: bad?.kind ?? "plain",
    args: [number, bad?.handle ?? w.struct(AT.arg, type, {})],
  });
}

function zeros(w: Writer): void {
  const r = w.random;
  const operation = r.pick(
    [
      "flush_tlbs",
      "pagetable_dying",
      "xentrace",
      "set_mem_access",
      "get_mem_access",
      "guest_request_vm_event",
      "altp2m",
    ] as const,
  );
  w.step({ do: "fill", at: AT.arg, length: 128, byte: 0 });
  // NULL is an address as others are; these look at what stands there.
  const reads = operation === "xentrace" || operation === "pagetable_dying";
  const kind = r.pick(reads ? ["zeros", "self"] : ["zeros", "self", "NULL"]);
  if (kind === "self") w.set(AT.arg, [0xf0, 0x7f]);
  w.call({
    hypercall: "hvm_op",
    operation,
    kind,
    args: [HVMOP[operation].number, kind === "NULL" ? 0 : { at: AT.arg }],
  });
}

function unknown(w: Writer): void {
  const number = w.random.pick([2, 3, 4, 6, 7, 8, 14, 16, 17, 22, 26, 100, 0xffff_ffff]);
  w.step({ do: "fill", at: AT.arg, length: 128, byte: 0 });
  w.call({
    hypercall: "hvm_op",
    operation: "unknown",
    kind: `${number}`,
    args: [number, { at: AT.arg }],
  });
}

const MOVES: readonly (readonly [number, (w: Writer) => void])[] = [
  [8, param("set_param")],
  [6, param("get_param")],
  [4, upcall],
  [2, memType],
  [1, time],
  [2, zeros],
  [1, unknown],
];
const WEIGHED = MOVES.flatMap(([weight, move]) => Array(weight).fill(move) as typeof move[]);

export const hvm = (w: Writer): void => w.random.pick(WEIGHED)(w);

/** All leaves and what a hypercall page holds. `host`: what depends on the processor or the run. */
export function leaves(w: Writer): void {
  const ask = (
    leaf: number,
    subleaf: number,
    kind: string,
    mask: readonly (readonly [number, number])[],
  ) =>
    w.label({ do: "cpuid", leaf: 0x4000_0000 + leaf, subleaf }, "cpuid", kind, "registers", mask);
  for (const subleaf of [0, 1, 2]) {
    ask(0, subleaf, "leaf 0: last leaf, signature", []);
    ask(1, subleaf, "leaf 1: version", []);
    ask(2, subleaf, "leaf 2: hypercall page, MSR", []);
    // 0: how the TSC is, its kHz, how often the domain moved; 1: scale and offset; 2: the host's kHz.
    ask(
      3,
      subleaf,
      `leaf 3 subleaf ${subleaf}: time`,
      subleaf === 0 ? [[0, 4], [8, 8]] : [[0, 16]],
    );
    ask(4, subleaf, "leaf 4: of HVM", [[8, 4]]);
    ask(5, subleaf, "leaf 5: of PV", [[4, 4]]);
    ask(6, subleaf, "leaf 6", []);
    ask(0x100, subleaf, "the next hundred", []);
    ask(0xff, subleaf, "leaf 255", []);
  }
  for (let number = 0; number < 128; number += 1) {
    // VMCALL or VMMCALL, by the processor.
    w.label(
      { do: "dump", at: absolute(HYPERCALL_PAGE) + number * 32, length: 10 },
      "hypercall page",
      number === 23 ? "iret" : "stub",
      `${number}`,
      [[7, 1]],
    );
  }
}

/** The MSR that fills hypercall pages. */
export function hypercallMsr(w: Writer): void {
  const r = w.random;
  const msr = 0x4000_0000 + r.pick([0, 0, 0, 0, 1, 0xff]);
  if (r.chance(0.2)) {
    return w.label({ do: "rdmsr", index: msr }, "msr", `read ${(msr & 255)}`, "result", []);
  }
  const at = AT.data + r.below(4) * 0x1000;
  w.step({ do: "fill", at, length: 64, byte: 0x11 });
  const [kind, value, arena] = r.pick(
    [
      ["page 0", at, true],
      ["page 1", at + 1, true],
      ["index of all ones", at + 0xfff, true],
      ["no memory", 0xf000_0000, false],
      ["beyond all", 0x4000_0000_0000, false],
    ] as const,
  );
  w.label(
    { do: "wrmsr", index: msr, value, arena },
    "msr",
    `write ${msr & 255}: ${kind}`,
    "result",
    [],
  );
  w.label({ do: "dump", at, length: 48 }, "msr", `write ${msr & 255}: ${kind}`, "page", [[7, 1], [
    39,
    1,
  ]]);
}
