import { assertEquals } from "@std/assert";
import type { Cpu } from "./cpu.ts";
import type { Machine } from "./machine.ts";
import { AT, runCode, S, type Setup } from "./system/testing.ts";
import { CPU, type WideCell } from "./state.ts";
import { flatMachine } from "./testing.ts";
import { type CpuModel, DIFFERENCES, type Way } from "./vendors.ts";

/** What is looked at, and what it is on either processor. */
interface Expectation {
  readonly see: (model: CpuModel) => unknown;
  readonly intel: unknown;
  readonly amd: unknown;
}
interface Run {
  readonly machine: Machine;
  readonly cpu: Cpu;
  /** Vector and error code of the exception that ended the code. */
  readonly fault?: (number | undefined)[];
  word(address: number): number;
}

/** Runs 64-bit code at 1_1000h, or `steps` instructions of it, to an exception. */
function long(model: CpuModel, code: string, steps = 100, prepare?: (m: Machine) => void): Run {
  const machine = flatMachine(`${code}\nhlt`, { cpu: model, long: true, origin: 0x1_1000 });
  prepare?.(machine);
  return ended(machine, () => machine.cpu.run(steps));
}
/** The same for 32-bit code in the house of system/testing.ts. */
function legacy(model: CpuModel, code: string, setup: Setup = {}): Run {
  let found!: Run;
  const prepare = (machine: Machine) => {
    setup.prepare?.(machine);
    found = ended(machine, () => machine.cpu.run(setup.budget ?? 100));
  };
  runCode(`${code}\nhlt`, { ...setup, cpu: model, prepare, budget: 0 });
  return found;
}
function ended(machine: Machine, run: () => string): Run {
  const { cpu } = machine, view = new DataView(machine.ram.buffer);
  cpu.hooks.fault = () => true;
  cpu.system.refresh();
  const fault = run() === "fault" ? [cpu.lastFault?.vector, cpu.lastFault?.errorCode] : undefined;
  cpu.system.materialize();
  return { machine, cpu, fault, word: (address) => view.getUint32(address, true) };
}
const reg = ({ cpu }: Run, name: WideCell) => Number(cpu.get(name));
/** RIP, and how many bytes are on the stack. */
const where = (r: Run) => r.fault ?? [reg(r, "rip"), 0x80000 - reg(r, "rsp")];

const small = (n: number, attributes: number) => ({ cpu }: Machine) =>
  cpu.setSegment(n, { selector: S.small, base: BigInt(AT.ldt), limit: 0xff, attributes });
/** Stack, ES or DS of 100h bytes. */
const SMALL_STACK: Setup = { prepare: small(2, 0x4093) };
const SMALL_ES: Setup = { prepare: small(0, 0x4093) };
/** A code segment that ends at 1_0000h. */
const smallCode = ({ cpu }: Machine) =>
  cpu.setSegment(1, { selector: S.code, base: 0n, limit: 0xffff, attributes: 0x409b });
const OSFXSR = 0x200;
/** Alignment is checked. */
const CHECKED: Setup = {
  cpl: 3,
  flags: 0x4_0002,
  cr4: OSFXSR,
  prepare: ({ cpu }) => cpu.set("cr0", 0x4_0011n),
};

function sysret(model: CpuModel): unknown {
  const r = long(model, "db 0x48\nsysret", 10, (machine) => {
    const { cpu } = machine;
    // The first gigabyte as one page that all may use.
    machine.write(0x20000, Uint8Array.of(7, 0x10, 2));
    machine.write(0x21000, Uint8Array.of(0x87));
    cpu.set("cr3", 0x20000n);
    cpu.set("cr4", 0x20n);
    cpu.set("cr0", 0x8000_0011n);
    cpu.set("efer", 0x501n);
    cpu.set("star", 0x001b_0008_0000_0000n);
    cpu.set("rcx", 0x8000_0000_0000n);
    cpu.set("r11", 2n);
  });
  return [...r.fault!, r.cpu.lastFault!.rip, r.cpu.getSegment(1).selector & 3];
}

/** Reads of devices: bytes of each. */
function reads(run: (note: (machine: Machine) => void) => void): number[] {
  const seen: number[] = [];
  run((machine) => {
    machine.bus = { ...machine.bus, mmioRead: (_, bytes) => (seen.push(bytes), 0) };
  });
  return seen;
}

const TESTS: Record<Way, Expectation> = {
  "branch.66": {
    see: (m) =>
      [
        ["db 0x66, 0xeb, 2", 1],
        ["db 0x66, 0xe8, 0x10, 0, 0, 0", 1],
        ["mov rax, 0x22000\ndb 0x66, 0xff, 0xe0", 2],
        ["push 0x2233\ndb 0x66, 0xc3", 2],
        ["mov ecx, 2\ndb 0x66, 0xe2, 0x10", 2],
        ["stc\ndb 0x66, 0x0f, 0x82, 0, 0, 0, 0", 2],
        // Not taken, and REX.W, which wins.
        ["stc\ndb 0x66, 0x73, 0x10", 2],
        ["mov rax, 0x22000\ndb 0x66, 0x48, 0xff, 0xe0", 2],
      ].map(([code, steps]) => where(long(m, code as string, steps as number)).join()),
    intel: [
      "69637,0",
      "69654,8",
      "139264,0",
      "8755,0",
      "69656,0",
      "69640,0",
      "69636,0",
      "139264,0",
    ],
    amd: ["4101,0", "4116,2", "8192,0", "8755,6", "4120,0", "4102,0", "69636,0", "139264,0"],
  },
  "branch.call-check": {
    see: (m) => {
      const stored = (r: Run) => [...r.fault!, r.word(AT.stack0 - 4)].join();
      const bad = "mov eax, 0x10000\ncall eax";
      const noncanonical = long(m, "mov rax, 0x8000000000000000\ncall rax");
      return [
        stored(legacy(m, "db 0xe8\ndd 0x10000", { prepare: smallCode })),
        stored(legacy(m, bad, { prepare: smallCode })),
        [...noncanonical.fault!, noncanonical.word(0x80000 - 8)].join(),
        // The stack's own fault comes first.
        legacy(m, bad, {
          prepare: (machine) => {
            smallCode(machine);
            SMALL_STACK.prepare!(machine);
          },
        }).fault!.join(),
      ];
    },
    intel: ["13,0,32773", "13,0,32775", "13,0,69644", "12,0"],
    amd: ["13,0,0", "13,0,0", "13,0,0", "12,0"],
  },
  "far.call-check": {
    see: (m) =>
      ["call code16:0x10000", `mov eax, 0x40000\ncall fword ptr [eax]`].map((code) => {
        const memory = [[0x40000, [0, 0, 1, 0, S.code16, 0]]] as const;
        const r = legacy(m, code, { memory });
        return [...r.fault!, r.word(AT.stack0 - 4), r.word(AT.stack0 - 8), reg(r, "rsp")].join();
      }),
    intel: ["13,0,0,0,28672", "13,0,8,32775,28672"],
    amd: ["13,0,8,32775,28672", "13,0,8,32775,28672"],
  },
  "far.pointer-rexw": {
    see: (m) => {
      const prepare = (machine: Machine) =>
        machine.write(0x40000, Uint8Array.of(0x44, 0x33, 0x22, 0x11, 0, 0, 0x66, 0x55, 0, 0));
      const r = long(m, "mov rax, 0x40000\ndb 0x48, 0x0f, 0xb4, 0x08", 2, prepare);
      return r.fault ?? r.cpu.get("rcx");
    },
    intel: 0x5566_0000_1122_3344n,
    amd: 0x1122_3344n,
  },
  "far.outer-stack": {
    see: (m) => [
      // CS null, RPL 0, and nothing of the outer stack.
      legacy(m, "mov esp, 0xf8\nretf", { cpl: 3, prepare: small(2, 0x40f3) }).fault!.join(),
      legacy(m, "mov esp, 0xf4\niretd", { cpl: 3, prepare: small(2, 0x40f3) }).fault!.join(),
    ],
    intel: ["13,0", "13,0"],
    amd: ["12,0", "12,0"],
  },
  "bound.order": {
    see: (m) =>
      reads((note) => {
        // The lower bound lies on a device, the upper beyond the segment.
        const prepare = (machine: Machine) => {
          note(machine);
          machine.cpu.setSegment(0, {
            selector: S.small,
            base: 0x20_0000n,
            limit: 0xff,
            attributes: 0x4093,
          });
        };
        assertEquals(legacy(m, "bound eax, es:[0xfc]", { prepare }).fault, [13, 0]);
      }),
    intel: [],
    amd: [4],
  },
  "movsxd.16": {
    see: (m) => reads((note) => void long(m, "mov eax, 0x200000\ndb 0x66, 0x63, 0x00", 2, note)),
    intel: [2],
    amd: [4],
  },
  "segment.push": {
    see: (m) => {
      const memory = [[AT.stack0 - 4, [0xff, 0xff, 0xff, 0xff]]] as const;
      return legacy(m, "push fs", { memory }).word(AT.stack0 - 4);
    },
    intel: 0xffff_0010,
    amd: 0x10,
  },
  "segment.pop": {
    see: (m) => [
      legacy(m, "mov esp, 0xfe\npop es", SMALL_STACK).fault,
      // Beyond: the last selector of a frame.
      legacy(m, "mov esp, 0xfa\nretf", SMALL_STACK).fault,
    ],
    intel: [undefined, [13, 0]],
    amd: [[12, 0], [12, 0]],
  },
  "segment.wrap": {
    see: (m) =>
      [
        "mov eax, [0xfffffffe]",
        "mov ebp, 0xfffffffe\nmov eax, [ebp]",
        "mov eax, 0xfffffffd\nfld qword ptr [eax]",
        "mov esp, 2\npush eax",
        "mov esp, 0xfffffffe\npop eax",
        "mov eax, 0xffffffff\nmov [eax], al",
      ].map((code) => legacy(m, code).fault?.join()),
    intel: Array(6).fill(undefined),
    amd: ["13,0", "12,0", "13,0", "12,0", "12,0", undefined],
  },
  "string.flags": {
    see: (m) => {
      // One of two iterations, CF set before.
      const prepare = ({ cpu }: Machine) => {
        cpu.set("rcx", 2n);
        cpu.set("rax", 1n);
        cpu.set("rdi", 0x40000n);
      };
      const r = legacy(m, "repne scasb", { flags: 3, budget: 1, prepare });
      return [reg(r, "rcx"), reg(r, "rflags") & 1];
    },
    intel: [1, 1],
    amd: [1, 0],
  },
  "string.count": {
    see: (m) => long(m, "mov rcx, 0x100000000\ndb 0x67, 0xf3, 0xa4", 2).cpu.get("rcx"),
    intel: 0n,
    amd: 0x1_0000_0000n,
  },
  "string.order": {
    see: (m) => {
      const prepare = (machine: Machine) => {
        small(0, 0x4093)(machine);
        small(3, 0x4093)(machine);
      };
      const r = legacy(m, "mov esi, 0x1000\nmov edi, 0x2000\ncmpsb", { prepare });
      return [...r.fault!, r.cpu.lastFault!.a];
    },
    intel: [13, 0, 0x2000n],
    amd: [13, 0, 0x1000n],
  },
  "mmx.store-top": {
    see: (m) => {
      const r = legacy(m, "fninit\nfld1\nmovq es:[0x200], mm0", SMALL_ES);
      return [...r.fault!, r.cpu.i32[CPU.fsw >> 2]];
    },
    intel: [13, 0, 0],
    amd: [13, 0, 0x3800],
  },
  "x87.opcode": {
    see: (m) => legacy(m, "fninit\nfld1").cpu.i32[CPU.fop >> 2],
    intel: 0,
    amd: 0x1e8,
  },
  "x87.pointers": {
    see: (m) => {
      const saved = (code: string) => {
        const r = legacy(m, `${code}\nmov eax, 0x40000\nfxsave [eax]`);
        return [r.word(0x40004) >>> 16, r.word(0x40008)];
      };
      // With an exception pending they are there: 1 / 0, ZE unmasked.
      const pending = "push 0x37b\nfldcw word ptr [esp]\nfld1\nfldz\nfdivp st(1),st(0)";
      return [saved("fninit\nfld1"), saved(`fninit\n${pending}`)];
    },
    intel: [[0, AT.code + 2], [0x6f9, AT.code + 14]],
    amd: [[0, 0], [0x6f9, AT.code + 14]],
  },
  "x87.fdp": {
    see: (m) => {
      const r = long(m, "mov eax, 0x40000\nfxrstor64 [rax]", 2, (machine) => {
        const pointer = [0, 0, 0, 0, 0, 0x80, 1, 0];
        machine.write(0x40008, Uint8Array.from([...pointer, ...pointer]));
      });
      return [r.fault, r.cpu.get("fip"), r.cpu.get("fdp")];
    },
    intel: [undefined, 0xffff_8000_0000_0000n, 0x0001_8000_0000_0000n],
    amd: [undefined, 0xffff_8000_0000_0000n, 0xffff_8000_0000_0000n],
  },
  "x87.store-probe": {
    see: (m) => {
      // 2^40 as a word is invalid, unmasked: nothing is stored, and the place is none.
      const invalid = "fninit\npush 0x37e\nfldcw word ptr [esp]\npush 0x100\npush 0\n" +
        "fild qword ptr [esp]\nfistp word ptr es:[0x200]";
      return legacy(m, invalid, SMALL_ES).fault;
    },
    intel: undefined,
    amd: [13, 0],
  },
  "sse.unaligned": {
    see: (m) =>
      ["movups xmm0, [0x40008]", "movups [0x40008], xmm0", "lddqu xmm0, [0x40008]"].map((code) =>
        legacy(m, code, { ...CHECKED, budget: 1 }).fault?.join()
      ),
    intel: [undefined, undefined, undefined],
    amd: ["17,0", "17,0", "17,0"],
  },
  "sse.misaligned": {
    see: (m) => {
      const code = (instruction: string) =>
        `push 0x21f80\nldmxcsr [esp]\nmov eax, 0x40008\n${instruction}`;
      return ["addps xmm0, [eax]", "paddb xmm0, [eax]", "movaps xmm0, [eax]"].map((text) => {
        const r = legacy(m, code(text), { cr4: OSFXSR });
        return [...r.fault ?? [], r.cpu.i32[CPU.mxcsr >> 2]].join();
      });
    },
    intel: Array(3).fill(`13,0,${0x1f80}`),
    amd: [`${0x2_1f80}`, `${0x2_1f80}`, `13,0,${0x2_1f80}`],
  },
  "sse.dot-order": {
    see: (m) => {
      const one = [0, 0, 0x80, 0x3f];
      const memory = [
        [0x40000, [1, 0, 0xc0, 0x7f, 2, 0, 0xc0, 0x7f, ...one, ...one]],
        [0x40010, [...one, ...one, ...one, ...one]],
      ] as const;
      const code = "movaps xmm0, [0x40000]\ndpps xmm0, [0x40010], 0xff\nmovaps [0x40020], xmm0";
      const r = legacy(m, code, { memory, cr4: OSFXSR });
      return [0, 4, 8, 12].map((n) => r.word(0x40020 + n) & 0xf);
    },
    intel: [2, 1, 2, 1],
    amd: [1, 1, 1, 1],
  },
  "sysenter.long": {
    see: (m) => {
      const user = ({ cpu }: Machine) => {
        const flat = { base: 0n, limit: 0xffff_ffff };
        cpu.setSegment(1, { selector: 0x33, attributes: 0xa0fb, ...flat });
        cpu.setSegment(2, { selector: 0x2b, attributes: 0xc0f3, ...flat });
      };
      return [
        long(m, "sysenter").fault!.join(),
        long(m, "sysexit").fault!.join(),
        long(m, "sysexit", 1, user).fault!.join(),
      ];
    },
    intel: ["13,0", "13,0", "13,0"],
    amd: ["6,", "6,", "13,0"],
  },
  "syscall.legacy": {
    see: (m) => {
      const prepare = ({ cpu }: Machine) => {
        cpu.set("efer", 1n);
        cpu.set("star", 0x0008_0008_0000_9000n);
      };
      const r = legacy(m, "syscall", { budget: 1, prepare });
      return r.fault ?? reg(r, "rip");
    },
    intel: [6, undefined],
    amd: 0x9000,
  },
  "sysret.canonical": {
    see: sysret,
    intel: [13, 0, 0x1_1000n, 0],
    amd: [13, 0, 0x8000_0000_0000n, 3],
  },
  "sysret.ss": {
    see: (m) => {
      const r = long(m, "db 0x48\nsysret", 1, ({ cpu }) => {
        cpu.set("efer", 0x501n);
        cpu.set("star", 0x001b_0008_0000_0000n);
        cpu.set("rcx", 0x2000n);
        cpu.set("r11", 2n);
        cpu.setSegment(2, { selector: 0, base: 0x1234n, limit: 0x55, attributes: 0x1_0000 });
      });
      const { selector, base, limit, attributes } = r.cpu.getSegment(2);
      return [selector, base, limit, attributes];
    },
    intel: [0x23, 0n, 0xffff_ffff, 0xc0f3],
    amd: [0x23, 0x1234n, 0x55, 0x1_0060],
  },
  "cr.lock-cr8": {
    see: (m) => {
      const r = legacy(m, "mov eax, 5\ndb 0xf0, 0x0f, 0x22, 0xc0\ndb 0xf0, 0x0f, 0x20, 0xc1");
      return r.fault ?? reg(r, "rcx");
    },
    intel: [6, undefined],
    amd: 5,
  },
  "ud.length": {
    // The code segment ends with the opcode.
    see: (m) => {
      const prepare = ({ cpu }: Machine) =>
        cpu.setSegment(1, {
          selector: S.code,
          base: 0n,
          limit: AT.code + 1,
          attributes: 0x409b,
        });
      return [0xb9, 0xff].map((byte) => legacy(m, `db 0x0f, ${byte}`, { prepare }).fault!.join());
    },
    intel: ["13,0", "13,0"],
    amd: ["6,", "6,"],
  },
  "mov-ss.breakpoints": {
    see: (m) =>
      legacy(
        m,
        "mov eax, place\nmov dr0, eax\nmov eax, 1\nmov dr7, eax\nmov ax, ss\nmov ss, ax\n" +
          "place: inc ecx",
        { budget: 8 },
      ).cpu.get("rcx"),
    // The handler's first instructions instead of INC.
    intel: 1n,
    amd: 0n,
  },
  "msr.vendor": {
    see: (m) => legacy(m, "mov ecx, 0xc001001f\nrdmsr").fault,
    intel: [13, 0],
    amd: undefined,
  },
};

for (const [way, test] of Object.entries(TESTS)) {
  for (const model of ["intel", "amd"] as const) {
    Deno.test(`${way}: ${DIFFERENCES[way as Way][model]} (${model})`, () => {
      assertEquals(test.see(model), test[model]);
    });
  }
}
