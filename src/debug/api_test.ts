import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fieldNames, GuestDigest, Hypervisor } from "../../mod.ts";

/** Calls of the public API with what a script may get wrong, and a part of what it is told. */
// deno-lint-ignore no-explicit-any
type Misuse = [call: (it: { hv: Hypervisor; dom: any; vcpu: any }) => unknown, says: string];
const WRONG: Misuse[] = [
  [({ dom }) => dom.memory.write(0x5000, "AB"), "a Uint8Array or an array of bytes"],
  [({ dom }) => dom.memory.write(0x5000, 5), "5 was given"],
  [({ dom }) => dom.memory.write(0x5000, [1, 256]), "bytes[1]"],
  [({ dom }) => dom.memory.read({}, 5), "guest-physical address: a bigint"],
  [
    ({ dom }) => dom.memory.read(0, "5"),
    "length: a whole number from 0 to 2147483648 was expected",
  ],
  [({ dom }) => dom.memory.search(5), "search pattern"],
  [({ dom }) => dom.memory.search("x", { frm: 5 }), 'did you mean "from"?'],
  [({ dom }) => dom.memory.search("x", { from: 5, to: 5 }), "nothing lies from"],
  [({ dom }) => dom.memory.text(0, -1), "limit"],
  [({ hv }) => hv.memory.write(1n << 40n, [1]), "memory ends at"],
  [({ dom }) => dom.console.write(5), "console.write: text or a Uint8Array"],
  [({ dom }) => dom.console.onOutput("x"), "a function was expected"],
  [({ dom }) => dom.console.shows(""), "text that is not empty"],
  [({ dom }) => dom.break("cr", { cr: 33 }), "0, 3, 4 or 8 was expected, 33"],
  [({ dom }) => dom.break("cr", {}, 5), "a function, or { predicate"],
  [({ dom }) => dom.break("cr", {}, { hit: 5 }), 'did you mean "hits"?'],
  [({ dom }) => dom.break("cr", {}, { hits: 0 }), "cr hits"],
  [({ dom }) => dom.trace("cr", {}, 5), "a function"],
  [({ dom }) => dom.until("cr", {}, 5), "cr predicate: a function"],
  [({ dom }) => dom.wait(5), "the name of a kind"],
  [({ dom }) => dom.break("shadow-write"), "has nested paging"],
  [
    ({ dom }) => dom.break("watch", { address: 1 << 30, physical: true }),
    "is memory, which ends at",
  ],
  [({ dom }) => dom.stops("crr").next(), 'did you mean "cr"?'],
  [({ dom }) => dom.ioreq.serve({ port: [5, 4] }, { read: () => 0 }), "in this order"],
  [({ dom }) => dom.ioreq.serve({ port: [0, 0x10000] }, { read: () => 0 }), "0xffff"],
  [({ dom }) => dom.ioreq.serve({ port: [0, 1] }, {}), "has read, write, or both"],
  [({ dom }) => dom.ioreq.serve({ port: [0, 1] }, { read: 5 }), "read: a function"],
  [({ dom }) => dom.cpuid.set(5, 5), "cpuid.set: true, false or"],
  [({ dom }) => dom.cpuid.read(-1), "cpuid.read leaf"],
  [({ dom }) => dom.cpuid.edit({ features: { rdrand: 5 } }), "features rdrand: true or false"],
  [({ dom }) => dom.cpuid.edit({ leaves: { "1": null } }), "leaves 1: an object"],
  [({ dom }) => void (dom.weight = 0), "weight: a whole number from 1 to 65535"],
  [({ dom }) => void (dom.cap = "5"), "cap: a whole number"],
  [({ dom }) => dom.loadSymbols(5), "loadSymbols"],
  [({ dom }) => dom.loadSymbols("/nonexistent"), "symbols: cannot read /nonexistent"],
  [({ dom }) => dom.setSymbols({}), "a SymbolTable was expected"],
  [({ dom }) => dom.symbols.address(5), "a name was expected"],
  [({ dom }) => dom.symbols.nearest(5), "a bigint was expected"],
  [({ vcpu }) => vcpu.disassemble({}), "linear address"],
  [({ vcpu }) => vcpu.disassemble(0, -1), "count"],
  [({ vcpu }) => vcpu.backtrace(-1), "limit"],
  [({ vcpu }) => vcpu.step("3"), "step: a whole number"],
  [({ vcpu }) => vcpu.setRaw("guestRip", "y"), "setRaw guestRip: a bigint"],
  [({ vcpu }) => vcpu.pageTables.walk(null), "null was given"],
  [({ vcpu }) => void (vcpu.regs.rax = "5"), "register rax: a bigint"],
  [({ vcpu }) => void (vcpu.regs.al = 256), "fits in 8 bits"],
  [({ vcpu }) => void (vcpu.regs.raxx = 5n), "did you mean rax?"],
  [({ vcpu }) => void (vcpu.regs.msrs.efr = 5n), "there is no register efr"],
  [({ vcpu }) => void (vcpu.regs.segments.cs = 5), "segment cs: an object"],
  [({ vcpu }) => void (vcpu.regs.segments.cs = { selectr: 5 }), 'did you mean "selector"?'],
  [({ vcpu }) => void (vcpu.regs.gdtr = { base: "x" }), "register gdtr base"],
  [({ hv }) => void (hv.interactive = 5 as never), "interactive: true or false"],
  [({ hv }) => hv.createDomain({} as never), "kernel"],
  [({ hv }) => hv.createDomain({ kernel: 5 as never }), "createDomain kernel"],
  [({ hv }) => hv.createDomain({ kernel: "x", memory: "1" }), "whole pages"],
  [({ hv }) => hv.createDomain({ kernel: "x", consolePorts: [70000] }), "consolePorts[0]"],
  [({ hv }) => hv.createDomain({ kernel: "x", cpuid: 5 as never }), "createDomain cpuid"],
  [({ hv }) => hv.createDomain({ kernel: "x", vcpus: "2" as never }), "createDomain vcpus"],
  ...[0, 17, 2.5, -1, NaN, 17n].map((vcpus): Misuse => [
    ({ hv }) => hv.createDomain({ kernel: "x", vcpus: vcpus as never }),
    "createDomain vcpus: a whole number from 1 to 16 was expected, ",
  ]),
  ...[0, 9, 2.5, -1, NaN, 9n].map((cpus): Misuse => [
    () => Hypervisor.start({ cpus: cpus as never }),
    "Hypervisor.start cpus: a whole number from 1 to 8 was expected, ",
  ]),
  [
    () => Hypervisor.start({ interleave: { min: 0, max: 5 } }),
    "interleave min: a whole number from 1 to 1000000 was expected, 0 was given",
  ],
  [
    () => Hypervisor.start({ interleave: { min: 5, max: 4 } }),
    "interleave: min up to max was expected, { min: 5, max: 4 } was given",
  ],
  [({ hv }) => hv.createDomain({ kernel: "x", kernl: "x" } as never), 'did you mean "kernel"?'],
  [() => Hypervisor.start(5 as never), "Hypervisor.start: an object"],
  [() => Hypervisor.start({ cpu: "arm" as never }), '"intel" or "amd" was expected'],
  [() => Hypervisor.start({ seed: 1.5 }), "seed: a whole number"],
  [() => Hypervisor.start({ unixTime: NaN }), "unixTime"],
  [() => Hypervisor.demo({ paging: "x" as never }), '"hap" or "shadow"'],
];

Deno.test("what a script gets wrong is refused in words, and changes nothing", async () => {
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains, [vcpu] = dom.vcpus;
  const before = hv.stateHash();
  for (const [call, says] of WRONG) {
    const error = await assertRejects(async () => void await call({ hv, dom, vcpu }), Error);
    assertStringIncludes(error.message, says, call.toString());
    assert(!/undefined|\[object|is not a function/.test(error.message), error.message);
  }
  assertEquals(dom.breakpoints.length, 0);
  assertEquals(hv.stateHash(), before);
});

Deno.test("a predicate must answer at once", async () => {
  await using hv = await Hypervisor.demo();
  const [dom] = hv.domains;
  const asks = () => Promise.resolve(false) as never;
  await assertRejects(() => dom.until("cr", {}, asks), TypeError, "true or false at once");
});

Deno.test("reply() takes what its kind has, in its width", async () => {
  await using hv = await Hypervisor.demo();
  const stop = await hv.domains[0].until("cpuid");
  for (
    const [values, says] of [
      [{ eex: 1 }, 'did you mean "eax"?'],
      [{ eax: 1n << 32n }, "fits in 32 bits"],
      [{ eax: "1" }, '"1" was given'],
      [{}, "nothing is given"],
    ] as const
  ) {
    const error = await assertRejects(async () => void await stop.reply(values as never), Error);
    assertStringIncludes(error.message, says);
  }
  stop.reply({ eax: -1 });
});

/** By class: names of what its objects have, as `deno doc` knows them. */
async function documentedNames(): Promise<Map<string, Set<string>>> {
  const mod = new URL("../../mod.ts", import.meta.url).href;
  const doc = new Deno.Command(Deno.execPath(), { args: ["doc", "--json", mod] });
  const { nodes } = JSON.parse(new TextDecoder().decode((await doc.output()).stdout));
  interface Member {
    readonly name: string;
    readonly isStatic?: boolean;
    readonly accessibility?: string;
    readonly jsDoc?: { readonly tags?: readonly { readonly kind: string }[] };
  }
  const shown = ({ isStatic, accessibility, jsDoc }: Member) =>
    !isStatic && !accessibility && jsDoc && !jsDoc.tags?.some(({ kind }) => kind === "ignore");
  const names = new Map<string, Set<string>>();
  for (const { name, declarations } of nodes[mod].symbols) {
    for (const { kind, def } of declarations) {
      if (kind !== "class") continue;
      const members: Member[] = [...def.properties ?? [], ...def.methods ?? []];
      // What a constructor declares with `readonly` is a property, too.
      for (const { params } of def.constructors ?? []) {
        members.push(...params.filter((p: Member) => p.accessibility || "readonly" in p));
      }
      names.set(name, new Set(members.filter(shown).map((m) => m.name)));
    }
  }
  return names;
}

/** Names by which a script reaches something of an object: what completion offers. */
function namesAt(object: object): string[] {
  const names = new Set<string>();
  for (let it = object; it !== Object.prototype; it = Object.getPrototypeOf(it)) {
    for (const name of Object.getOwnPropertyNames(it)) names.add(name);
  }
  names.delete("constructor");
  return [...names];
}

Deno.test("what a script reaches of an object is documented: nothing is there for the neighbours", async () => {
  const documented = await documentedNames();
  await using hv = await Hypervisor.demo({ paging: "shadow" });
  const [dom] = hv.domains, [vcpu] = dom.vcpus, { shadow } = dom;
  const stop = await dom.until("io"), breakpoint = dom.break("io");
  const objects: Record<string, object> = {
    Hypervisor: hv,
    HostCpu: hv.cpus[0],
    Domain: dom,
    Vcpu: vcpu,
    Stop: stop,
    Breakpoint: breakpoint,
    Console: dom.console,
    CpuidTable: dom.cpuid,
    Memory: vcpu.memory,
    Dump: dom.memory.dump(0),
    PageTables: vcpu.pageTables,
    PageWalk: vcpu.pageTables.walk(stop.regs.rip),
    PageMap: vcpu.pageTables.map(),
    ShadowView: shadow!,
    ShadowTable: shadow!.tables[0],
    StateDiff: hv.diff(hv.save()),
    GuestDigest: GuestDigest.of(dom),
    SymbolTable: dom.symbols!,
    Why: vcpu.why(),
  };
  const fields = fieldNames("io");
  for (const [name, object] of Object.entries(objects)) {
    const known = documented.get(name)!;
    const more = namesAt(object).filter((n) => !known.has(n));
    assertEquals([name, more.filter((n) => name !== "Stop" || !fields.includes(n))], [name, []]);
    assert(known.size > 0 && namesAt(object).length > 0, name);
  }
});
