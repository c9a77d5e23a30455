import { assertEquals } from "@std/assert";
import { PciConfig } from "./pci.ts";
import { checkSaveLoad } from "./testing.ts";

Deno.test("PciConfig keeps its address and answers all ones without a bus", () => {
  const pci = new PciConfig();
  pci.write(0xcf8, 4, 0x80000000);
  assertEquals(pci.read(0xcf8, 4), 0x80000000);
  pci.write(0xcf8, 1, 0x01);
  assertEquals(pci.read(0xcf8, 4), 0x80000000, "only 32-bit accesses count");
  assertEquals([pci.read(0xcfc, 4), pci.read(0xcfe, 2), pci.read(0xcff, 1)], [
    0xffffffff,
    0xffff,
    0xff,
  ]);
  checkSaveLoad(() => new PciConfig(), { rounds: 3 });
});

Deno.test("PciConfig names bus, device, function and register to its bus", () => {
  const calls: number[][] = [];
  const pci = new PciConfig({
    read: (...args) => (calls.push(args), 0x1234),
    write: (...args) => void calls.push(args),
  });
  pci.write(0xcf8, 4, 0x80000000 | 2 << 16 | 3 << 11 | 5 << 8 | 0x40);
  assertEquals(pci.read(0xcfe, 2), 0x1234);
  pci.write(0xcfd, 1, 7);
  pci.write(0xcf8, 4, 0);
  assertEquals(pci.read(0xcfc, 4), 0xffffffff, "not enabled");
  assertEquals(calls, [[2, 3, 5, 0x42, 2], [2, 3, 5, 0x41, 1, 7]]);
});
