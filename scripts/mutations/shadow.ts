/**
 * Mistakes in shadow paging.
 *
 * @module
 */
import { type Mutation, mutationsOf } from "./mutation.ts";

const XEN = "src/xen", TEST = `${XEN}/shadow_test.ts`, PROGRAMS = `${XEN}/shadow_program_test.ts`;
const HVM = "src/hvm/shadow_test.ts";

const random = (mode: string, how: string) =>
  `random page tables, ${mode}, ${how} frames: as a plain walk has it`;
const NARROW = random("32-bit", "intel, pool of 16"), PAE = random("PAE", "intel, pool of 64");
const LONG = random("4-level", "amd, pool of 32"), TINY = random("4-level", "intel, pool of 16");
const program = (name: string, cpu: "intel" | "amd" = "intel") =>
  `${name}: the same over nested and under shadow tables, ${cpu}`;
const WRITTEN = program("pages that are read, then written");
const SEEN = program("writes to tables, seen at once");
const TURNED = program("modes turned while paging is on");
const POINTERS = program("PAE: pointers are loaded by CR3 alone");
const OUTSIDE = "writes to the guest's tables from outside are seen, through whatever door";
const DESTROY = "destroy() gives all frames back, and the processor's hooks";

export const SHADOW_MUTATIONS: readonly Mutation[] = [
  ...mutationsOf(`${XEN}/p2m.ts`, TEST, [
    [
      "a shadow that lets go of a table takes it from the others",
      "if (others === 0) this.machine.markDerived(frame, on);",
      "this.machine.markDerived(frame, on);",
      "what one vCPU lets a guest write is told to another that has derived from it",
    ],
  ]),
  ...mutationsOf(`${XEN}/shadow.ts`, PROGRAMS, [
    [
      "a shadow entry writable though the guest's is not dirty",
      "flags = P | entry & US | A | D | (entry & D ? entry & RW : 0);",
      "flags = P | entry & (US | RW) | A | D;",
      WRITTEN,
    ],
    [
      "a shadowed large page writable though the guest's is not dirty",
      "return P | entry & US | A | (entry & D ? entry & RW : 0);",
      "return P | entry & (US | RW) | A;",
      WRITTEN,
    ],
    [
      "ROM mapped writable",
      "if (pool.isTable(walk.frame) || !this.p2m.writable(walk.frame)) flags &= ~RW;",
      "if (pool.isTable(walk.frame)) flags &= ~RW;",
      program("ROM in a page that may be written"),
    ],
    [
      "a shadowed table mapped writable",
      "if (pool.isTable(walk.frame) || !this.p2m.writable(walk.frame)) flags &= ~RW;",
      "if (!this.p2m.writable(walk.frame)) flags &= ~RW;",
      WRITTEN,
    ],
    [
      "both halves of a 4-MB page are its first",
      "pool.get(KIND.pages, walk.frame & ~0x1ff, 0)",
      "pool.get(KIND.pages, walk.frame & ~0x3ff, 0)",
      WRITTEN,
    ],
    [
      "writes where CR0.WP is clear are not emulated",
      "if (access & WRITE && (walk.override || pool.isTable(walk.frame))) {",
      "if (access & WRITE && pool.isTable(walk.frame)) {",
      program("a supervisor and CR0.WP"),
    ],
    [
      "a write across two entries drops the first alone",
      "const last = (offset + length - 1) >>> shift;",
      "const last = offset >>> shift;",
      program("a write to tables across two entries"),
    ],
    [
      "another CR3 keeps the old root",
      "if (guest[GUEST.cr3] !== r.cr3 || guest[GUEST.cr3 + 1] !== r.cr3High) same = false;",
      "",
      program("task switches that load CR3"),
    ],
    [
      "other PDPTEs keep the old directories",
      "if (guest[GUEST.pdptes + n] !== r.pdptes[n]) same = false;",
      "",
      POINTERS,
    ],
    [
      "large pages outlive CR4.PSE",
      "if (pse !== r.pse || nxe !== r.nxe || !same) this.pool.clearAll();",
      "if (nxe !== r.nxe || !same) this.pool.clearAll();",
      TURNED,
    ],
  ]),
  ...mutationsOf(`${XEN}/shadow.ts`, TEST, [
    [
      "shadow entries lose the user bit",
      "flags = P | entry & US | A |",
      "flags = P | US | A |",
      NARROW,
    ],
    [
      "rights of the guest's upper levels ignored",
      "return P | walk.low[step] & (RW | US) | A;",
      "return P | RW | US | A;",
      LONG,
    ],
    ["shadow entries lose NX", "walk.high[step] & XD : 0;", "0 : 0;", PAE],
    [
      "the second half of a 4-MB entry outlives a write to it",
      "pool.clear(slot, 2 * (entry & 255) + 1);",
      "",
      NARROW,
    ],
    [
      "both halves of a guest's page table are its first",
      "r.paging === PAGING.twoLevel ? low >>> 21 & 1 : 0;",
      "0;",
      NARROW,
    ],
    ["CR0.WP taken for set", "r.wp = (cr0 & CR0_WP) !== 0;", "r.wp = true;", NARROW],
    [
      "EFLAGS.AC does not open SMAP",
      "!== 0n &&\n      this.ops",
      "=== 1n &&\n      this.ops",
      LONG,
    ],
    [
      "destroy() leaves its hook on the machine",
      "this.p2m.machine.onWrite.delete(this.#told);",
      "",
      DESTROY,
    ],
    [
      "a write from outside to a shadowed table not noticed",
      "if (guest >= 0 && this.pool.isTable(guest)) this.written(",
      "if (guest < 0 && this.pool.isTable(guest)) this.written(",
      OUTSIDE,
    ],
    [
      "a guest frame that moves keeps its shadow entries",
      "this.pool.clearLeaves(guestFrame);",
      "",
      "a guest frame that is taken away has no shadow entry left",
    ],
    [
      "a saved guest keeps its shadow root",
      "this.pool.clearAll();\n    this.#installed = false;",
      "this.pool.clearAll();",
      LONG,
    ],
    [
      "what is saved has shadow tables in it",
      "this.pool.clearAll();\n    this.#installed = false;",
      "this.#installed = false;",
      "save, load and save again are equal, and a loaded guest goes on the same, amd",
    ],
  ]),
  ...mutationsOf(`${XEN}/shadow_pool.ts`, TEST, [
    [
      "the pool of a destroyed domain leaks",
      "this.frame[n] = frames.allocate(owner);",
      "this.frame[n] = frames.allocate(owner + 1);",
      DESTROY,
    ],
    [
      "eviction leaves the entry above",
      "while (this.#parents[slot] !== NONE) {",
      "while (this.#parents[slot] !== NONE && this.kind[slot] === KIND.free) {",
      TINY,
    ],
    [
      "the processor's root is evicted",
      "this.#used[slot] === this.#serial || slot === this.root",
      "this.#used[slot] === this.#serial",
      TINY,
    ],
    [
      "tables of the running translation are evicted",
      "if (this.#used[slot] === this.#serial || slot === this.root) continue;",
      "if (slot === this.root) continue;",
      "eviction spares the tables of the running translation",
    ],
  ]),
  ...mutationsOf(`${XEN}/shadow_pool.ts`, PROGRAMS, [
    [
      "a frame that becomes a table stays writable where it was mapped",
      "words[at >>> 2] & ~RW, words[(at >>> 2) + 1]",
      "words[at >>> 2], words[(at >>> 2) + 1]",
      WRITTEN,
    ],
    [
      "writes to shadowed tables not noticed",
      "this.p2m.markDerived(guest, true);",
      "",
      SEEN,
    ],
    [
      "a shadow entry that goes stays in the TLB",
      "    this.#unlink(node);\n    this.frames.machine.writeEntry(this.place(node), 0, 0);\n  }\n\n  #heads",
      "    this.#unlink(node);\n    this.#words[this.place(node) >>> 2] = 0;\n  }\n\n  #heads",
      "a table written from outside shows at the next access, shadow, intel",
    ],
  ]),
  ...mutationsOf(`${XEN}/guest_walk.ts`, TEST, [
    [
      "reserved bits of wide entries ignored",
      "return (hi & high) !== 0 || (lo & inside) !== 0;",
      "return (lo & inside) !== 0;",
      PAE,
    ],
    [
      "reserved bit of 4-MB pages ignored",
      "if (large && lo & mode.large[level]) return true;",
      "",
      NARROW,
    ],
    [
      "accessed bits set for writes alone",
      "old | A | D : old | A;",
      "old | A | D : old;",
      NARROW,
    ],
    [
      "dirty bits set at every level",
      "write && n === this.steps - 1 ? old | A | D",
      "write ? old | A | D",
      LONG,
    ],
    [
      "shadowed: SMEP ignored",
      "if (fetch && r.smep) return this.#fault(r, access, P, PAGE_CHECK.smep);",
      "",
      LONG,
    ],
  ]),
  ...mutationsOf("src/hvm/shadow.ts", PROGRAMS, [
    [
      "MOV to CR3 does not load the PDPTEs",
      "setGuestWord(v, GUEST[`cr${n}`], value);",
      "setGuestWord(v, GUEST[`cr${n}`], value);\n    if (n === 3) return void this.homes.apply(v);",
      POINTERS,
    ],
  ]),
  ...mutationsOf("src/hvm/shadow.ts", HVM, [
    [
      "MOV to CR3 does not leave",
      "more.crWrite |= 8;",
      "more.crWrite |= 0;",
      "shadow paging, VMX: MOV to CR3 leaves",
    ],
    [
      "page faults do not leave",
      "more.exceptions |= PAGE_FAULT;",
      "more.exceptions |= 0;",
      "shadow paging, VMX: every page fault leaves, and may be dealt with out of sight",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/shadow.ts", HVM, [
    [
      "SVM: page faults stay the guest's after an emulated instruction",
      "put(v, F.nestedControl, 0);\n  put(v, F.exceptions, v.kept.exceptions);",
      "put(v, F.nestedControl, 0);",
      "shadow paging, SVM: page faults leave again behind an emulated instruction",
    ],
    [
      "SVM: nested paging stays on after an emulated instruction",
      "  put(v, F.nestedControl, 0);\n  put(v, F.exceptions, v.kept",
      "  put(v, F.exceptions, v.kept",
      "shadow paging, SVM: page faults leave again behind an emulated instruction",
    ],
  ]),
  ...mutationsOf("src/hvm/svm/controls.ts", HVM, [
    [
      "SVM: a shadowed guest reads the hardware's CR4",
      "return (cr0 ? 1 : 0) | (cr4 ? 0x10 : 0);",
      "return cr0 ? 1 : 0;",
      "shadow paging, SVM: the guest reads its own CR0 and CR4, by whatever instruction",
    ],
  ]),
  ...mutationsOf("src/hvm/vmx/shadow.ts", HVM, [
    [
      "VMX: page faults stay the guest's after an emulated instruction",
      "put(v, F.exceptionBitmap, v.kept.exceptions);",
      "",
      "shadow paging, VMX: page faults leave again behind an emulated instruction",
    ],
  ]),
];
