import { assertEquals } from "@std/assert";
import { FwCfg } from "./fw_cfg.ts";
import { checkSaveLoad } from "./testing.ts";

Deno.test("FwCfg gives what kvm-unit-tests reads", () => {
  const fw = new FwCfg({ memory: 0x1_8000_0000, cpus: 3 });
  const item = (selector: number, length: number) => {
    fw.write(0x510, 2, selector);
    return Array.from({ length }, () => fw.read(0x511, 1));
  };
  assertEquals(String.fromCharCode(...item(0, 4)), "QEMU");
  assertEquals(item(1, 4), [1, 0, 0, 0]);
  assertEquals(item(3, 9), [0, 0, 0, 0x80, 1, 0, 0, 0, 0]);
  assertEquals(item(5, 2), [3, 0]);
  assertEquals(item(0x7777, 2), [0, 0]);
  checkSaveLoad(() => new FwCfg({ memory: 1 << 20 }), { rounds: 3 });
});
