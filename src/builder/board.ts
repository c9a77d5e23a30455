/**
 * The motherboard of a guest: devices wired to each other, to the interrupt controllers and to the
 * domain. Here `devices` and `xen` meet, and nowhere else.
 */
import { Acpi } from "../devices/acpi.ts";
import { Bus } from "../devices/bus.ts";
import { Coprocessor } from "../devices/coprocessor.ts";
import { DebugPorts } from "../devices/debug.ts";
import type { Device, DeviceContext, Size } from "../devices/device.ts";
import { FwCfg } from "../devices/fw_cfg.ts";
import { I8042 } from "../devices/i8042.ts";
import { PciConfig } from "../devices/pci.ts";
import { Pic } from "../devices/pic.ts";
import { Pit } from "../devices/pit.ts";
import { Rtc } from "../devices/rtc.ts";
import { serialPorts, Uart } from "../devices/uart.ts";
import { Vga } from "../devices/vga.ts";
import { type E820Range, encodeE820 } from "./e820.ts";
import { ioApicId } from "./interrupts.ts";
import { ProcessorPort } from "./port.ts";
import { IoApic } from "../machine/apic/io.ts";
import { LocalApic } from "../machine/apic/local.ts";
import { ApicBus } from "../machine/apic/messages.ts";
import { like } from "../machine/shape.ts";
import type { StateRegister } from "../machine/state_block.ts";
import { checkProcessors } from "../machine/topology.ts";
import type { Platform, PlatformEvents } from "../xen/platform.ts";

export interface BoardOptions {
  /** Seconds since 1970 at guest time 0. */
  readonly unixTime: number;
  /** Bytes of guest memory, for CMOS and fw_cfg. */
  readonly memory: number;
  readonly vcpus: number;
  /** The guest begins with firmware of its own, which tells its doings at port 402h. */
  readonly firmware?: boolean;
  /** The memory map, for fw_cfg. */
  readonly e820: readonly E820Range[];
  /** I/O ports whose bytes are console text: E9h, and 12h for test suites of Xen. */
  readonly consolePorts?: readonly number[];
}

/**
 * Nanoseconds of a port access: an ISA bus cycle. Guests count loops of port reads against timers;
 * with accesses that take no time they would make millions of them.
 */
const PORT_TIME = 1000;

/** The debug console of Bochs, and SeaBIOS's. */
const CONSOLE_PORT = 0xe9, FIRMWARE_PORT = 0x402;
/** Address bit 20. */
const A20 = 2 ** 20;

export class Board implements Platform {
  readonly bus: Bus = new Bus();
  readonly pic: Pic;
  readonly pit: Pit;
  readonly rtc: Rtc;
  readonly coprocessor: Coprocessor;
  readonly com1: Uart;
  readonly keyboard: I8042;
  readonly vga: Vga;
  readonly debug: DebugPorts;
  readonly acpi: Acpi;
  readonly localApics: readonly LocalApic[];
  readonly ioApic: IoApic;
  readonly ports: readonly ProcessorPort[];
  #deadline: number | undefined;

  constructor(readonly events: PlatformEvents, readonly options: BoardOptions) {
    const reschedule = () => {
      this.#deadline = undefined;
      events.changed();
    };
    const reset = (cause: string) => events.end("reset", cause);
    checkProcessors(options.vcpus);
    const bus = new ApicBus();
    this.localApics = Array.from(
      { length: options.vcpus },
      (_, processor) => makeLocalApic({ processor, bus, events, reschedule, reset }),
    );
    const [first] = this.localApics;
    this.ioApic = new IoApic({ id: ioApicId(options.vcpus), bus });
    this.pic = new Pic({ intr: (level) => first.setLint(0, level) });
    this.ports = this.localApics.map((local) => new ProcessorPort(local, this));
    const context: DeviceContext = {
      now: events.now,
      reschedule,
      irq: (line, level) => this.setLine(line, level),
    };
    const { output } = events;
    const nmi = () => {
      const level = this.pit.nmi && !this.rtc.state.nmiMasked;
      for (const local of this.localApics) local.setLint(1, level);
    };
    this.pit = new Pit(context, { nmi });
    this.rtc = new Rtc(context, {
      unixTime: options.unixTime,
      memory: options.memory,
      cpus: options.vcpus,
      nmiMask: nmi,
    });
    this.coprocessor = new Coprocessor(context);
    this.com1 = new Uart(context, { ...serialPorts.com1, output });
    // One gate, moved by either of two controllers; it is as the last one said.
    const a20 = (open: boolean) => {
      this.keyboard.a20 = this.acpi.a20 = open;
      events.a20(open);
    };
    this.keyboard = new I8042(context, { reset, a20 });
    this.vga = new Vga(context);
    this.debug = new DebugPorts({
      output,
      consolePorts: [
        ...options.consolePorts ?? [CONSOLE_PORT],
        ...options.firmware ? [FIRMWARE_PORT] : [],
      ],
      exit: (status) => events.end("exit", `status ${status}`),
      post: events.post,
    });
    this.acpi = new Acpi(context, {
      powerOff: () => events.end("poweroff", "ACPI S5"),
      reset,
      a20,
    });
    for (
      const device of [
        this.pic,
        this.pit,
        this.rtc,
        this.coprocessor,
        this.com1,
        this.keyboard,
        this.vga,
        this.debug,
        new FwCfg({
          memory: options.memory,
          cpus: options.vcpus,
          files: { "etc/e820": encodeE820(options.e820) },
        }),
        this.acpi,
        new PciConfig(),
        this.ioApic,
        ...this.localApics,
      ]
    ) this.bus.attach(device as Parameters<Bus["attach"]>[0]);
    first.virtualWire();
  }

  ioRead(port: number, bytes: number): number {
    this.events.stall(PORT_TIME);
    return this.bus.read(port, bytes as Size);
  }
  ioWrite(port: number, bytes: number, value: number): void {
    this.events.stall(PORT_TIME);
    this.bus.write(port, bytes as Size, value);
  }
  /** What the A20 gate leaves of an address. */
  #gated(address: number): number {
    return this.acpi.a20 || Math.floor(address / A20) % 2 === 0 ? address : address - A20;
  }
  mmioRead(address: number, bytes: number, processor: number): number {
    return this.bus.mmioRead(this.#gated(address), bytes as Size, processor);
  }
  mmioWrite(address: number, bytes: number, value: number, processor: number): void {
    this.bus.mmioWrite(this.#gated(address), bytes as Size, value, processor);
  }

  coprocessorError(): boolean {
    return this.coprocessor.raise();
  }
  coprocessorQuiet(): void {
    this.coprocessor.quiet();
  }
  get coprocessorPending(): boolean {
    return this.coprocessor.state.error;
  }

  setLine(gsi: number, level: boolean): void {
    if (gsi < 16) this.pic.setLine(gsi, level);
    this.ioApic.setIrq(gsi, level);
    this.events.changed();
  }
  deadline(): number {
    return this.#deadline ??= this.bus.deadline();
  }
  run(now: number): void {
    this.bus.run(now);
    this.#deadline = undefined;
  }
  input(bytes: Uint8Array): void {
    this.com1.receive(bytes);
  }
  reset(): void {
    this.bus.reset();
    this.localApics[0].virtualWire();
    this.events.a20(this.acpi.a20);
    this.#deadline = undefined;
  }
  /**
   * The chips as the guest would find them now, timers and all that is due included: a copy, of which
   * nobody hears.
   */
  copy(): Board {
    const { events: { timeOfTsc, has }, options, bus } = this, now = this.events.now();
    const silent = () => {};
    const copy = new Board({
      now: () => now,
      timeOfTsc,
      has,
      changed: silent,
      stall: silent,
      output: silent,
      end: silent,
      post: silent,
      a20: silent,
      signalled: silent,
      priority: silent,
    }, options);
    const { devices } = copy.bus;
    for (const device of devices) device.state = structuredClone(bus.get(device.name).state);
    copy.run(now);
    for (const device of devices) device.run(now);
    return copy;
  }
  register(blocks: StateRegister): void {
    for (const device of this.bus.devices) {
      const { name, version } = device;
      blocks.register<Device["state"]>({
        name,
        version,
        shape: like(device),
        save: () => device.state,
        load: (state) => {
          device.state = state;
          this.#deadline = undefined;
        },
      });
    }
  }
}

/** A processor's local APIC; its APIC id is its number. */
function makeLocalApic({ processor, bus, events, reschedule, reset }: {
  readonly processor: number;
  readonly bus: ApicBus;
  readonly events: PlatformEvents;
  readonly reschedule: () => void;
  readonly reset: (cause: string) => void;
}): LocalApic {
  const timeOfTsc = (tsc: bigint) => events.timeOfTsc(tsc, processor);
  return new LocalApic({
    now: events.now,
    reschedule,
    changed: () => events.changed(processor),
    signal: (kind) => {
      // No firmware is there to handle an SMI. The bootstrap processor's INIT is a reset: it begins
      // anew at the reset vector (SDM 3A 9.4.2).
      if (kind === "init" && processor === 0) reset("INIT");
      else if (kind !== "smi") events.signalled(processor);
    },
    priority: (cr8) => events.priority(cr8, processor),
    get timeOfTsc() {
      return events.has("tsc_deadline_timer") ? timeOfTsc : undefined;
    },
  }, {
    id: processor,
    processor,
    bus,
    get x2apic() {
      return events.has("x2apic");
    },
  });
}
