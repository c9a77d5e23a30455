/** VM-entry checks on the VMX control fields (SDM 3 26.2.1). */
import { EVENT_TYPE, VECTOR } from "../../abi/x86/vectors.ts";
import { EXIT_CONTROL, PIN, PRIMARY, SECONDARY } from "../../abi/x86/vmx.ts";
import { check } from "../checks.ts";
import { V } from "../state.ts";
import { cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";
import { CONTROLS, CR3_TARGETS } from "./capabilities.ts";
import { VmcsRegion } from "./layout.ts";
import { tooWide } from "../values.ts";

/** Writes a list of checks: each notes itself and leaves the function with `result`. */
export class Checks {
  constructor(readonly f: Func, readonly prefix: string, readonly source: string) {}

  /** Fails if `bad` is not zero. */
  fail(name: string, text: string, bad: Expr, a: Expr = i64(0), b: Expr = i64(0), result = 1) {
    const id = check(`${this.prefix}.${name}`, text, this.source);
    this.f.if(bad, () => {
      this.f.call("vmxNote", i32(id), a.zext(), b.zext());
      this.f.return(i32(result));
    });
  }
}

/** 1 if `value` sets bits outside `may` or lacks bits of `must`. */
const reserved = (value: Expr, word: { must: number; may: number }): Expr =>
  value.and(word.must).ne(word.must | 0).or(value.and(~word.may).nez());

/** The secondary controls in force: 0 unless activated. */
export const secondaryOf = (vmcs: VmcsRegion): Expr =>
  vmcs.low("secondaryControls").when(
    vmcs.low("processorBasedControls").shrS(31),
    i32(0),
  );

function words(c: Checks, vmcs: VmcsRegion): void {
  const pin = vmcs.low("pinBasedControls"), primary = vmcs.low("processorBasedControls");
  const exit = vmcs.low("exitControls"), entry = vmcs.low("entryControls");
  const text = (name: string) =>
    `${name} {a}: a reserved bit is not at its default (bits allowed: {b})`;
  c.fail(
    "pin",
    text("pin-based controls"),
    reserved(pin, CONTROLS.pin),
    pin,
    i32(CONTROLS.pin.may),
  );
  c.fail(
    "primary",
    text("primary processor-based controls"),
    reserved(primary, CONTROLS.primary),
    primary,
    i32(CONTROLS.primary.may),
  );
  c.fail(
    "secondary",
    text("secondary processor-based controls"),
    reserved(secondaryOf(vmcs), CONTROLS.secondary),
    secondaryOf(vmcs),
    i32(CONTROLS.secondary.may),
  );
  c.fail(
    "exit",
    text("VM-exit controls"),
    reserved(exit, CONTROLS.exit),
    exit,
    i32(CONTROLS.exit.may),
  );
  c.fail(
    "entry",
    text("VM-entry controls"),
    reserved(entry, CONTROLS.entry),
    entry,
    i32(CONTROLS.entry.may),
  );
}

function execution(c: Checks, vmcs: VmcsRegion): void {
  const f = c.f;
  const pin = f.let(vmcs.low("pinBasedControls"));
  const primary = f.let(vmcs.low("processorBasedControls"));
  const secondary = f.let(secondaryOf(vmcs));
  const page = (name: string, field: string) => {
    const pa = vmcs.get(field);
    c.fail(
      name,
      `${field} {a} is not 4-KByte aligned or wider than a physical address`,
      pa.and(0xfff).nez().or(tooWide(pa)),
      pa,
    );
  };
  const count = vmcs.low("cr3TargetCount");
  c.fail("cr3Targets", "CR3-target count {a} is above 4", count.gtU(CR3_TARGETS), count);
  f.if(primary.and(PRIMARY.ioBitmaps), () => {
    page("ioBitmapA", "ioBitmapA");
    page("ioBitmapB", "ioBitmapB");
  });
  f.if(primary.and(PRIMARY.msrBitmaps), () => page("msrBitmap", "msrBitmap"));
  f.if(primary.and(PRIMARY.tprShadow), () => page("virtualApic", "virtualApicAddress"));
  const nmi = pin.and(PIN.nmi), virtualNmis = pin.and(PIN.virtualNmis);
  c.fail(
    "virtualNmis",
    "virtual NMIs without NMI exiting (pin-based controls {a})",
    virtualNmis.nez().and(nmi.eqz()),
    pin,
  );
  c.fail(
    "nmiWindow",
    "NMI-window exiting without virtual NMIs (pin-based controls {a})",
    primary.and(PRIMARY.nmiWindow).nez().and(virtualNmis.eqz()),
    pin,
  );
  const vpid = vmcs.low("vpid");
  c.fail(
    "vpid",
    "VPID is enabled and 0",
    secondary.and(SECONDARY.vpid).nez().and(vpid.eqz()),
  );
  const ept = secondary.and(SECONDARY.ept), eptp = vmcs.get("eptPointer");
  f.if(ept, () => {
    c.fail(
      "eptp",
      "EPT pointer {a}: memory type not 0 or 6, walk length not 4, a reserved bit set, or too wide",
      f.call("eptpValid", eptp).eqz(),
      eptp,
    );
  });
  c.fail(
    "unrestricted",
    "unrestricted guest without EPT (secondary controls {a})",
    secondary.and(SECONDARY.unrestrictedGuest).nez().and(ept.eqz()),
    secondary,
  );
  c.fail(
    "timerSave",
    "the preemption timer is to be saved but is not active (VM-exit controls {a})",
    vmcs.low("exitControls").and(EXIT_CONTROL.savePreemptionTimer).nez()
      .and(pin.and(PIN.preemptionTimer).eqz()),
    vmcs.low("exitControls"),
  );
}

function msrAreas(c: Checks, vmcs: VmcsRegion): void {
  for (const area of ["exitMsrStore", "exitMsrLoad", "entryMsrLoad"]) {
    const count = vmcs.low(`${area}Count`), address = vmcs.get(`${area}Address`);
    const last = address.add(count.zext().shl(4)).sub(1);
    c.fail(
      area,
      `${area} area at {a} with {b} entries: not 16-byte aligned, or wider than a physical address`,
      count.nez().and(address.and(15).nez().or(tooWide(address)).or(tooWide(last))),
      address,
      count,
    );
  }
}

/** `eptpValid(eptp) -> 0 | 1` (26.2.1.1). */
function buildEptp(m: Module): void {
  m.func("eptpValid", ["i64"], ["i32"], (f, eptp) => {
    const type = f.let(eptp.wrap().and(7));
    f.result(
      type.eqz().or(type.eq(6)).and(eptp.wrap().and(0x38).eq(0x18))
        .and(eptp.wrap().and(0xf80).eqz()).and(tooWide(eptp).eqz()),
    );
  });
}

/** Vectors of hardware exceptions with an error code. */
const { AC, DF, GP, NP, PF, SS, TS } = VECTOR;
const WITH_ERROR = 1 << DF | 1 << TS | 1 << NP | 1 << SS | 1 << GP | 1 << PF | 1 << AC;

/** `vmxCheckInjection() -> 0 | 1`: the event to be injected (26.2.1.3); called when there is one. */
function buildInjection(m: Module): void {
  m.func("vmxCheckInjection", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.inject", "SDM 3 26.2.1.3");
    const info = f.let(vmcs.low("entryInterruptionInformation"));
    const vector = f.let(info.and(0xff)), type = f.let(info.shrU(8).and(7));
    const bad = (name: string, text: string, condition: Expr) =>
      c.fail(name, `${text} (interruption information {a})`, condition, info);
    bad("type", "reserved type of event", type.eq(1));
    bad(
      "nmi",
      "an NMI with a vector other than 2",
      type.eq(EVENT_TYPE.nmi).and(vector.ne(VECTOR.NMI)),
    );
    bad(
      "exception",
      "a hardware exception with a vector above 31",
      type.eq(EVENT_TYPE.hardwareException).and(vector.gtU(31)),
    );
    bad(
      "other",
      "an event of type 7 with a vector other than 0",
      type.eq(EVENT_TYPE.other).and(vector.nez()),
    );
    bad("reserved", "reserved bits 30:12 are set", info.and(0x7fff_f000).nez());
    const real = secondaryOf(vmcs).shrU(7).and(vmcs.low("guestCr0").not()).and(1);
    const exception = type.eq(EVENT_TYPE.hardwareException).and(vector.leU(31));
    const needed = f.let(
      exception.and(i32(WITH_ERROR).shrU(vector.and(31))).and(real.eqz()),
    );
    bad(
      "errorCode",
      "an error code where the event has none, or none where it has one",
      info.shrU(11).and(1).ne(needed),
    );
    const code = vmcs.low("entryExceptionErrorCode");
    c.fail(
      "errorCodeBits",
      "error code {a} has bits above 15",
      info.and(0x800).nez().and(code.and(0xffff_0000 | 0).nez()),
      code,
    );
    const length = vmcs.low("entryInstructionLength");
    const software = f.let(
      type.geU(EVENT_TYPE.softwareInterrupt).and(type.leU(EVENT_TYPE.softwareException)),
    );
    c.fail(
      "length",
      "instruction length {a} of a software event is above 15",
      software.and(length.gtU(15)),
      length,
    );
    f.result(0);
  });
}

/** `vmxCheckTpr() -> 0 | 1`; depends on memory, so it is made at every entry with a TPR shadow. */
function buildTpr(m: Module): void {
  m.func("vmxCheckTpr", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.controls", "SDM 3 26.2.1.1");
    const threshold = f.let(vmcs.low("tprThreshold"));
    const page = f.let(vmcs.low("virtualApicAddress"));
    c.fail(
      "tprThreshold",
      "TPR threshold {a} has bits above 3",
      threshold.and(~15).nez(),
      threshold,
    );
    const vtpr = load("i32", 8, "u", page, 0x80, MEMORY.ram).shrU(4);
    f.if(vmcs.get("virtualApicAddress").ltU(cell64(V.ramSize)), () => {
      c.fail(
        "tprAbove",
        "TPR threshold {a} is above bits 7:4 of the virtual TPR, {b}",
        threshold.gtU(vtpr),
        threshold,
        vtpr,
      );
    });
    f.result(0);
  });
}

/** `vmxCheckControls() -> 0 | 1`; on failure V.check names the check. */
export function buildControlChecks(m: Module): void {
  m.func("vmxNote", ["i32", "i64", "i64"], [], (f, id, a, b) => {
    setCell(f, V.check, id);
    setCell64(f, V.checkA, a);
    setCell64(f, V.checkB, b);
  });
  buildEptp(m);
  buildInjection(m);
  buildTpr(m);
  m.func("vmxCheckControls", [], ["i32"], (f) => {
    const vmcs = VmcsRegion.current(f);
    const c = new Checks(f, "vmx.controls", "SDM 3 26.2.1");
    words(c, vmcs);
    execution(c, vmcs);
    msrAreas(c, vmcs);
    f.result(0);
  });
}
