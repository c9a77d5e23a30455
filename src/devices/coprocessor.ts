/**
 * The numeric coprocessor's way to the interrupt controller: FERR# is IRQ 13, ports F0h and F1h.
 * Source: IBM PC/AT Technical Reference, "Coprocessor"; Intel SDM vol. 1, 9.6 and appendix D.
 *
 * @module
 */
import { type DeviceContext, DeviceModel, type PortRange, type Size } from "./device.ts";

/** State of {@linkcode Coprocessor}. */
export interface CoprocessorState {
  /** FERR#: the processor has an unmasked exception pending. */
  error: boolean;
  /** The latch that holds IRQ 13, from FERR# to a write of port F0h. */
  irq: boolean;
  /** IGNNE#: the processor may go on; from that write until no exception is pending. */
  ignore: boolean;
}

const RESET: CoprocessorState = { error: false, irq: false, ignore: false };

export class Coprocessor extends DeviceModel<CoprocessorState> {
  readonly name = "coprocessor";
  readonly version = 1;
  override readonly ports: readonly PortRange[] = [[0xf0, 0xf1]];

  constructor(readonly context: DeviceContext) {
    super({ ...RESET });
  }

  /** The processor asserts FERR#. True if IGNNE# is asserted: it goes on. */
  raise(): boolean {
    const s = this.state;
    if (!s.error) {
      s.error = true;
      this.#drive(true);
    }
    return s.ignore;
  }

  /** FERR# is gone. IRQ 13 stays until somebody writes port F0h. */
  quiet(): void {
    this.state.error = this.state.ignore = false;
  }

  #drive(level: boolean): void {
    this.state.irq = level;
    this.context.irq(13, level);
  }

  read(_port: number, size: Size): number {
    return 256 ** size - 1;
  }

  /** F0h: busy and IRQ 13 off. F1h resets a coprocessor of its own chip, which there is not. */
  write(port: number): void {
    if (port !== 0xf0) return;
    this.state.ignore = this.state.error;
    this.#drive(false);
  }

  reset(): void {
    this.state = { ...RESET };
    this.context.irq(13, false);
  }

  show(): string {
    const { error, irq, ignore } = this.state;
    return `coprocessor: FERR# ${error ? "asserted" : "off"}, IRQ 13 ${
      irq ? "requested" : "off"
    }, ` +
      `IGNNE# ${ignore ? "asserted" : "off"}`;
  }
}
