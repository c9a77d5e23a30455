/** A module S and a processor state of their own, for the tests of this folder. */
import { VMCS } from "../../abi/x86/vmcs.ts";
import { buildFlags } from "../isa/flags.ts";
import { checkById } from "../checks.ts";
import { buildAccess } from "../mmu/access.ts";
import { buildNested } from "../mmu/nested.ts";
import { buildWalk } from "../mmu/walk.ts";
import { buildSystemFunctions } from "../system/build.ts";
import { buildLinearAddresses } from "../system/segmentation/linear.ts";
import { CPU, CPU_MEMORY_PAGES, type CpuCell, SEGMENT, segment, TLB, V } from "../state.ts";
import { HOST_FUNCTIONS, machineModule } from "../linkage.ts";
import { buildVmxFunctions, buildVmxHooks } from "./index.ts";
import { HEAD, VMCS_REVISION, VMXC } from "./layout.ts";
import { STATUS } from "./operations.ts";

let compiled: WebAssembly.Module | undefined;

function systemModule(): WebAssembly.Module {
  if (compiled) return compiled;
  const m = machineModule();
  buildFlags(m);
  m.declareLater("nested", ["i64", "i32", "i64"], ["i64"]);
  m.declareLater("reservedBits", ["i64", "i32", "i32", "i32", "i32"], ["i32"]);
  m.declareLater("dropWrites", [], []);
  m.declareLater("flushTlb", [], []);
  m.declareLater("eptWalk", ["i64", "i32", "i64"], ["i64"]);
  m.declareLater("eptMisconfigured", ["i64", "i32", "i32"], ["i32"]);
  buildWalk(m);
  buildNested(m);
  buildAccess(m);
  buildLinearAddresses(m);
  buildVmxHooks(m);
  buildSystemFunctions(m);
  buildVmxFunctions(m);
  return compiled = new WebAssembly.Module(m.bytes());
}

type S = Record<string, (...args: (number | bigint)[]) => number>;

/** Machine addresses of the test's structures. */
export const PLACE = { vmxon: 0x1000, vmcs: 0x2000, other: 0x3000, page: 0x4000, stack: 0x8000 };

/** A processor in VMX root operation with a VMCS for a guest in flat 32-bit protected mode. */
export class Bench {
  readonly memory = new WebAssembly.Memory({
    initial: CPU_MEMORY_PAGES,
    maximum: CPU_MEMORY_PAGES,
  });
  readonly ram = new WebAssembly.Memory({ initial: 16 });
  readonly frames = new WebAssembly.Memory({ initial: 1 });
  readonly i32 = new Int32Array(this.memory.buffer);
  readonly u64 = new BigUint64Array(this.memory.buffer);
  readonly view = new DataView(this.ram.buffer);
  readonly s: S;

  constructor() {
    const host = Object.fromEntries(
      Object.entries(HOST_FUNCTIONS).map(([name, [, results]]) => [name, () => results]),
    );
    const table = new WebAssembly.Table({ element: "anyfunc", initial: 16 });
    const instance = new WebAssembly.Instance(systemModule(), {
      machine: { cpu: this.memory, ram: this.ram, frames: this.frames, cold: table },
      host,
    });
    this.s = instance.exports as unknown as S;
    this.u64[V.ramSize >> 3] = BigInt(this.ram.buffer.byteLength);
    this.u64[V.reservedHigh >> 3] = 0x000f_ffff_ffff_f000n & ~((1n << 36n) - 1n);
    new Uint8Array(this.memory.buffer).fill(
      0xff,
      TLB.start,
      TLB.start + TLB.classes * TLB.classSize,
    );
    this.reset();
  }

  /** 64-bit host, VMX on. */
  reset(): void {
    const set = (name: CpuCell, value: bigint) => this.u64[CPU[name] >> 3] = value;
    set("cr0", 0x8005_0033n);
    set("cr4", 0x2620n);
    set("efer", 0xd00n);
    set("featureControl", 5n);
    set("vmcsPointer", 0xffff_ffff_ffff_ffffn);
    this.i32[CPU.vmxMode >> 2] = 0;
    this.i32[CPU.interruptibility >> 2] = 0;
    this.i32[CPU.a20Mask >> 2] = -1;
    this.i32[V.hostedRoot >> 2] = 1;
    new Uint8Array(this.ram.buffer).fill(0);
    for (const at of [PLACE.vmxon, PLACE.vmcs, PLACE.other]) {
      this.view.setUint32(at + HEAD.revision, VMCS_REVISION, true);
    }
    this.expect(STATUS.succeed, this.s.vmxon(PLACE.vmxon, 0));
    this.expect(STATUS.succeed, this.s.vmclear(PLACE.vmcs, 0));
    this.expect(STATUS.succeed, this.s.vmptrld(PLACE.vmcs, 0));
    for (const [name, value] of Object.entries(GUEST)) this.write(name, value);
  }

  expect(status: number, given: number): void {
    if (status !== given) {
      throw new Error(`status ${status} was expected, ${given} was given: ${this.check}`);
    }
  }

  write(field: string, value: bigint | number): void {
    const v = BigInt.asUintN(64, BigInt(value));
    this.expect(
      STATUS.succeed,
      this.s.vmwrite(VMCS[field], Number(v & 0xffff_ffffn), Number(v >> 32n)),
    );
  }
  read(field: string): bigint {
    this.expect(STATUS.succeed, this.s.vmread(VMCS[field]));
    return this.u64[VMXC.value >> 3];
  }
  /** Name of the last check noted. */
  get check(): string {
    return checkById(this.i32[V.check >> 2]).name;
  }
  cpu(name: CpuCell): bigint {
    return this.u64[CPU[name] >> 3];
  }
  attributes(n: number): number {
    return this.i32[(segment(n) + SEGMENT.attributes) >> 2];
  }
}

/** Fields of a guest that can be entered. */
export const GUEST: Readonly<Record<string, bigint | number>> = {
  pinBasedControls: 0x16,
  processorBasedControls: 0x0400_6172 | 1 << 31,
  secondaryControls: 0,
  exitControls: 0x0003_6dfb | 0x200,
  entryControls: 0x11fb,
  vmcsLinkPointer: -1n,
  hostCr0: 0x8005_0033n,
  hostCr3: 0x5000,
  hostCr4: 0x2620,
  hostCsSelector: 8,
  hostTrSelector: 0x18,
  hostRip: 0x1234,
  hostRsp: 0x5678,
  guestCr0: 0x8000_0031n,
  guestCr3: 0x6000,
  guestCr4: 0x2000,
  guestDr7: 0x400,
  guestRflags: 2,
  guestRip: 0x7c00,
  guestRsp: PLACE.stack,
  guestCsSelector: 8,
  guestSsSelector: 0x10,
  guestDsSelector: 0x10,
  guestEsSelector: 0x10,
  guestFsSelector: 0x10,
  guestGsSelector: 0x10,
  guestTrSelector: 0x18,
  guestCsAccessRights: 0xc09b,
  guestSsAccessRights: 0xc093,
  guestDsAccessRights: 0xc093,
  guestEsAccessRights: 0xc093,
  guestFsAccessRights: 0xc093,
  guestGsAccessRights: 0xc093,
  guestTrAccessRights: 0x8b,
  guestLdtrAccessRights: 0x1_0000,
  guestCsLimit: 0xffff_ffff,
  guestSsLimit: 0xffff_ffff,
  guestDsLimit: 0xffff_ffff,
  guestEsLimit: 0xffff_ffff,
  guestFsLimit: 0xffff_ffff,
  guestGsLimit: 0xffff_ffff,
  guestTrLimit: 0x67,
  guestGdtrLimit: 0xffff,
  guestIdtrLimit: 0xffff,
};
