/**
 * Ports that are no PC hardware, or only ever used to look on: the console at E9h (Bochs), the
 * exit port F4h (QEMU's isa-debug-exit), POST codes at 80h and 190h.
 *
 * @module
 */
import {
  AMOUNT,
  DeviceModel,
  DWORD,
  hex,
  type PortRange,
  type Ranges,
  type Size,
} from "./device.ts";

/** State of {@linkcode DebugPorts}. */
export interface DebugState {
  /** The last POST code, -1 before the first. */
  post: number;
  /** How many were written. */
  posts: number;
  /** Exit status asked for, `value << 1 | 1`; -1 if none. */
  exit: number;
}

/** Where the ports lead. */
export interface DebugOptions {
  readonly output?: (byte: number) => void;
  readonly exit?: (status: number) => void;
  readonly post?: (code: number, port: number) => void;
  /** Console ports; E9h unless given. Each is 8 bits wide. */
  readonly consolePorts?: readonly number[];
}

/**
 * Debug console, exit and POST ports.
 *
 * A read of a console port gives E9h wherever it is, by which guests find it (QEMU's isa-debugcon).
 */
export class DebugPorts extends DeviceModel<DebugState> {
  readonly name = "debug";
  readonly version = 1;
  override readonly ranges: Ranges = { post: [-1, DWORD[1]], posts: AMOUNT, exit: [-1, 2 ** 33] };
  /** The exit port is no PC hardware: only who means it reaches it. */
  override readonly registers = { 0xf4: [1, 2, 4] } as const;
  override readonly ports: readonly PortRange[];
  readonly consolePorts: readonly number[];

  constructor(readonly options: DebugOptions = {}) {
    super({ post: -1, posts: 0, exit: -1 });
    this.consolePorts = options.consolePorts ?? [0xe9];
    this.ports = [0x80, 0xf4, 0x190, ...this.consolePorts].map((port) => [port, port]);
  }

  read(port: number, size: Size): number {
    const byte = this.consolePorts.includes(port) ? 0xe9 : port === 0xf4 ? 0 : this.postByte();
    return (byte | 0xffffff00 & 256 ** size - 1) >>> 0;
  }

  postByte(): number {
    return this.state.post & 0xff;
  }

  write(port: number, _size: Size, value: number): void {
    if (port === 0xf4) {
      this.state.exit = (value << 1 | 1) >>> 0;
      this.options.exit?.(this.state.exit);
    } else if (this.consolePorts.includes(port)) {
      this.options.output?.(value & 0xff);
    } else {
      this.state.post = value & 0xff;
      this.state.posts++;
      this.options.post?.(value & 0xff, port);
    }
  }

  reset(): void {
    this.state = { post: -1, posts: 0, exit: -1 };
  }

  show(): string {
    const { post, posts, exit } = this.state;
    const last = posts === 0 ? "none" : `0x${hex(post)}, ${posts} in all`;
    return `debug: POST ${last}; exit status ${exit < 0 ? "none" : exit}`;
  }
}
