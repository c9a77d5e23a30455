/**
 * The two devices behind the 8042: what a keyboard and a mouse answer to commands.
 * Source: IBM PS/2 Hardware Interface Technical Reference, Keyboards, and Mouse; the wheel: as
 * Microsoft's IntelliMouse, id 3 after sample rates 200, 100, 80.
 *
 * @module
 */

/** State of a keyboard. */
export interface KeyboardState {
  /** Bytes to send, in the selected scan code set. */
  queue: number[];
  /** Command whose parameter is expected; 0 if none. */
  command: number;
  scanning: boolean;
  /** 1 or 2. */
  set: number;
  leds: number;
  rate: number;
  /** The last byte sent, for RESEND. */
  last: number;
}

/** State of a mouse. */
export interface MouseState {
  queue: number[];
  command: number;
  reporting: boolean;
  remote: boolean;
  wrap: boolean;
  /** 2:1 scaling of reported movement. */
  scaling: boolean;
  resolution: number;
  rate: number;
  /** The last three sample rates set, the newest last. */
  knock: number[];
  /** 0 three buttons, 3 with a wheel. */
  id: number;
  buttons: number;
  /** Movement not yet reported. */
  dx: number;
  dy: number;
  dz: number;
  last: number;
}

const ACK = 0xfa, RESEND = 0xfe;
/** A keyboard's buffer holds 16 bytes; ours a script's typing. */
export const keyboardLimit = 4096;
const mouseLimit = 256;

/** A keyboard after power-on. */
export function newKeyboard(): KeyboardState {
  return { queue: [], command: 0, scanning: true, set: 2, leds: 0, rate: 0x2b, last: 0 };
}

/** A mouse after power-on. */
export function newMouse(): MouseState {
  return {
    queue: [],
    command: 0,
    reporting: false,
    remote: false,
    wrap: false,
    scaling: false,
    resolution: 2,
    rate: 100,
    knock: [],
    id: 0,
    buttons: 0,
    dx: 0,
    dy: 0,
    dz: 0,
    last: 0,
  };
}

/** Queues the codes of a key, if the keyboard is scanning and they all fit. */
export function keyboardSend(k: KeyboardState, bytes: readonly number[]): void {
  if (k.scanning && k.queue.length + bytes.length <= keyboardLimit) k.queue.push(...bytes);
}

/** A byte from the system to the keyboard. */
export function keyboardCommand(k: KeyboardState, value: number): void {
  // A command byte while a parameter is awaited is a new command.
  if (k.command !== 0 && value < 0xed) return keyboardParameter(k, value);
  k.command = 0;
  switch (value) {
    case 0xed: // LEDs
    case 0xf0: // scan code set
    case 0xf3: // typematic rate and delay
      k.command = value;
      k.queue.push(ACK);
      return;
    case 0xee:
      k.queue.push(0xee);
      return;
    case 0xf2:
      k.queue.push(ACK, 0xab, 0x83);
      return;
    case 0xf4:
      k.queue = [ACK];
      k.scanning = true;
      return;
    case 0xf5:
    case 0xf6:
      Object.assign(k, newKeyboard(), { scanning: value === 0xf6, last: k.last, queue: [ACK] });
      return;
    case 0xfe:
      k.queue.unshift(k.last);
      return;
    case 0xff: // reset, and the basic assurance test passed
      Object.assign(k, newKeyboard(), { queue: [ACK, 0xaa] });
      return;
  }
  // F7h to FDh set key types of scan code set 3 and need nothing here.
  k.queue.push(value >= 0xf7 && value <= 0xfa ? ACK : RESEND);
}

function keyboardParameter(k: KeyboardState, value: number): void {
  const command = k.command;
  k.command = 0;
  if (command === 0xed) k.leds = value & 7;
  else if (command === 0xf3) k.rate = value & 0x7f;
  else if (value === 0) k.queue.push(ACK, k.set);
  else if (value > 2) k.queue.push(RESEND); // there is no set 3 here
  else k.set = value;
  if (!(command === 0xf0 && (value === 0 || value > 2))) k.queue.push(ACK);
}

/** A byte from the system to the mouse. */
export function mouseCommand(m: MouseState, value: number): void {
  if (m.wrap && value !== 0xff && value !== 0xec) {
    m.queue.push(value);
    return;
  }
  if (m.command !== 0) return mouseParameter(m, value);
  if (value < 0xe6) {
    m.queue.push(RESEND);
    return;
  }
  m.queue = [ACK];
  switch (value) {
    case 0xe6:
    case 0xe7:
      m.scaling = value === 0xe7;
      return;
    case 0xe8: // resolution
    case 0xf3: // sample rate
      m.command = value;
      return;
    case 0xe9:
      m.queue.push(mouseStatus(m), m.resolution, m.rate);
      return;
    case 0xeb:
      mouseReport(m);
      return;
    case 0xea:
    case 0xf0:
      m.remote = value === 0xf0;
      return;
    case 0xec:
    case 0xee:
      m.wrap = value === 0xee;
      return;
    case 0xf2:
      m.queue.push(m.id);
      return;
    case 0xf4:
    case 0xf5:
      m.reporting = value === 0xf4;
      m.dx = m.dy = m.dz = 0;
      return;
    case 0xf6:
      Object.assign(m, newMouse(), { queue: [ACK], id: m.id, knock: m.knock, buttons: m.buttons });
      return;
    case 0xfe:
      m.queue = [m.last];
      return;
    case 0xff:
      Object.assign(m, newMouse(), { queue: [ACK, 0xaa, 0], buttons: m.buttons });
      return;
  }
  m.queue = [RESEND];
}

function mouseParameter(m: MouseState, value: number): void {
  const command = m.command;
  m.command = 0;
  m.queue.push(ACK);
  if (command === 0xe8) {
    m.resolution = value & 3;
    return;
  }
  m.rate = value;
  m.knock = [...m.knock, value].slice(-3);
  if (m.knock.join() === "200,100,80") m.id = 3;
}

function mouseStatus(m: MouseState): number {
  const { buttons } = m;
  return (m.remote ? 0x40 : 0) | (m.reporting ? 0x20 : 0) | (m.scaling ? 0x10 : 0) |
    (buttons & 1) << 2 | (buttons & 4) >> 1 | (buttons & 2) >> 1;
}

/** Movement right, up and wheel down, and buttons (bit 0 left, 1 right, 2 middle). */
export function mouseMove(
  m: MouseState,
  dx: number,
  dy: number,
  dz: number,
  buttons: number,
): void {
  const pressed = m.buttons !== buttons;
  m.buttons = buttons;
  m.dx += dx;
  m.dy += dy;
  m.dz += dz;
  if (!m.reporting || m.remote || m.wrap) return;
  if (pressed) mouseReport(m);
  while ((m.dx || m.dy || (m.dz && m.id === 3)) && m.queue.length < mouseLimit) mouseReport(m);
}

const clamp = (value: number, limit: number) => Math.max(-limit, Math.min(limit, value));

/** Queues one packet with as much of the movement as it holds. */
function mouseReport(m: MouseState): void {
  const [dx, dy] = [clamp(m.dx, 255), clamp(m.dy, 255)];
  const dz = m.id === 3 ? clamp(m.dz, 7) : 0;
  m.dx -= dx;
  m.dy -= dy;
  m.dz = m.id === 3 ? m.dz - dz : 0;
  m.queue.push(
    m.buttons & 7 | 8 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0),
    dx & 0xff,
    dy & 0xff,
  );
  if (m.id === 3) m.queue.push(dz & 0xff);
}
