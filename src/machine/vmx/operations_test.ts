import { assertEquals } from "@std/assert";
import { VMCS, vmcsField, vmcsFields } from "../../abi/x86/vmcs.ts";
import { VM_ERROR, VMX_MSR } from "../../abi/x86/vmx.ts";
import { CPU, type CpuCell, FRAME, FRAME_FLAG, SEGMENT, segment, V } from "../state.ts";
import { CONTROLS, CR0_FIXED0, CR4_FIXED1, vmxCapability } from "./capabilities.ts";
import { fieldOffset, HEAD, VMCS_REVISION, VMXC } from "./layout.ts";
import { STATUS } from "./operations.ts";
import { Bench, PLACE } from "./testing.ts";

const b = new Bench();
const value = (n: number): bigint => BigInt.asUintN(64, 0x9e37_79b9_7f4a_7c15n * BigInt(n + 1));

/** Expects VMfailValid with that number. */
function fails(status: number, error: number): void {
  assertEquals([status, b.read("instructionError")], [STATUS.failValid, BigInt(error)]);
}

Deno.test("VMREAD gives back what VMWRITE wrote, for every field, and no field touches another", () => {
  b.reset();
  const writable = vmcsFields.filter((f) => !f.readOnly);
  writable.forEach((f, n) => {
    const v = value(n);
    const low = Number(v & 0xffff_ffffn), high = Number(v >> 32n);
    assertEquals(b.s.vmwrite(f.encoding, low, high), STATUS.succeed, f.name);
  });
  writable.forEach((f, n) => {
    assertEquals(b.read(f.name), BigInt.asUintN(f.bits, value(n)), f.name);
  });
});

Deno.test("odd encodings are the upper halves of 64-bit fields, and of no others", () => {
  b.reset();
  for (const f of vmcsFields) {
    if (f.width !== "64") {
      fails(b.s.vmread(f.encoding | 1), VM_ERROR.unsupportedField);
      continue;
    }
    if (f.readOnly) continue;
    b.write(f.name, 0x1111_1111_2222_2222n);
    assertEquals(b.s.vmread(f.encoding | 1), STATUS.succeed);
    assertEquals(b.u64[VMXC.value >> 3], 0x1111_1111n, f.name);
    assertEquals(b.s.vmwrite(f.encoding | 1, 0x3333_3333, 0), STATUS.succeed);
    assertEquals(b.read(f.name), 0x3333_3333_2222_2222n, f.name);
    assertEquals(vmcsField(f.encoding | 1).name, f.name);
  }
});

Deno.test("VMWRITE refuses exit information with error 13, unknown fields have error 12", () => {
  b.reset();
  for (const f of vmcsFields.filter((f) => f.readOnly)) {
    fails(b.s.vmwrite(f.encoding, 1, 0), VM_ERROR.readOnlyField);
  }
  for (const encoding of [0x0002, 0x4402 | 1 << 12, 0x6c18, 0x1_0000 | VMCS.guestRip, 0x2020]) {
    fails(b.s.vmread(encoding), VM_ERROR.unsupportedField);
    fails(b.s.vmwrite(encoding, 0, 0), VM_ERROR.unsupportedField);
  }
});

Deno.test("without a current VMCS the instructions fail as VMfailInvalid", () => {
  b.reset();
  b.s.vmclear(PLACE.vmcs, 0);
  assertEquals(b.cpu("vmcsPointer"), 0xffff_ffff_ffff_ffffn);
  for (
    const status of [
      b.s.vmread(VMCS.guestRip),
      b.s.vmwrite(VMCS.guestRip, 0, 0),
      b.s.vmentry(1),
      b.s.vmptrld(1, 0),
    ]
  ) assertEquals(status, STATUS.failInvalid);
});

Deno.test("VMCLEAR and VMPTRLD refuse what is no VMCS pointer", () => {
  b.reset();
  fails(b.s.vmclear(PLACE.vmcs + 8, 0), VM_ERROR.vmclearAddress);
  fails(b.s.vmclear(0, 0x10), VM_ERROR.vmclearAddress);
  fails(b.s.vmclear(PLACE.vmxon, 0), VM_ERROR.vmclearVmxonPointer);
  fails(b.s.vmptrld(PLACE.vmcs + 8, 0), VM_ERROR.vmptrldAddress);
  fails(b.s.vmptrld(PLACE.vmxon, 0), VM_ERROR.vmptrldVmxonPointer);
  fails(b.s.vmptrld(PLACE.page, 0), VM_ERROR.vmptrldRevision);
  fails(b.s.vmptrld(0, 1), VM_ERROR.vmptrldRevision);
  b.s.vmptrst();
  assertEquals(b.u64[VMXC.value >> 3], BigInt(PLACE.vmcs));
});

Deno.test("VMXON wants its mode, its lock and its region", () => {
  const attempt = (change: () => void, expected: number, check: string) => {
    b.reset();
    b.s.vmxoff();
    change();
    assertEquals([b.s.vmxon(at, 0), b.check], [expected, check]);
  };
  let at = PLACE.vmxon;
  const set = (name: CpuCell, v: bigint) => () => void (b.u64[CPU[name] >> 3] = v);
  attempt(set("cr4", 0x20n), STATUS.undefined, "vmx.on.vmxe");
  attempt(set("cr0", 0x31n), STATUS.protection, "vmx.on.cr0");
  attempt(set("cr4", 0x2020n | 1n << 22n), STATUS.protection, "vmx.on.cr4");
  attempt(set("featureControl", 1n), STATUS.protection, "vmx.on.featureControl");
  attempt(() => at = PLACE.page, STATUS.failInvalid, "vmx.on.region");
  attempt(() => at = PLACE.vmxon + 4, STATUS.failInvalid, "vmx.on.region");
  b.reset();
  fails(b.s.vmxon(PLACE.vmxon, 0), VM_ERROR.vmxonInRoot);
});

Deno.test("INVEPT and INVVPID know their types", () => {
  b.reset();
  assertEquals(b.s.invept(1n, 0x5000n | 0x1en, 0n), STATUS.succeed);
  assertEquals(b.s.invept(2n, 0n, 0n), STATUS.succeed);
  fails(b.s.invept(1n, 0x5000n, 0n), VM_ERROR.invalidation);
  fails(b.s.invept(0n, 0x501en, 0n), VM_ERROR.invalidation);
  assertEquals(b.s.invvpid(0n, 1n, 0x1000n), STATUS.succeed);
  assertEquals(b.s.invvpid(3n, 1n, 0n), STATUS.succeed);
  fails(b.s.invvpid(0n, 1n, 1n << 47n), VM_ERROR.invalidation);
  fails(b.s.invvpid(1n, 0n, 0n), VM_ERROR.invalidation);
  fails(b.s.invvpid(4n, 1n, 0n), VM_ERROR.invalidation);
});

Deno.test("a VMCS lies in memory alone: copied bytes are the same VMCS", () => {
  b.reset();
  b.write("guestRip", 0x4321);
  const bytes = new Uint8Array(b.ram.buffer, PLACE.vmcs, 4096);
  new Uint8Array(b.ram.buffer).set(bytes, PLACE.other);
  b.s.vmptrld(PLACE.other, 0);
  assertEquals(b.read("guestRip"), 0x4321n);
  assertEquals(b.s.vmentry(1), STATUS.succeed);
  assertEquals(b.cpu("rip"), 0x4321n);
  const frame = new Int32Array(b.frames.buffer)[PLACE.other / 4096 * FRAME.size / 4];
  assertEquals(frame & FRAME_FLAG.dirty, FRAME_FLAG.dirty);
  assertEquals(fieldOffset("guestRip") % 8, 0);
  assertEquals(b.view.getUint32(PLACE.other + HEAD.launched, true), 1);
});

Deno.test("what a VMCS has passed holds while others are current, until VMCLEAR or a VMWRITE", () => {
  /** Two VMCSs that have been entered; the first is current again. */
  const two = () => {
    b.reset();
    const bytes = new Uint8Array(b.ram.buffer, PLACE.vmcs, 4096).slice();
    new Uint8Array(b.ram.buffer).set(bytes, PLACE.other);
    for (const at of [PLACE.vmcs, PLACE.other]) {
      b.expect(STATUS.succeed, b.s.vmptrld(at, 0));
      b.write("hostTrSelector", at === PLACE.other ? 0x28 : 0x18);
      b.expect(STATUS.succeed, b.s.vmentry(1));
      b.i32[V.abort >> 2] = 2;
      b.s.vmexit();
    }
    b.expect(STATUS.succeed, b.s.vmptrld(PLACE.vmcs, 0));
  };
  two();
  assertEquals(b.i32[VMXC.passed >> 2], 15);
  b.expect(STATUS.succeed, b.s.vmentry(0));
  b.i32[V.abort >> 2] = 2;
  b.s.vmexit();
  // The host's segments are those of the VMCS that was entered.
  assertEquals(b.i32[(segment(7) + SEGMENT.selector) >> 2], 0x18);
  // A bad field is seen, wherever it was written and whoever was current since.
  b.write("guestTrAccessRights", 0x1_0000);
  b.expect(STATUS.succeed, b.s.vmptrld(PLACE.other, 0));
  b.expect(STATUS.succeed, b.s.vmptrld(PLACE.vmcs, 0));
  assertEquals(b.s.vmentry(0), 3);
  two();
  b.expect(STATUS.succeed, b.s.vmptrld(PLACE.other, 0));
  b.expect(STATUS.succeed, b.s.vmclear(PLACE.vmcs, 0));
  b.view.setUint32(PLACE.vmcs + fieldOffset("guestTrAccessRights"), 0x1_0000, true);
  b.expect(STATUS.succeed, b.s.vmptrld(PLACE.vmcs, 0));
  assertEquals(b.s.vmentry(1), 3);
});

Deno.test("capability MSRs follow from what is implemented", () => {
  const [revision, size] = vmxCapability(VMX_MSR.basic)!;
  assertEquals([revision, size & 0x1fff, size >>> 23 & 1], [VMCS_REVISION, 4096, 1]);
  assertEquals(vmxCapability(VMX_MSR.truePinBased), [CONTROLS.pin.must, CONTROLS.pin.may]);
  // The classic MSRs have all of the default1 class.
  assertEquals(vmxCapability(VMX_MSR.processorBased)![0], 0x0401_e172);
  assertEquals(vmxCapability(VMX_MSR.trueProcessorBased)![0], 0x0400_6172);
  assertEquals(vmxCapability(VMX_MSR.cr0Fixed0), [CR0_FIXED0, 0]);
  assertEquals(vmxCapability(VMX_MSR.cr4Fixed1), [CR4_FIXED1, 0]);
  assertEquals(vmxCapability(VMX_MSR.vmcsEnum), [23 << 1, 0]);
  assertEquals(vmxCapability(0x491), undefined);
});
