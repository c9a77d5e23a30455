/**
 * The registers of a motherboard's chips, by the names of their data sheets: see visible.ts.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { MSR } from "../../abi/x86/msr.ts";
import type { Board } from "../../builder/board.ts";
import type { FwCfg } from "../../devices/fw_cfg.ts";
import type { PciConfig } from "../../devices/pci.ts";
import type { PicChip } from "../../devices/pic.ts";
import type { PitCounter } from "../../devices/pit.ts";
import type { LocalApic } from "../../machine/apic/local.ts";
import { lvtNames, register } from "../../machine/apic/registers.ts";
import { ioApicPins } from "../../machine/apic/io.ts";

/** A part of what a guest can see, in lines: an item's name, a blank, its value. */
export interface VisibleSection {
  /** "time", "registers", "events", "msrs", "float", "console", or a device's name. */
  readonly name: string;
  /** What there is to see of it, one thing a line. */
  readonly lines: readonly string[];
}

type Value = number | bigint | boolean | string | readonly number[] | Uint8Array;
type Items = Readonly<Record<string, Value>>;

/** Bytes as digits: all of them if they are few, else the first 64 bits of their SHA-256. */
export const hexOf = (bytes: Uint8Array): string =>
  bytes.length <= 64
    ? bytes.toHex()
    : createHash("sha256").update(bytes).digest("hex").slice(0, 16);

function textOf(value: Value): string {
  if (value instanceof Uint8Array) return `${value.length} bytes ${hexOf(value)}`;
  if (typeof value === "object") return value.map((v) => v.toString(16)).join(" ");
  return typeof value === "boolean" ? String(+value) : value.toString(16);
}

const prefixed = (prefix: string, items: Items): Items =>
  Object.fromEntries(Object.entries(items).map(([name, value]) => [`${prefix} ${name}`, value]));

/** A section for each chip of a board, as the guest would find it now; the board stays as it is. */
export function chipSections(board: Board): VisibleSection[] {
  const now = board.copy();
  const sections = [
    ...Object.entries(CHIPS).map(([name, items]) => ({ name, items: items(now) })),
    ...now.localApics.map((local) => ({ name: local.name, items: localApicItems(local) })),
  ].map(({ name, items }) => ({
    name,
    lines: Object.entries(items).map(([item, value]) => `${item} ${textOf(value)}`),
  }));
  const unlisted = now.bus.devices.find(({ name }) => !sections.some((s) => s.name === name));
  if (unlisted) throw new Error(`no registers are listed of the device ${unlisted.name}`);
  return sections;
}

/** Registers of the MC146818 (data sheet, figure 12); behind them is memory. */
const RTC = [
  "seconds",
  "seconds alarm",
  "minutes",
  "minutes alarm",
  "hours",
  "hours alarm",
  "day of week",
  "date",
  "month",
  "year",
  "A",
  "B",
  "C",
  "D",
] as const;

/** By the device's name. Ports may be read: the board is a copy. */
const CHIPS: Readonly<Record<string, (board: Board) => Items>> = {
  pic: ({ pic }) => ({
    ...prefixed("master", i8259(pic.state.chips[0])),
    ...prefixed("slave", i8259(pic.state.chips[1])),
    INT: pic.intr,
  }),

  pit: ({ pit }) => {
    const counters = pit.state.counters.map((c, n) =>
      prefixed(`counter ${n}`, { ...i8254(c), CE: pit.count(n), OUT: pit.output(n) })
    );
    return { ...Object.assign({}, ...counters), "port 61h": pit.read(0x61, 1) };
  },

  rtc: ({ rtc }) => {
    const { index, nmiMasked, memory, nextSecond, period, irq } = rtc.state;
    return {
      index,
      "NMI mask": nmiMasked,
      ...Object.fromEntries(RTC.map((name, n) => [name, memory[n]])),
      RAM: memory.subarray(RTC.length),
      UIP: rtc.updating(),
      "next update": nextSecond,
      "periodic events": period,
      IRQ: irq,
    };
  },

  coprocessor: ({ coprocessor: { state: { error, irq, ignore } } }) => ({
    "FERR#": error,
    "IRQ 13": irq,
    "IGNNE#": ignore,
  }),

  com1: ({ com1 }) => {
    const s = com1.state;
    return {
      IER: s.ier,
      IIR: com1.pending(),
      FCR: s.fcr,
      LCR: s.lcr,
      MCR: s.mcr,
      LSR: com1.lineStatus(),
      MSR: s.msr,
      SCR: s.scratch,
      "DLM, DLL": s.divisor,
      "receiver FIFO": s.fifo,
      "on the line": s.queue,
      "THRE interrupt": s.thrEmpty,
      timeout: s.timeout,
      "timeout at": s.timeoutAt,
      INTR: s.irq,
    };
  },

  i8042: ({ keyboard: controller }) => {
    const s = controller.state, { keyboard, mouse } = s;
    return {
      RAM: s.ram,
      status: controller.read(0x64, 1),
      "output buffer": s.data,
      "output port": s.output,
      command: s.command,
      answers: s.answers,
      "release seen": s.release,
      "IRQ 1": s.irq1,
      "IRQ 12": s.irq12,
      ...prefixed("keyboard", {
        buffer: keyboard.queue,
        command: keyboard.command,
        scanning: keyboard.scanning,
        "scan code set": keyboard.set,
        LEDs: keyboard.leds,
        "typematic rate": keyboard.rate,
        "last byte": keyboard.last,
      }),
      ...prefixed("mouse", {
        buffer: mouse.queue,
        command: mouse.command,
        reporting: mouse.reporting,
        remote: mouse.remote,
        wrap: mouse.wrap,
        scaling: mouse.scaling,
        resolution: mouse.resolution,
        "sample rate": mouse.rate,
        "last sample rates": mouse.knock,
        id: mouse.id,
        buttons: mouse.buttons,
        // Movement may be below zero.
        movement: `${mouse.dx} ${mouse.dy} ${mouse.dz}`,
        "last byte": mouse.last,
      }),
    };
  },

  vga: ({ vga: { state: s } }) => ({
    memory: s.memory,
    "miscellaneous output": s.misc,
    "feature control": s.feature,
    "sequencer index": s.sequencerIndex,
    sequencer: s.sequencer,
    "graphics index": s.graphicsIndex,
    graphics: s.graphics,
    "CRTC index": s.crtcIndex,
    CRTC: s.crtc,
    "attribute index": s.attributeIndex,
    attribute: s.attribute,
    "attribute flip-flop": s.attributeData,
    "PEL mask": s.dacMask,
    "PEL read address": s.dacRead,
    "PEL write address": s.dacWrite,
    "PEL colour": s.dacColour,
    "DAC state": s.dacReading,
    PEL: s.palette,
  }),

  debug: ({ debug: { state: { post, posts, exit } } }) => ({
    POST: post,
    "POST codes": posts,
    "exit status": exit,
  }),

  fw_cfg: ({ bus }) => {
    const { selector, offset, items } = (bus.get("fw_cfg") as FwCfg).state;
    const contents = Object.entries(items).map(([n, bytes]) => [`item ${n}`, bytes]);
    return { selector, offset, ...Object.fromEntries(contents) };
  },

  acpi: ({ acpi }) => {
    const s = acpi.state;
    return {
      PM1_STS: s.status,
      PM1_EN: s.enable,
      PM1_CNT: s.control,
      PM_TMR: acpi.timer,
      SMI_CMD: s.command,
      APM_STS: s.commandStatus,
      RST_CNT: s.resetControl,
      "port 92h": s.port92,
      SLP_TYP: s.slept,
      SCI: s.sci,
    };
  },

  pci: ({ bus }) => ({ CONFIG_ADDRESS: (bus.get("pci") as PciConfig).state.address }),

  ioapic: ({ ioApic }) => ({
    IOREGSEL: ioApic.state.select,
    IOAPICID: ioApic.readRegister(0),
    IOAPICVER: ioApic.readRegister(1),
    ...Object.fromEntries(
      Array.from({ length: ioApicPins }, (_, pin) => [
        `IOREDTBL${pin}`,
        [ioApic.readRegister(0x11 + 2 * pin), ioApic.readRegister(0x10 + 2 * pin)],
      ]),
    ),
    pins: ioApic.state.lines,
  }),
};

/** Of a local APIC. */
function localApicItems(local: LocalApic): Items {
  const s = local.state, read = (n: number) => local.readRegister(n) ?? "none";
  return {
    APIC_BASE: local.readMsr(MSR.APIC_BASE) ?? "#GP",
    TSC_DEADLINE: local.readMsr(MSR.TSC_DEADLINE) ?? "#GP",
    ID: read(register.id),
    version: read(register.version),
    TPR: read(register.tpr),
    PPR: read(register.ppr),
    LDR: read(register.ldr),
    DFR: read(register.dfr),
    SVR: read(register.svr),
    ISR: s.isr,
    TMR: s.tmr,
    IRR: s.irr,
    ESR: read(register.esr),
    "errors since": s.errors,
    ICR: [s.icrHigh, s.icrLow],
    ...Object.fromEntries(lvtNames.map((name, n) => [`LVT ${name}`, s.lvt[n]])),
    "initial count": read(register.initialCount),
    "current count": read(register.currentCount),
    "divide configuration": read(register.divide),
    "timer due": s.timerNext,
    LINT: s.lint.map(Number),
    ExtINT: s.extInt,
    // To the bootstrap processor neither comes: INIT is a reset.
    ...s.bootstrap ? {} : { INIT: s.signals.init, "start-up": s.signals.startup },
  };
}

/** Of each 8259A: registers, initialization and operation command words. */
const i8259 = (c: PicChip): Items => ({
  IR: c.lines,
  IRR: c.irr,
  IMR: c.imr,
  ISR: c.isr,
  ELCR: c.elcr,
  ICW1: c.icw1,
  ICW2: c.base,
  ICW3: c.cascade,
  ICW4: c.icw4,
  "next ICW": c.step,
  "lowest priority": c.lowest,
  "rotate in AEOI mode": c.rotateOnAutoEoi,
  "special mask": c.specialMask,
  poll: c.poll,
  "read ISR": c.readIsr,
});

/** Of each counter of the 8254: control word, count register, latches, and where its bytes stand. */
const i8254 = (c: PitCounter): Items => ({
  M: c.mode,
  BCD: c.bcd,
  RW: c.access,
  CR: c.reload,
  "next CR": c.next,
  "CR at": c.next ? c.renewAt : 0,
  "first byte": c.low,
  "high byte next": c.readHigh,
  OL: c.latch,
  "status latch": c.status,
  GATE: c.gate,
  counting: c.armed,
});
