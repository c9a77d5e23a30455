/**
 * A device in a script: at ports 300h to 303h it adds. Two values are written, and their sum is read.
 * The guest is a few instructions made here.
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
    mov dx, 0x301
    mov eax, 4321
    out dx, eax
    mov dx, 0x302
    in eax, dx
    mov ebx, eax
    hlt
`);

await using hv = await Hypervisor.start();
const dom = await hv.createDomain({ name: "adder", kernel, memory: "16M" });

const operands = [0, 0];
dom.ioreq.serve({ port: [0x300, 0x303] }, {
  write(port, value) {
    console.log(`port 0x${port.toString(16)} <- ${value}`);
    operands[port - 0x300] = value;
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
