import { assertEquals } from "@std/assert";
import { VMCS } from "../../abi/x86/vmcs.ts";
import { assemble } from "../isa/encode.ts";
import { checkById } from "../checks.ts";
import { Machine } from "../machine.ts";
import { CPU, V } from "../state.ts";
import { HEAD, VMCS_REVISION } from "./layout.ts";
import { GUEST } from "./testing.ts";

const machine = new Machine({ memory: 8 << 20, cpu: "intel" });
const { cpu } = machine;
const CODE = 0x10_0000, DATA = 0x11_0000, PAGES = 0x12_0000;
const view = new DataView(machine.ram.buffer);

/** 32-bit code at privilege `cpl` with paging on, as VMX operation wants it. */
function start(source: string, cpl = 0): Map<string, bigint> {
  const { bytes, symbols } = assemble(`org ${CODE}\nbits 32\n${source}`, { mode: 32 });
  cpu.reset();
  machine.write(DATA, new Uint8Array(0x2000));
  machine.write(CODE, bytes);
  machine.write(PAGES, Uint8Array.from([0x87, 0, 0, 0, 0x87, 0, 0x40, 0]));
  for (const at of [0x3000, 0x4000]) view.setUint32(at + HEAD.revision, VMCS_REVISION, true);
  view.setBigUint64(DATA, 0x3000n, true);
  view.setBigUint64(DATA + 8, 0x4000n, true);
  const flat = { base: 0n, limit: 0xffff_ffff };
  for (const n of [0, 2, 3, 4, 5]) {
    cpu.setSegment(n, { ...flat, selector: 16 | cpl, attributes: 0xc093 | cpl << 5 });
  }
  cpu.setSegment(1, { ...flat, selector: 8 | cpl, attributes: 0xc09b | cpl << 5 });
  cpu.set("cr0", 0x8000_0031n);
  cpu.set("cr3", BigInt(PAGES));
  cpu.set("cr4", 0x2010n);
  cpu.set("featureControl", 5n);
  cpu.set("rip", BigInt(CODE));
  cpu.set("rsp", BigInt(DATA + 0x1000));
  cpu.hooks.fault = () => true;
  return symbols as Map<string, bigint>;
}

const flags = () => (cpu.system.materialize(), Number(cpu.get("rflags") & 0x8d5n));
const CF = 1, ZF = 0x40;

Deno.test("VMX instructions set CF for VMfailInvalid, ZF for VMfailValid, neither for success", () => {
  const steps: [string, number][] = [
    [`vmxon [${DATA}]`, 0],
    [`vmptrst [${DATA + 16}]`, 0],
    ["vmread eax, ebx", CF],
    [`vmclear [${DATA}]`, CF],
    [`vmclear [${DATA + 8}]`, 0],
    [`vmptrld [${DATA + 8}]`, 0],
    [`vmptrld [${DATA}]`, ZF],
    [`vmxon [${DATA}]`, ZF],
    ["vmresume", ZF],
    ["vmcall", ZF],
    ["vmlaunch", ZF],
    [`invept eax, [${DATA + 32}]`, ZF],
  ];
  start(`xor eax, eax\n${steps.map(([s]) => s).join("\n")}\nvmxoff`);
  assertEquals(cpu.run(1), "budget");
  for (const [text, expected] of steps) {
    assertEquals(cpu.run(1), "budget", text);
    assertEquals([text, flags()], [text, expected]);
  }
  assertEquals(view.getBigUint64(DATA + 16, true), 0xffff_ffff_ffff_ffffn);
  assertEquals(cpu.run(1), "budget");
  assertEquals(cpu.i32[CPU.vmxMode >> 2], 0);
});

Deno.test("a conditional jump behind VMCALL or VMXOFF tests the flags that they have left", () => {
  // Before: ZF set, CF clear. VMCALL without a current VMCS sets CF, VMXOFF clears both.
  for (const [instruction, jump] of [["vmcall", "jc"], ["vmcall", "jnz"], ["vmxoff", "jnz"]]) {
    start(`vmxon [${DATA}]
      xor ebx, ebx
      cmp ebx, ebx
      ${instruction}
      ${jump} right
      inc ebx
      right: nop`);
    assertEquals(cpu.run(6), "budget");
    assertEquals(cpu.get("rbx"), 0n, `${instruction}, ${jump}`);
  }
});

Deno.test("VMWRITE and VMREAD take registers and memory", () => {
  start(`
    vmxon [${DATA}]
    vmclear [${DATA + 8}]
    vmptrld [${DATA + 8}]
    mov edx, ${VMCS.guestRip}
    mov dword [${DATA + 24}], 0x12345678
    vmwrite edx, [${DATA + 24}]
    vmread ebx, edx
    vmread [${DATA + 28}], edx
    mov ecx, 0x1234
    mov eax, ${VMCS.guestEsSelector}
    vmwrite eax, ecx
    vmread esi, eax`);
  assertEquals(cpu.run(12), "budget");
  assertEquals(cpu.get("rbx"), 0x1234_5678n);
  assertEquals(view.getUint32(DATA + 28, true), 0x1234_5678);
  assertEquals(cpu.get("rsi"), 0x1234n);
});

Deno.test("VMX instructions fault where the manual says so", () => {
  const faults = (source: string, vector: number, check: string, cpl = 0, change = () => {}) => {
    start(source, cpl);
    change();
    assertEquals(cpu.run(1), "fault", source);
    const { lastFault } = cpu;
    assertEquals([source, lastFault?.vector, checkById(lastFault!.check).name], [
      source,
      vector,
      check,
    ]);
  };
  faults("vmread eax, ebx", 6, "vmx.operation");
  faults("vmlaunch", 6, "vmx.operation");
  faults("vmcall", 6, "vmx.operation");
  faults("vmfunc", 6, "vmx.vmfunc");
  faults(`vmxon [${DATA}]`, 6, "vmx.on.vmxeClear", 0, () => cpu.set("cr4", 0x10n));
  faults(`vmxon [${DATA}]`, 13, "vmx.privilege", 3);
  // This test's memory lies where bit 20 is set: another bit is masked.
  faults(`vmxon [${DATA}]`, 13, "vmx.on.a20m", 0, () => cpu.i32[CPU.a20Mask >> 2] = ~(1 << 29));
  cpu.a20 = true;
  faults(
    `vmxon [${DATA}]`,
    13,
    "vmx.on.featureControl",
    0,
    () => cpu.set("featureControl", 0n),
  );
  const on = () => cpu.i32[CPU.vmxMode >> 2] = 1;
  faults("vmxoff", 13, "vmx.privilege", 3, on);
  faults("vmptrld [0x1000]", 6, "vmx.mode", 0, () => {
    on();
    cpu.set("cr0", 0x30n);
  });
});

Deno.test("code in VMX root launches a guest, whose CPUID brings it back", () => {
  const symbols = start(`
    vmxon [${DATA}]
    vmclear [${DATA + 8}]
    vmptrld [${DATA + 8}]
    ready: vmlaunch
    failed: hlt
    guest: mov ebx, 0x55
    cpuid
    host: mov ecx, 0x66
    hlt`);
  assertEquals(cpu.run(3), "budget");
  const write = (name: string, value: bigint | number) => {
    const v = BigInt.asUintN(64, BigInt(value));
    cpu.system.vmwrite(VMCS[name], Number(v & 0xffff_ffffn), Number(v >> 32n));
  };
  for (const [name, value] of Object.entries(GUEST)) write(name, value);
  write("exitControls", 0x0003_6dfb);
  for (const s of ["Ss", "Ds", "Es"]) write(`host${s}Selector`, 16);
  write("hostCr0", 0x8000_0031);
  write("hostCr4", 0x2010);
  write("hostCr3", PAGES);
  write("hostRip", symbols.get("host")!);
  write("hostRsp", DATA + 0x1000);
  write("guestCr4", 0x2010);
  write("guestCr3", PAGES);
  write("guestRip", symbols.get("guest")!);
  const stop = cpu.run(3);
  // The run loop may make the exit itself; else it is made here.
  if (stop === "exit") cpu.system.vmexit();
  assertEquals(cpu.get("rbx"), 0x55n);
  assertEquals(cpu.run(100), "halt");
  assertEquals([cpu.get("rcx"), cpu.i32[CPU.vmxMode >> 2]], [0x66n, 1]);
  cpu.system.vmread(VMCS.exitReason);
  assertEquals([cpu.i32[V.nonRoot >> 2], cpu.i32[V.abort >> 2]], [0, 0]);
});
