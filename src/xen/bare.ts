/** A guest on the processor itself: no hypervisor under it, the platform on the machine's buses. */
import { EFER } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import type { MachineBus } from "../machine/bus.ts";
import { ACTIVITY, CPU, V } from "../machine/state.ts";
import { SERVICE } from "../machine/linkage.ts";
import { ATTRIBUTE } from "../machine/system/segmentation/descriptor.ts";
import { noteQuiet, watchQuiet } from "./coprocessor.ts";
import { BLOCKED, BUDGET, Engine, OFFLINE, type PartEnd, SEEN } from "./engine.ts";
import type { Platform } from "./platform.ts";
import type { Vcpu } from "./vcpu.ts";

/** The motherboard as the processor finds it on its buses. */
const busOf = (platform: Platform, processor: number): MachineBus => {
  const port = platform.ports[processor];
  return {
    ioRead: (number, bytes) => platform.ioRead(number, bytes),
    ioWrite: (number, bytes, value) => platform.ioWrite(number, bytes, value),
    mmioRead: (address, bytes) => platform.mmioRead(address, bytes, processor),
    mmioWrite: (address, bytes, value) => platform.mmioWrite(address, bytes, value, processor),
    interruptPending: () => port.interruptPending(),
    acknowledge: () => port.acknowledge(),
    deadline: () => platform.deadline(),
    run: (now) => platform.run(now),
  };
};

/** Where an MSR's value is handed over (index of 64-bit words). */
const MSR_VALUE = V.value >> 3;

export class BareEngine extends Engine {
  constructor(vcpu: Vcpu) {
    super(vcpu);
    const { domain, cpu } = vcpu, platform = domain.platform!, port = vcpu.port!;
    cpu.bus = busOf(platform, vcpu.id);
    cpu.hooks.msr = (number, write) => {
      const { u64 } = cpu;
      if (write) {
        const done = port.writeMsr(number, u64[MSR_VALUE]);
        if (done && number === MSR.APIC_BASE) u64[CPU.apicBase >> 3] = u64[MSR_VALUE];
        return done;
      }
      const value = port.readMsr(number);
      if (value !== undefined) u64[MSR_VALUE] = value;
      return value !== undefined;
    };
    cpu.hooks.counterOverflow = () => port.counterOverflow();
    const { world } = domain.host;
    cpu.hooks.service = (number, argument) => {
      if (number === SERVICE.random) return world.randomFor(domain);
      if (number === SERVICE.priority) port.cr8 = argument;
      if (number === SERVICE.tsc) port.tscChanged();
      if (number === SERVICE.coprocessorQuiet) noteQuiet(cpu, platform);
      if (number !== SERVICE.coprocessorError) return 0;
      const ignored = platform.coprocessorError();
      watchQuiet(cpu, platform);
      return ignored ? 0 : 1;
    };
  }

  protected execute(budget: number): PartEnd {
    const { cpu } = this.vcpu;
    watchQuiet(cpu, this.domain.platform!);
    // A turn is time: port accesses take more of it than instructions.
    const stop = cpu.run(budget, Math.min(cpu.now + budget, this.vcpu.processor.until));
    switch (stop) {
      case "budget":
      case "stopped":
        return BUDGET;
      case "halt":
        return cpu.i32[CPU.activity >> 2] === ACTIVITY.waitForSipi ? OFFLINE : BLOCKED;
      case "shutdown":
        return { kind: "end", reason: "crash", detail: "triple fault" };
      case "breakpoint":
      case "watch":
        return SEEN[stop];
      default:
        throw new Error(`a bare machine stopped with "${stop}"`);
    }
  }

  get linearIp(): bigint {
    const { i32, u64 } = this.vcpu.cpu, rip = u64[CPU.rip >> 3], base = u64[CPU["cs.base"] >> 3];
    const long = i32[CPU.efer >> 2] & EFER.LMA && i32[CPU["cs.attributes"] >> 2] & ATTRIBUTE.long;
    return long ? rip : base + rip & 0xffff_ffffn;
  }
  readonly waiting = false;
  runnable(): boolean {
    const { cpu } = this.vcpu;
    // It may have been reset while it waited.
    return cpu.events.wakes || cpu.i32[CPU.activity >> 2] === ACTIVITY.active;
  }
  startUp(): boolean {
    const { cpu } = this.vcpu;
    return cpu.i32[CPU.activity >> 2] !== ACTIVITY.waitForSipi;
  }
  get tsc(): bigint {
    const { cpu } = this.vcpu;
    return BigInt(cpu.now) + cpu.get("tscAdjust");
  }
  get interruptible(): boolean {
    return this.vcpu.cpu.events.takesInterrupts;
  }
  protected attach(): void {}
  protected detach(): void {
    throw new Error("a bare machine has no hypervisor to take its processor away");
  }
  // Its guest's processor is the machine's, which has registered itself.
  register(): void {}
  quiesce(): void {}
  destroy(): void {}
}
