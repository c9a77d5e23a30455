/**
 * A device in a script: it adds. Two values are written to its ports, and their sum is read: three
 * registers of four bytes from port 300h on. The guest is a few instructions made here.
 *
 * `deno task xvm run scripts/device.ts`
 *
 * @module
 */
import { Hypervisor } from "xvm";
import { assemble } from "../src/machine/isa/encode.ts";

// A multiboot kernel: writes 1234 and 4321, reads the sum, and sends it to the debug port.
const { bytes: kernel } = assemble(`
  bits 32
  org 0x100000
  header: dd 0x1badb002, 0x10000, ${-(0x1badb002 + 0x10000) >>> 0}
  dd header, header, 0, 0, start
  start:
    mov dx, 0x300
    mov eax, 1234
    out dx, eax
    mov dx, 0x304
    mov eax, 4321
    out dx, eax
    mov dx, 0x308
    in eax, dx
    mov ebx, eax
    hlt
`);

await using hv = await Hypervisor.start();
const dom = await hv.createDomain({ name: "adder", kernel, memory: "16M" });

const operands = [0, 0];
dom.ioreq.serve({ port: [0x300, 0x30b] }, {
  write(port, value) {
    console.log(`port 0x${port.toString(16)} <- ${value}`);
    operands[(port - 0x300) / 4] = value;
  },
  // The answer may take its time: the guest waits.
  async read(port) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    const sum = operands[0] + operands[1];
    console.log(`port 0x${port.toString(16)} -> ${sum}`);
    return sum;
  },
});

const stop = await dom.until("hlt");
console.log(`the guest has ebx = ${stop.regs.ebx}`);
console.log(dom.exits);
