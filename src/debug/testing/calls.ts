/** Small guests that know Xen, whose hypercalls a test makes one by one. */
import { type AbiWidth, type StructFields, type StructOf, View } from "../../abi/layout.ts";
import { HYPERCALL_REGISTERS, type HypercallName, HYPERCALLS } from "../../abi/xen/hypercalls.ts";
import type { Operation } from "../../abi/xen/operation.ts";
import type { DomainConfig } from "../../builder/domain.ts";
import { Host } from "../../xen/host.ts";
import type { HvmEngine } from "../../xen/hvm.ts";
import type { XenInterface } from "../../xen/interface.ts";
import { AT, HVM_WAYS, type Way, WayGuest, wayName } from "./ways.ts";

/** A way, and how wide the guest's code is. */
export interface CallWay extends Way {
  readonly width: AbiWidth;
}
/** Both vendors and kinds of paging, in both widths. */
export const CALL_WAYS: readonly CallWay[] = HVM_WAYS.flatMap((way) =>
  ([32, 64] as const).map((width) => ({ ...way, width }))
);
export const callWayName = (way: CallWay): string => `${wayName(way)}, ${way.width} bits`;

/** Where arguments lie: guest-physical and linear. */
export const ARGUMENT = 0x3_0000;

type FieldsOf<O> = O extends Operation<infer A>
  ? A extends StructOf<infer F extends StructFields> ? F
  : never
  : never;

export class CallGuest {
  private constructor(readonly guest: WayGuest, readonly width: AbiWidth) {}

  static async make(
    way: CallWay,
    more: Partial<DomainConfig> & { host?: Host } = {},
  ): Promise<CallGuest> {
    // Room for several.
    const host = more.host ??
      new Host({ cpu: way.cpu, memory: 16 << 20, unixTime: 1_700_000_000, seed: 1 });
    const guest = await WayGuest.make(way, undefined, { xen: true, ...more, host });
    const instruction = way.cpu === "intel" ? "vmcall" : "vmmcall";
    guest.enter(way.width === 64 ? "long" : "pae", `${instruction}\nhlt`);
    const made = new CallGuest(guest, way.width);
    made.xen.latchWidth(way.width);
    return made;
  }

  get domain() {
    return this.guest.domain;
  }
  get xen(): XenInterface {
    return this.domain.xen!;
  }
  get engine(): HvmEngine {
    return this.guest.engine!;
  }

  /**
   * Makes a hypercall on its first vCPU: the result, signed.
   *
   * @returns undefined while the vCPU waits in it
   */
  call(name: HypercallName | number, ...args: (number | bigint)[]): number | undefined {
    const { engine, width, guest } = this, { ops, hvm } = engine;
    const number = typeof name === "number" ? name : HYPERCALLS[name].number;
    guest.host.unload();
    ops.setRegister(hvm, "rax", BigInt(number));
    args.forEach((value, n) =>
      ops.setRegister(hvm, HYPERCALL_REGISTERS[width][n], BigInt.asUintN(width, BigInt(value)))
    );
    ops.setRegister(hvm, "rip", BigInt(AT.code));
    engine.pending = undefined;
    const [vcpu] = this.domain.vcpus;
    this.domain.setState({ kind: "running" });
    if (vcpu.blocked) this.domain.wake(vcpu);
    return this.goOn();
  }
  /** Runs on, after a call that waited: its result. */
  goOn(): number | undefined {
    const { engine, guest } = this, { vcpu } = engine, halts = vcpu.exits.hlt ?? 0;
    for (let turn = 0; turn < 1000 && (vcpu.exits.hlt ?? 0) === halts; turn++) {
      if (!guest.host.runOnce(1000)) break;
    }
    if ((vcpu.exits.hlt ?? 0) === halts) return undefined;
    return Number(BigInt.asIntN(this.width, guest.reg("rax")));
  }

  /** Puts an operation's argument with these fields at {@linkcode ARGUMENT}. */
  argument<O extends Operation>(
    operation: O,
    values: Readonly<Record<string, number | bigint>> = {},
  ): View<FieldsOf<O>> {
    const view = new View(operation.arg as StructOf<FieldsOf<O>>, this.width);
    // deno-lint-ignore no-explicit-any
    view.setAll(values as any);
    this.guest.write(ARGUMENT, view.raw);
    return view;
  }
  /** The same as it is now. */
  argumentNow<F extends StructFields>(view: View<F>): View<F> {
    return new View(view.type, this.width, this.domain.memory.read(ARGUMENT, view.raw.length));
  }

  /** Calls an operation with an argument made from these fields: its result, and the argument then. */
  op<O extends Operation>(
    name: HypercallName,
    operation: O,
    values: Readonly<Record<string, number | bigint>> = {},
    more: readonly (number | bigint)[] = [],
  ): { result: number | undefined; out: View<FieldsOf<O>> } {
    const view = this.argument(operation, values);
    const result = this.call(name, operation.number, ...more, ARGUMENT);
    return { result, out: this.argumentNow(view) };
  }
}
