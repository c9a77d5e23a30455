import { assertEquals } from "@std/assert";
import { EXIT_CODE, INTERCEPT1, VMCB } from "../../abi/x86/vmcb.ts";
import { MSR } from "../../abi/x86/msr.ts";
import { checkById } from "../checks.ts";
import { Machine } from "../machine.ts";
import { EVENT, EVENT_SELECT as COUNT } from "../counters.ts";
import { CPU, V } from "../state.ts";
import { Bench, type Fields, PLACE } from "./testing.ts";

const b = new Bench();
const { cpu } = b;

/** Code of a host in flat 32-bit protected mode, SVM on, no host of TypeScript. */
function host(source: string, change = () => {}): Map<string, bigint> {
  b.reset();
  cpu.i32[V.hostedRoot >> 2] = 0;
  const flat = { base: 0n, limit: 0xffff_ffff };
  for (const n of [0, 2, 3]) cpu.setSegment(n, { ...flat, selector: 16, attributes: 0xc093 });
  cpu.setSegment(1, { ...flat, selector: 8, attributes: 0xc09b });
  for (const [name, value] of [["cr0", 0x11n], ["cr4", 0n], ["efer", 0x1000n]] as const) {
    cpu.set(name, value);
  }
  cpu.set("rip", BigInt(PLACE.data));
  cpu.set("rsp", BigInt(PLACE.stack));
  cpu.hooks.fault = () => true;
  change();
  return b.load(source, 32, PLACE.data);
}

Deno.test("SVM instructions fault where the manual says so", () => {
  const faults = (source: string, vector: number, check: string, change = () => {}) => {
    host(source, change);
    assertEquals(cpu.run(1), "fault", source);
    const { lastFault } = cpu;
    assertEquals(
      [source, lastFault?.vector, checkById(lastFault!.check).name],
      [source, vector, check],
    );
  };
  const names = ["vmrun", "vmload", "vmsave", "stgi", "clgi", "invlpga"];
  for (const name of names) {
    faults(name, 6, "svm.off", () => cpu.set("efer", 0n));
    faults(name, 6, "svm.mode", () => cpu.set("cr0", 0x10n));
    faults(name, 13, "svm.privilege", () => {
      for (const n of [1, 2]) {
        const s = cpu.getSegment(n);
        cpu.setSegment(n, { ...s, attributes: s.attributes | 0x60, selector: s.selector | 3 });
      }
    });
  }
  for (const name of ["vmrun", "vmload", "vmsave"]) {
    faults(name, 13, "svm.address", () => cpu.set("rax", 0x2010n));
  }
  faults("skinit", 6, "svm.skinit");
  faults("vmmcall", 6, "svm.vmmcall");
  faults("vmcall", 6, "decode.foreign");
  faults("vmlaunch", 6, "decode.foreign");
});

Deno.test("on a processor of the other vendor they are no instructions", () => {
  const { cpu } = new Machine({ memory: 1 << 20, cpu: "intel" });
  cpu.hooks.fault = () => true;
  for (const last of [0xd8, 0xd9, 0xda, 0xdc]) {
    cpu.reset();
    cpu.setSegment(1, { selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 });
    cpu.machine.write(0x1000, Uint8Array.from([0x0f, 0x01, last]));
    cpu.set("rip", 0x1000n);
    assertEquals(cpu.run(1), "fault");
    assertEquals(checkById(cpu.lastFault!.check).name, "decode.foreign");
  }
});

Deno.test("a host of instructions runs a guest, whose CPUID brings it back behind VMRUN", () => {
  host(`
    mov eax, ${PLACE.vmcb}
    vmload
    vmrun
    vmsave
    mov ecx, 0x66
    hlt`);
  b.write("intercepts1", INTERCEPT1.cpuid);
  b.load("mov ebx, 0x55\nmov esp, 0x1234\ncpuid");
  assertEquals(cpu.run(100), "halt");
  assertEquals(b.read("exitCode"), BigInt(EXIT_CODE.cpuid));
  assertEquals([cpu.get("rbx"), cpu.get("rsp"), cpu.get("rax")], [
    0x55n,
    BigInt(PLACE.stack),
    BigInt(PLACE.vmcb),
  ]);
  assertEquals(b.read("rsp"), 0x1234n);
  assertEquals([cpu.i32[CPU.gif >> 2], cpu.i32[CPU.svmMode >> 2]], [0, 0]);
  assertEquals(cpu.get("rcx"), 0x66n);
});

Deno.test("a host of instructions gets its guest back at host interrupts, NMIs and INIT", () => {
  const run = (raise: () => void, fields: Fields): bigint => {
    host(`clgi\nmov eax, ${PLACE.vmcb}\nvmrun\nhlt`);
    for (const [name, value] of Object.entries(fields)) b.write(name, value);
    b.load("inc edx\nsti\ninc edx\ninc edx\njmp $");
    cpu.run(1);
    raise();
    assertEquals(cpu.run(100), "halt");
    return b.read("exitCode");
  };
  const { bus } = b.machine;
  const interrupt = () => {
    b.machine.bus = { ...bus, interruptPending: () => true, acknowledge: () => 0x40 };
  };
  assertEquals(run(interrupt, { virtualInterrupt: 0 }), BigInt(EXIT_CODE.intr));
  // The guest's IF counts: behind STI and its shadow.
  assertEquals([b.read("rip"), cpu.get("rdx")], [BigInt(PLACE.code + 3), 0x602n]);
  b.machine.bus = bus;
  assertEquals(run(() => cpu.raiseNmi(), {}), BigInt(EXIT_CODE.nmi));
  assertEquals(cpu.i32[CPU.pendingNmi >> 2], 1);
  const intercepted = { intercepts1: INTERCEPT1.init | INTERCEPT1.intr };
  assertEquals(run(() => cpu.raiseInit(), intercepted), BigInt(EXIT_CODE.init));
  assertEquals(cpu.i32[CPU.pendingInit >> 2], 1, "it waits for the host's STGI");
  const virtual = { virtualInterrupt: 1 << 24 | 1 << 8 | 1 << 16, intercepts1: INTERCEPT1.vintr };
  assertEquals(run(() => {}, virtual), BigInt(EXIT_CODE.vintr));
});

Deno.test("with V_INTR_MASKING interrupts wait for the IF that the host had at VMRUN", () => {
  const run = (source: string): [bigint, bigint] => {
    host(`${source}\nmov eax, ${PLACE.vmcb}\nvmrun\nhlt`);
    b.write("virtualInterrupt", 1 << 24);
    b.write("intercepts1", INTERCEPT1.intr | INTERCEPT1.cpuid);
    b.load("mov edx, 1\nsti\ninc edx\ninc edx\ncpuid");
    const { bus } = b.machine;
    b.machine.bus = { ...bus, interruptPending: () => true, acknowledge: () => 0x40 };
    assertEquals(cpu.run(100), "halt");
    b.machine.bus = bus;
    return [b.read("exitCode"), cpu.get("rdx")];
  };
  assertEquals(run("clgi"), [BigInt(EXIT_CODE.cpuid), 3n]);
  assertEquals(run("clgi\nsti")[0], BigInt(EXIT_CODE.intr));
});

Deno.test("the last branch is recorded while DEBUGCTL.LBR is set", () => {
  host("nop\njmp short next\nnop\nnext: nop\nmov ecx, 2\nrep stosb\nhlt");
  cpu.set("debugctl", 1n);
  const records = () => [cpu.get("branchFrom"), cpu.get("branchTo")];
  cpu.run(2);
  assertEquals(records(), [BigInt(PLACE.data + 1), BigInt(PLACE.data + 4)]);
  // The rounds of REP do not count.
  cpu.run(4);
  assertEquals(records(), [BigInt(PLACE.data + 1), BigInt(PLACE.data + 4)]);
  cpu.set("debugctl", 0n);
});

Deno.test("CLGI keeps interrupts and NMIs out until STGI", () => {
  host("clgi\nsti\nnop\nnop\nstgi\nnop\nnop");
  const { bus } = b.machine;
  b.machine.bus = { ...bus, interruptPending: () => true, acknowledge: () => 0x40 };
  cpu.set("idtr.base", BigInt(PLACE.idt));
  cpu.set("idtr.limit", 0x7ffn);
  cpu.set("gdtr.base", BigInt(PLACE.gdt));
  cpu.set("gdtr.limit", 0x17n);
  b.gate(0x40, PLACE.code);
  b.gate(2, PLACE.code + 0x10);
  b.load("jmp $");
  b.load("jmp $", 32, PLACE.code + 0x10);
  cpu.run(1);
  cpu.raiseNmi();
  cpu.run(3);
  assertEquals([cpu.get("rip"), cpu.i32[CPU.gif >> 2]], [BigInt(PLACE.data + 6), 0]);
  cpu.run(2);
  assertEquals(cpu.get("rip"), BigInt(PLACE.code + 0x10));
  b.machine.bus = bus;
});

Deno.test("SVM's MSRs have their rules", () => {
  const write = (msr: number, value: bigint): number => {
    cpu.i32[0x1008 >> 2] = 0;
    cpu.system.writeMsr(msr, value);
    const aborted = cpu.i32[0x1008 >> 2];
    cpu.i32[0x1008 >> 2] = 0;
    return aborted;
  };
  b.reset();
  assertEquals(write(MSR.VM_HSAVE_PA, 0x5000n), 0);
  assertEquals(cpu.system.readMsr(MSR.VM_HSAVE_PA) as unknown, 0x5000n);
  assertEquals([write(MSR.VM_HSAVE_PA, 0x5001n), write(MSR.VM_HSAVE_PA, 1n << 40n)], [1, 1]);
  assertEquals([write(MSR.TSC_RATIO, 0xff_ffff_ffffn), write(MSR.TSC_RATIO, 1n << 40n)], [0, 1]);
  // SVMDIS goes against SVME, both ways; the lock keeps it.
  assertEquals(write(MSR.VM_CR, 0x10n), 1);
  assertEquals(write(MSR.EFER, 0xd01n), 0);
  assertEquals([write(MSR.VM_CR, 0x18n), write(MSR.EFER, 0x1d01n)], [0, 1]);
  assertEquals([write(MSR.VM_CR, 0n), cpu.get("vmCr")], [0, 0x18n]);
  assertEquals(write(MSR.BRANCH_FROM, 0n), 1);
  // The other vendor has none of them.
  const { cpu: intel } = new Machine({ memory: 1 << 20, cpu: "intel" });
  intel.hooks.msr = () => false;
  intel.system.readMsr(MSR.VM_CR);
  assertEquals(intel.i32[0x1008 >> 2], 1);
});

Deno.test("the VMCB's table of fields has no overlaps and ends in its page", () => {
  const offsets = Object.values(VMCB).sort((x, y) => x - y);
  assertEquals(new Set(offsets).size, offsets.length);
  assertEquals(offsets.at(-1)! < 4096, true);
});

Deno.test("performance counters of the host's or the guest's events alone count each side's", () => {
  host(`nop\nmov eax, ${PLACE.vmcb}\nvmrun\nnop\nhlt`);
  b.write("intercepts1", INTERCEPT1.intr | INTERCEPT1.cpuid);
  b.load("mov edx, 1\ninc edx\njmp short on\non: inc edx\ncpuid");
  const all = BigInt(COUNT.enable | COUNT.user | COUNT.system | EVENT.instructions);
  const sides = [0, COUNT.host, COUNT.guest, COUNT.host | COUNT.guest];
  sides.forEach((side, n) => cpu.u64[(CPU.perfEvtSel0 >> 3) + n] = all | BigInt(side) << 32n);
  assertEquals(cpu.run(100), "halt");
  // NOP, MOV, VMRUN, NOP, HLT; four of the guest.
  assertEquals(sides.map((_, n) => cpu.u64[(CPU.perfCtr0 >> 3) + n]), [9n, 5n, 4n, 9n]);
});
