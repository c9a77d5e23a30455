/**
 * The 8042 keyboard controller with a PS/2 keyboard (IRQ 1) and mouse (IRQ 12).
 * Source: IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device
 * Controller; PC/AT Technical Reference.
 *
 * @module
 */
import {
  AMOUNT,
  type DeviceContext,
  DeviceModel,
  hex,
  type PortRange,
  type Ranges,
  type Size,
} from "./device.ts";
import { keyFor, scanCodes, translate } from "./keys.ts";
import {
  keyboardCommand,
  keyboardLimit,
  keyboardSend,
  type KeyboardState,
  mouseCommand,
  mouseMove,
  type MouseState,
  newKeyboard,
  newMouse,
} from "./ps2.ts";

/** State of {@linkcode I8042}. */
export interface I8042State {
  /** Controller memory, 32 bytes; byte 0 is the command byte. */
  ram: Uint8Array;
  /** Controller command whose parameter comes by port 60h; 0 if none. */
  command: number;
  /** The last write went to port 64h (status bit 3). */
  lastWasCommand: boolean;
  /** Self-test passed (status bit 2). */
  system: boolean;
  /** Output buffer: a byte, from the mouse if `aux`; `full` until port 60h is read. */
  data: number;
  full: boolean;
  aux: boolean;
  /** The controller's own answers: bytes, +100h when they appear as the mouse's. */
  answers: number[];
  /** Output port: bit 1 A20. */
  output: number;
  /** Translation saw F0h: the next code is a release. */
  release: boolean;
  keyboard: KeyboardState;
  mouse: MouseState;
  irq1: boolean;
  irq12: boolean;
}

/** How the controller is wired. */
export interface I8042Options {
  /** The reset line was pulsed. */
  readonly reset?: (cause: string) => void;
  /** The A20 gate changed. */
  readonly a20?: (enabled: boolean) => void;
}

const KEYBOARD_IRQ = 1, MOUSE_IRQ = 2, SYSTEM = 4, KEYBOARD_OFF = 0x10, MOUSE_OFF = 0x20;
const TRANSLATE = 0x40;

function stateAfterReset(): I8042State {
  const ram = new Uint8Array(32);
  // As firmware leaves it: keyboard on with its interrupt and translation, mouse off.
  ram[0] = KEYBOARD_IRQ | SYSTEM | MOUSE_OFF | TRANSLATE;
  return {
    ram,
    command: 0,
    lastWasCommand: false,
    system: true,
    data: 0,
    full: false,
    aux: false,
    answers: [],
    output: 0xcf,
    release: false,
    keyboard: newKeyboard(),
    mouse: newMouse(),
    irq1: false,
    irq12: false,
  };
}

/** Of the mouse, as long as it is not reported. */
const MOVEMENT = [-AMOUNT[1], AMOUNT[1]] as const;

/**
 * The keyboard controller at ports 60h and 64h.
 *
 * Bytes arrive without delay: as soon as the guest has read one, the next is there with a new
 * edge of its interrupt.
 */
export class I8042 extends DeviceModel<I8042State> {
  readonly name = "i8042";
  readonly version = 1;
  override readonly ranges: Ranges = {
    answers: [0, 0x1ff],
    set: [1, 2],
    resolution: [0, 3],
    dx: MOVEMENT,
    dy: MOVEMENT,
    dz: MOVEMENT,
  };
  readonly queues = ["answers", "queue", "knock"];
  override readonly ports: readonly PortRange[] = [[0x60, 0x60], [0x64, 0x64]];

  constructor(readonly context: DeviceContext, readonly options: I8042Options = {}) {
    super(stateAfterReset());
  }

  /**
   * Types text on a US keyboard.
   * @throws {RangeError} before anything is typed, when no key types one of the characters.
   */
  type(text: string): void {
    const strokes = [...text].map(keyFor);
    for (const { key, modifier } of strokes) {
      if (modifier) this.press(modifier);
      this.press(key);
      this.release(key);
      if (modifier) this.release(modifier);
    }
  }

  /** Presses a key, by a name of `keyCodes` such as `"a"`, `"Enter"`, `"F1"`. */
  press(key: string): void {
    this.key(key, true);
  }

  release(key: string): void {
    this.key(key, false);
  }

  /** Presses keys in order and releases them in reverse: `chord("Control", "Alt", "Delete")`. */
  chord(...keys: string[]): void {
    for (const key of keys) this.press(key);
    for (const key of keys.reverse()) this.release(key);
  }

  key(key: string, pressed: boolean): void {
    const { keyboard } = this.state;
    let bytes = scanCodes(key, pressed);
    if (keyboard.set === 1) bytes = toSet1(bytes);
    keyboardSend(keyboard, bytes);
    this.update();
  }

  /** Moves the mouse: counts right, up, wheel down; buttons: bit 0 left, 1 right, 2 middle. */
  move(dx: number, dy: number, buttons: number = this.state.mouse.buttons, wheel = 0): void {
    mouseMove(this.state.mouse, dx, dy, wheel, buttons);
    this.update();
  }

  get a20(): boolean {
    return (this.state.output & 2) !== 0;
  }
  /** There is one gate: somebody else has moved it. */
  set a20(open: boolean) {
    this.state.output = this.state.output & ~2 | (open ? 2 : 0);
  }

  read(port: number, _size: Size): number {
    const s = this.state;
    if (port === 0x64) {
      // Bit 4: the keyboard is not locked.
      return (s.full ? 1 : 0) | (s.system ? 4 : 0) | (s.lastWasCommand ? 8 : 0) | 0x10 |
        (s.full && s.aux ? 0x20 : 0);
    }
    const { data } = s;
    s.full = false;
    this.update(); // the next byte, if any, is there at once
    return data;
  }

  write(port: number, _size: Size, value: number): void {
    this.state.lastWasCommand = port === 0x64;
    if (port === 0x64) this.controllerCommand(value);
    else this.writeData(value);
    this.update();
  }

  writeData(value: number): void {
    const s = this.state;
    const command = s.command;
    s.command = 0;
    if (command >= 0x60 && command < 0x80) {
      s.ram[command & 31] = value;
      if (command === 0x60) s.system = (value & SYSTEM) !== 0;
    } else if (command === 0xd1) this.writeOutput(value);
    else if (command === 0xd2) s.answers.push(value);
    else if (command === 0xd3) s.answers.push(0x100 | value);
    else if (command === 0xd4) {
      s.ram[0] &= ~MOUSE_OFF;
      mouseCommand(s.mouse, value);
    } else {
      s.ram[0] &= ~KEYBOARD_OFF;
      keyboardCommand(s.keyboard, value);
    }
  }

  controllerCommand(value: number): void {
    const s = this.state;
    s.command = 0;
    if (value >= 0x20 && value < 0x40) {
      s.answers.push(s.ram[value & 31]);
    } else if (value >= 0x60 && value < 0x80) {
      s.command = value;
    } else if (value >= 0xf0) {
      // Pulses the output bits that are 0; bit 0 is the processor's reset.
      if (!(value & 1)) this.options.reset?.(`port 64h, command ${hex(value)}h`);
    } else {
      this.namedCommand(value);
    }
  }

  namedCommand(value: number): void {
    const s = this.state;
    switch (value) {
      case 0xa4: // is there a password?
        s.answers.push(0xf1);
        return;
      case 0xa7:
        s.ram[0] |= MOUSE_OFF;
        return;
      case 0xa8:
        s.ram[0] &= ~MOUSE_OFF;
        return;
      case 0xa9: // test of the mouse's port
      case 0xab: // and of the keyboard's
        s.answers.push(0);
        return;
      case 0xaa: // self-test
        s.system = true;
        s.ram[0] |= KEYBOARD_OFF | MOUSE_OFF | SYSTEM;
        s.full = false;
        s.answers = [0x55];
        return;
      case 0xad:
        s.ram[0] |= KEYBOARD_OFF;
        return;
      case 0xae:
        s.ram[0] &= ~KEYBOARD_OFF;
        return;
      case 0xc0: // input port: not locked, colour display
        s.answers.push(0xb0);
        return;
      case 0xd0:
        s.answers.push(s.output & 0xcf | (s.irq1 ? 0x10 : 0) | (s.irq12 ? 0x20 : 0));
        return;
      case 0xd1:
      case 0xd2:
      case 0xd3:
      case 0xd4:
        s.command = value;
        return;
      case 0xdd:
      case 0xdf:
        this.writeOutput(value === 0xdf ? s.output | 2 : s.output & ~2);
        return;
      case 0xe0: // test inputs: both clocks high
        s.answers.push(3);
    }
  }

  writeOutput(value: number): void {
    const changed = value ^ this.state.output;
    this.state.output = value;
    if (changed & 2) this.options.a20?.((value & 2) !== 0);
    if (!(value & 1)) this.options.reset?.("port 64h, output port bit 0");
  }

  /** Fills the output buffer from who has something to say, and drives the interrupts. */
  update(): void {
    const s = this.state;
    while (!s.full && this.next());
    // What nobody reads is lost, the oldest first.
    for (const queue of [s.answers, s.keyboard.queue, s.mouse.queue]) {
      if (queue.length > keyboardLimit) queue.splice(0, queue.length - keyboardLimit);
    }
    this.drive(1, "irq1", s.full && !s.aux && (s.ram[0] & KEYBOARD_IRQ) !== 0);
    this.drive(12, "irq12", s.full && s.aux && (s.ram[0] & MOUSE_IRQ) !== 0);
  }

  drive(line: number, which: "irq1" | "irq12", level: boolean): void {
    // Between two bytes the line falls, so that each has its edge.
    if (this.state[which] === level) return;
    this.state[which] = level;
    this.context.irq(line, level);
  }

  /** Takes one byte; false when there is none. */
  next(): boolean {
    const s = this.state;
    const { keyboard, mouse } = s;
    if (s.answers.length > 0) {
      const answer = s.answers.shift()!;
      this.put(answer & 0xff, answer > 0xff);
    } else if (keyboard.queue.length > 0 && !(s.ram[0] & KEYBOARD_OFF)) {
      keyboard.last = keyboard.queue.shift()!;
      this.fromKeyboard(keyboard.last);
    } else if (mouse.queue.length > 0 && !(s.ram[0] & MOUSE_OFF)) {
      mouse.last = mouse.queue.shift()!;
      this.put(mouse.last, true);
    } else {
      return false;
    }
    return true;
  }

  fromKeyboard(byte: number): void {
    const s = this.state;
    if (!(s.ram[0] & TRANSLATE)) return this.put(byte, false);
    if (byte === 0xf0) {
      s.release = true;
      return;
    }
    this.put(translate(byte) | (s.release ? 0x80 : 0), false);
    s.release = false;
  }

  put(byte: number, aux: boolean): void {
    Object.assign(this.state, { data: byte, full: true, aux });
    this.drive(1, "irq1", false);
    this.drive(12, "irq12", false);
  }

  reset(): void {
    const { irq1, irq12 } = this.state;
    this.state = { ...stateAfterReset(), irq1, irq12 };
    this.update();
  }

  show(): string {
    const s = this.state;
    return [
      `i8042: command byte ${hex(s.ram[0])}, output ${s.full ? hex(s.data) : "empty"}` +
      `${s.full && s.aux ? " (mouse)" : ""}, A20 ${s.output >> 1 & 1}`,
      `  keyboard: set ${s.keyboard.set}, ${s.keyboard.scanning ? "scanning" : "stopped"}, ` +
      `LEDs ${s.keyboard.leds}, bytes waiting ${s.keyboard.queue.length}`,
      `  mouse: id ${s.mouse.id}, ${s.mouse.reporting ? "reporting" : "stopped"}, ` +
      `${s.mouse.rate}/s, bytes waiting ${s.mouse.queue.length}`,
    ].join("\n");
  }
}

/** A key's codes of set 2 as set 1, for a keyboard switched to it. */
function toSet1(bytes: readonly number[]): number[] {
  const release = bytes.includes(0xf0) ? 0x80 : 0;
  return bytes.filter((byte) => byte !== 0xf0).map((byte) =>
    byte === 0xe0 ? byte : translate(byte) | release
  );
}
