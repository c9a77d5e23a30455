/**
 * Steps of a vCPU: so many instructions, over a call, out of a function.
 *
 * @module
 */
import { oneOf, options as optionsOf, toCount } from "../check.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { nextInstruction } from "../views/code.ts";
import { GuestStopped } from "../waits.ts";
import type { Breaks } from "./breaks.ts";
import type { Break } from "./breakpoint.ts";
import type { Stop } from "./stop.ts";
import type { Waiters, WaitOutcome } from "./waiters.ts";

/** What steps need of the debugger. */
export interface Stepping {
  readonly breaks: Breaks;
  readonly waiters: Waiters;
  /** Lets the domain run and waits for what comes of it. */
  run(): Promise<WaitOutcome>;
  until(b: Break): Promise<Stop | GuestStopped>;
  /** The domain stands where a step is over. */
  stepEnds(vcpu: VcpuSubject): Stop;
}

/** How a step is made. */
export interface StepOptions {
  /**
   * What the domain's other vCPUs do meanwhile: "run" as the interleaving has it, which is so if nothing
   * else is said, or "stand" where they are.
   */
  readonly others?: "run" | "stand";
}
const STEP_OPTIONS = optionsOf({ others: oneOf("run", "stand") });

/** Executes so many instructions. */
export async function step(
  d: Stepping,
  vcpu: VcpuSubject,
  instructions: number,
  options: StepOptions,
): Promise<Stop> {
  mustStand(vcpu, "step");
  const count = toCount(instructions, "step", 1, Number.MAX_SAFE_INTEGER);
  return await among(vcpu, "step", options, () => {
    d.breaks.vcpus[vcpu.id].monitor.setStep(count, d.breaks.stepEnds(vcpu.id));
    return stepRun(d);
  });
}

async function stepRun(d: Stepping): Promise<Stop> {
  try {
    const outcome = await d.run();
    if (outcome.kind === "stop") return outcome.stop;
    throw d.waiters.stopped(outcome, "step");
  } finally {
    d.breaks.armStep();
  }
}

/** A step of a vCPU among the others of its domain. */
async function among(
  { inner, name }: VcpuSubject,
  what: string,
  options: StepOptions,
  run: () => Promise<Stop>,
): Promise<Stop> {
  const { domain } = inner, { others } = STEP_OPTIONS(options, what);
  if (others !== "stand") return await run();
  domain.runOnly(inner);
  try {
    return await run();
  } catch (error) {
    const alone = error instanceof GuestStopped && error.reason === "paused" && !inner.ready;
    if (!alone) throw error;
    const waits = inner.online ? "waits for an interrupt" : "waits to be started up";
    throw new GuestStopped(`${what}: ${name} ${waits}, and the others stand`, "paused");
  } finally {
    domain.runOnly(undefined);
  }
}

function mustStand({ domain }: VcpuSubject, what: string): void {
  domain.mustLive(what);
  const { kind } = domain.inner.state;
  if (kind === "running" || kind === "blocked") {
    throw new Error(`${what}: domain ${domain.name} is ${kind}; pause it first`);
  }
}

/** Executes one instruction; a call, an interrupt or a repeated one as a whole. */
export async function stepOver(
  d: Stepping,
  vcpu: VcpuSubject,
  options: StepOptions,
): Promise<Stop> {
  mustStand(vcpu, "stepOver");
  const x = nextInstruction(vcpu);
  if (!x || !(x.flow === "call" || x.repeats)) return await step(d, vcpu, 1, options);
  const next = vcpu.linearIp + BigInt(x.length);
  const address = BigInt.asUintN(vcpu.bits === 64 ? 64 : 32, next);
  const stack = vcpu.file.get("rsp")!;
  return await among(vcpu, "stepOver", options, async () => {
    // The same place in a deeper call of the same function is not the one.
    const b = d.breaks.add("execute", { address, vcpu: vcpu.id }, {
      predicate: () => vcpu.file.get("rsp")! >= stack,
    }, { temporary: true });
    const result = await d.until(b);
    if (!(result instanceof GuestStopped)) return d.stepEnds(vcpu);
    if (result.stop && result.reason === "stopped") return result.stop;
    throw result;
  });
}

/** Runs until a return has taken away the present frame. */
export async function stepOut(
  d: Stepping,
  vcpu: VcpuSubject,
  options: StepOptions,
): Promise<Stop> {
  mustStand(vcpu, "stepOut");
  const { monitor } = d.breaks.vcpus[vcpu.id], rsp = () => vcpu.file.get("rsp")!;
  const stack = rsp();
  let before = nextInstruction(vcpu)?.flow;
  return await among(vcpu, "stepOut", options, () => {
    monitor.setStep(Infinity, () => {
      const returned = before === "return" && rsp() > stack;
      before = returned ? undefined : nextInstruction(vcpu)?.flow;
      return returned;
    });
    return stepRun(d);
  });
}
