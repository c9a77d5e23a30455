/**
 * Our description of Xen's public ABI, compared with Xen's own headers by a compiler: sizes, offsets and
 * signs of all fields, all numbers, for 32- and 64-bit code.
 *
 *     deno run -A tests/oracle/xen_headers.ts fetch      the headers, from Debian's package libxen-dev
 *
 * @module
 */
import { walk } from "@std/fs";
import { Apt, GuestsError } from "../../repl/guests/apt.ts";
import { guestsFolder } from "../../repl/guests/images.ts";
import {
  type AbiWidth,
  fieldsOf,
  layoutOf,
  type StructOf,
  union,
  View,
} from "../../src/abi/layout.ts";
import * as archX86 from "../../src/abi/xen/arch_x86.ts";
import * as callback from "../../src/abi/xen/callback.ts";
import * as cpuid from "../../src/abi/xen/cpuid.ts";
import * as domctl from "../../src/abi/xen/domctl.ts";
import * as elfnote from "../../src/abi/xen/elfnote.ts";
import * as errno from "../../src/abi/xen/errno.ts";
import * as eventChannel from "../../src/abi/xen/event_channel.ts";
import * as features from "../../src/abi/xen/features.ts";
import * as grantTable from "../../src/abi/xen/grant_table.ts";
import * as hvmOp from "../../src/abi/xen/hvm/hvm_op.ts";
import * as hvmVcpu from "../../src/abi/xen/hvm/hvm_vcpu.ts";
import * as ioreq from "../../src/abi/xen/hvm/ioreq.ts";
import * as params from "../../src/abi/xen/hvm/params.ts";
import * as startInfo from "../../src/abi/xen/hvm/start_info.ts";
import * as hypercalls from "../../src/abi/xen/hypercalls.ts";
import * as console_ from "../../src/abi/xen/io/console.ts";
import * as ring from "../../src/abi/xen/io/ring.ts";
import * as xenbus from "../../src/abi/xen/io/xenbus.ts";
import * as xsWire from "../../src/abi/xen/io/xs_wire.ts";
import * as memory from "../../src/abi/xen/memory.ts";
import * as nmi from "../../src/abi/xen/nmi.ts";
import * as physdev from "../../src/abi/xen/physdev.ts";
import * as platform from "../../src/abi/xen/platform.ts";
import * as sched from "../../src/abi/xen/sched.ts";
import * as sysctl from "../../src/abi/xen/sysctl.ts";
import * as vcpu from "../../src/abi/xen/vcpu.ts";
import * as version from "../../src/abi/xen/version.ts";
import * as xen from "../../src/abi/xen/xen.ts";
import { readElf } from "../../src/builder/elf.ts";

/** What each file gives out, by its path in src/abi/xen. */
export const MODULES: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "arch_x86.ts": archX86,
  "callback.ts": callback,
  "cpuid.ts": cpuid,
  "domctl.ts": domctl,
  "elfnote.ts": elfnote,
  "errno.ts": errno,
  "event_channel.ts": eventChannel,
  "features.ts": features,
  "grant_table.ts": grantTable,
  "hvm/hvm_op.ts": hvmOp,
  "hvm/hvm_vcpu.ts": hvmVcpu,
  "hvm/ioreq.ts": ioreq,
  "hvm/params.ts": params,
  "hvm/start_info.ts": startInfo,
  "hypercalls.ts": hypercalls,
  "io/console.ts": console_,
  "io/ring.ts": { ...ring, sample: ring.ringOf("abi", union({ req: "u32", rsp: "u32" })) },
  "io/xenbus.ts": xenbus,
  "io/xs_wire.ts": xsWire,
  "memory.ts": memory,
  "nmi.ts": nmi,
  "physdev.ts": physdev,
  "platform.ts": platform,
  "sched.ts": sched,
  "sysctl.ts": sysctl,
  "vcpu.ts": vcpu,
  "version.ts": version,
  "xen.ts": xen,
};

/** How a group of numbers is called in C, where that is not its own name and an underline. */
const PREFIX: Readonly<Record<string, string>> = {
  XEN_ERRNO: "XEN_",
  XEN_VIRT: "",
  XenbusState: "XenbusState",
  HYPERCALLS: "__HYPERVISOR_",
};

/** What public headers have no name for. */
const NAMELESS: Readonly<Record<string, string>> = {
  MEMOP: "Xen's own: how a call goes on",
  XEN_CPUID_TSC: "bits told in a comment",
  XEN_CPUID_LEAF_OF: "leaves told in comments",
  HYPERCALL_STUB_SIZE: "told in a comment",
  HYPERCALL_REGISTERS: "told in comments",
  NR_HYPERCALLS: "Xen's own",
  XEN_EMULATE_PREFIX: "text of an assembler",
  XEN_ERRNO_MEANING: "text",
  XSD_ERRORS: "text",
  VCPU_VIRQS: "told in comments",
  XEN_CALLBACK: "seen inside callback_register",
  GRANT_STATUS_SIZE: "seen as sizeof(grant_status_t)",
};

/** What 64-bit code alone has: structures and numbers. */
const WIDE_ONLY = new Set(["iret_context", "SEGBASE", "VGCF_in_syscall"]);

const HEADERS = [
  "xen.h event_channel.h grant_table.h memory.h sched.h vcpu.h version.h features.h physdev.h",
  "callback.h nmi.h platform.h domctl.h sysctl.h errno.h arch-x86/cpuid.h elfnote.h arch-x86/hvm/start_info.h",
  "hvm/dm_op.h hvm/params.h hvm/hvm_op.h hvm/ioreq.h hvm/hvm_vcpu.h",
  "io/console.h io/ring.h io/xenbus.h io/xs_wire.h",
].join(" ").split(" ");

/** Something that the compiler works out, and what we say it is. */
interface Check {
  readonly c: string;
  readonly ours: bigint;
}
/** An object with one bit field set, and the bytes that we expect. */
interface BitCheck {
  readonly c: string;
  readonly ours: Uint8Array;
}

const isStruct = (value: unknown): value is StructOf =>
  typeof value === "object" && value !== null && "fields" in value;
const tag = ({ kind, name }: StructOf) => `${kind} ${name}`;

/** Structures with a name, in and below a value of a module. */
function structsIn(value: unknown, width: AbiWidth, found = new Set<StructOf>()): Set<StructOf> {
  if (typeof value !== "object" || value === null) return found;
  if (!isStruct(value)) {
    for (const part of Object.values(value)) structsIn(part, width, found);
    return found;
  }
  // What a manual gives by offsets is not Xen's.
  if (value.offsets || found.has(value) || (width === 32 && WIDE_ONLY.has(value.name))) {
    return found;
  }
  if (value.name !== "") found.add(value);
  for (const { type } of fieldsOf(value, width)) structsIn(type, width, found);
  return found;
}

function structChecks(type: StructOf, width: AbiWidth): (Check | BitCheck)[] {
  const { size, places } = layoutOf(type, width);
  const checks: (Check | BitCheck)[] = [{ c: `sizeof(${tag(type)})`, ours: BigInt(size) }];
  for (const [path, place] of places) {
    const parent = path.slice(0, path.lastIndexOf("."));
    if (place.shift !== undefined) checks.push(bitCheck(type, width, path));
    if (place.shift !== undefined || places.get(parent)?.shift !== undefined || isUnit(path)) {
      continue;
    }
    const member = `((${tag(type)} *)0)->${path}`;
    checks.push({ c: `offsetof(${tag(type)}, ${path})`, ours: BigInt(place.offset) });
    if (place.count === 0) continue;
    const bytes = place.size * (place.count ?? 1);
    checks.push({ c: `sizeof(${member})`, ours: BigInt(bytes) });
    if (typeof place.type !== "string" || place.type === "handle") continue;
    // Texts are arrays of char, and have the sign that the compiler likes.
    if (place.type === "u8" && place.count !== undefined) continue;
    const element = place.count === undefined ? member : `${member}[0]`;
    const signed = place.type.startsWith("i") ? 1n : 0n;
    checks.push({ c: `(__typeof__(${element}))-1 < 0`, ours: signed });
  }
  return checks;

  /** The integer that bit fields share has no name in C. */
  function isUnit(path: string) {
    return [...places.keys()].some((other) =>
      other.startsWith(`${path}.`) && places.get(other)!.shift !== undefined
    );
  }
}

function bitCheck(type: StructOf, width: AbiWidth, path: string): BitCheck {
  const view = new View(type, width) as View<Record<string, "u32">>;
  view.set(path, 0xffff_ffff);
  return { c: `const ${tag(type)} NAME = { .${path.split(".").at(-1)} = -1 };`, ours: view.raw };
}

/** Numbers in a value that a module gives out under a name. */
function numberChecks(name: string, value: unknown, width: AbiWidth): Check[] {
  const check = (c: string, ours: number | bigint): Check => ({ c, ours: BigInt(ours) });
  if (typeof value === "number" || typeof value === "bigint") return [check(name, value)];
  if (typeof value !== "object" || value === null || isStruct(value)) return [];
  const prefix = PREFIX[name] ?? `${name}_`;
  return Object.entries(value).flatMap(([key, inner]) => {
    if (key === "32" || key === "64") {
      return Number(key) === width ? numberChecks(name, inner, width) : [];
    }
    const number = typeof inner === "object" ? inner.number : inner;
    if (typeof number !== "number" && typeof number !== "bigint") {
      throw new TypeError(`${name}.${key} is no number, operation or structure`);
    }
    return [check(prefix + key, number)];
  });
}

/** All that is compared for a width. */
export function checksOf(modules: typeof MODULES, width: AbiWidth): (Check | BitCheck)[] {
  const values = Object.values(modules).flatMap((module) => Object.entries(module))
    .filter(([name, value]) => typeof value !== "function" && !(name in NAMELESS))
    .filter(([name]) => width === 64 || !WIDE_ONLY.has(name));
  const structs = new Set(values.flatMap(([, value]) => [...structsIn(value, width)]));
  const byName = new Map(
    [...structs].map((type) => [`${type.name} ${JSON.stringify(type)}`, type]),
  );
  const sizes = [
    ["xen_extraversion_t", version.XENVER.extraversion.arg.count],
    ["xen_capabilities_info_t", version.XENVER.capabilities.arg.count],
    ["xen_changeset_info_t", version.XENVER.changeset.arg.count],
    ["xen_domain_handle_t", version.XENVER.guest_handle.arg.count],
    ["xen_commandline_t", version.XENVER.commandline.arg.count],
    ["grant_status_t", grantTable.GRANT_STATUS_SIZE],
  ] as const;
  return [
    ...values.flatMap(([name, value]) => numberChecks(name, value, width)),
    ...sizes.map(([c, ours]) => ({ c: `sizeof(${c})`, ours: BigInt(ours as number) })),
    ...[...byName.values()].flatMap((type) => structChecks(type, width)),
  ];
}

const isBits = (check: Check | BitCheck): check is BitCheck => check.ours instanceof Uint8Array;

/** The program whose data are the answers: nothing of it runs. */
function programOf(checks: readonly (Check | BitCheck)[]): string {
  const section = (name: string) => `__attribute__((section("${name}")))`;
  return [
    "#include <stddef.h>",
    "#include <stdint.h>",
    "#define __XEN_TOOLS__ 1",
    ...HEADERS.map((header) => `#include <xen/${header}>`),
    "DEFINE_RING_TYPES(abi, uint32_t, uint32_t);",
    `const uint64_t answers[] ${section(".answers")} = {`,
    ...checks.map((check) => isBits(check) ? "0," : `(uint64_t)(${check.c}),`),
    "};",
    ...checks.flatMap((check, i) =>
      isBits(check) ? [check.c.replace("NAME", `bits_${i} ${section(`.bits.${i}`)}`)] : []
    ),
  ].join("\n");
}

/** What differs between the headers and what `modules` say, one line each. */
export async function differences(
  include: string,
  width: AbiWidth,
  modules = MODULES,
): Promise<{ compared: number; wrong: string[] }> {
  const checks = checksOf(modules, width);
  const elf = readElf(await compile(programOf(checks), include, width), "abi.so");
  const section = (name: string) => {
    const { offset, size } = elf.sections.find((each) => each.name === name)!;
    return elf.bytes.subarray(offset, offset + size);
  };
  const answers = section(".answers");
  const view = new DataView(answers.buffer, answers.byteOffset, answers.length);
  const wrong = checks.flatMap((check, i) => {
    if (isBits(check)) {
      const theirs = section(`.bits.${i}`).toHex(), ours = check.ours.toHex();
      return theirs === ours ? [] : [`${check.c} is ${theirs}; we say ${ours}`];
    }
    // Constants are ints where C says so: 0x80000000 and -1 alike are compared at 64 bits.
    const theirs = view.getBigUint64(i * 8, true), ours = BigInt.asUintN(64, check.ours);
    return theirs === ours ? [] : [`${check.c} is ${show(theirs)}; we say ${show(ours)}`];
  });
  return { compared: checks.length, wrong };
}
const show = (value: bigint) => `${BigInt.asIntN(64, value)}`;

async function compile(program: string, include: string, width: AbiWidth): Promise<Uint8Array> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/abi.c`, program);
    const { success, stderr } = await new Deno.Command("gcc", {
      args: [
        ...[`-m${width}`, "-ffreestanding", "-std=gnu99", "-w", "-I", include],
        ...["-shared", "-nostdlib", `${folder}/abi.c`, "-o", `${folder}/abi.so`],
      ],
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return await Deno.readFile(`${folder}/abi.so`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const cache = () => `${guestsFolder()}/../headers`;
const exists = async (path: string) => await Deno.stat(path).then(() => true, () => false);

/** The folder that has `xen/xen.h`: installed, or fetched. Undefined: neither. */
export async function headersFolder(): Promise<string | undefined> {
  for (const folder of [`${cache()}/usr/include`, "/usr/include"]) {
    if (await exists(`${folder}/xen/xen.h`)) return folder;
  }
}

/** Why nothing can be compared here; undefined when it can. */
export async function unavailable(): Promise<string | undefined> {
  const gcc = await new Deno.Command("gcc", { args: ["--version"] }).output().catch(() => null);
  if (!gcc?.success) return "there is no gcc";
  if (await headersFolder() === undefined) {
    return "Xen's headers are missing: deno run -A tests/oracle/xen_headers.ts fetch";
  }
}

async function fetchHeaders(): Promise<void> {
  const apt = new Apt(`${guestsFolder()}/.apt`, console.error);
  await apt.open();
  await apt.update();
  const { path } = await apt.download("libxen-dev:amd64");
  const { success } = await new Deno.Command("dpkg-deb", { args: ["-x", path, cache()] }).output();
  if (!success) throw new GuestsError(`dpkg-deb could not unpack ${path}`);
}

/** Files of src/abi/xen that describe, and do not only help to. */
export async function abiFiles(): Promise<string[]> {
  const root = decodeURIComponent(new URL("../../src/abi/xen/", import.meta.url).pathname);
  const files: string[] = [];
  for await (const { path } of walk(root, { exts: [".ts"], includeDirs: false })) {
    const file = path.slice(root.length);
    if (!file.endsWith("_test.ts") && file !== "operation.ts") files.push(file);
  }
  return files.sort();
}

if (import.meta.main) {
  if (Deno.args[0] !== "fetch") {
    console.error("expected: deno run -A tests/oracle/xen_headers.ts fetch");
    Deno.exit(2);
  }
  await fetchHeaders();
}
