import { assertEquals } from "@std/assert";
import { EXIT_CODE } from "../../abi/x86/vmcb.ts";
import { CPU } from "../state.ts";
import { Bench, HOST, PLACE } from "./testing.ts";
import { STUB } from "./layout.ts";

const b = new Bench();
const RAX = 0, RBX = 3;

Deno.test("VMRUN runs a guest until its budget ends, and #VMEXIT saves it", () => {
  b.reset();
  b.load("mov eax, 0x1234\nmov ebx, 5\ninc ebx\njmp $");
  b.setGpr(RBX, 77);
  assertEquals(b.enter(3), EXIT_CODE.intr);
  assertEquals([b.gpr(RAX), b.gpr(RBX), b.read("rax")], [0x1234n, 6n, 0x1234n]);
  assertEquals(b.read("rip"), BigInt(PLACE.code + 11));
  assertEquals([b.read("nextRip"), b.exit(STUB.length)], [0n, 0]);
  const { cpu } = b;
  assertEquals([cpu.get("cr0"), cpu.get("cr4"), cpu.get("efer")], [HOST.cr0, HOST.cr4, HOST.efer]);
  assertEquals(cpu.i32[CPU.gif >> 2], 0);
});

Deno.test("an instruction that is intercepted leaves with its nRIP", () => {
  b.reset();
  b.set("intercepts1", 1 << 18);
  b.load("mov eax, 1\ncpuid\njmp $");
  assertEquals(b.enter(), EXIT_CODE.cpuid);
  assertEquals(b.read("rip"), BigInt(PLACE.code + 5));
  assertEquals([b.read("nextRip"), b.exit(STUB.length)], [BigInt(PLACE.code + 7), 2]);
  b.cpu.system.advanceGuest(2);
  assertEquals(b.enter(5), EXIT_CODE.intr);
});
