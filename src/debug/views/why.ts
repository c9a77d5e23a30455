/**
 * Why a vCPU did what it did last: every check of the machine has an identity, its operands and its
 * place in the manual, and here they are put into words.
 *
 * @module
 */
import { errnoName, XEN_ERRNO_MEANING } from "../../abi/xen/errno.ts";
import { hypercallOf } from "../../abi/xen/hypercalls.ts";
import { operationOf } from "../../abi/xen/operation.ts";
import { exceptionVectors, VECTOR, vectorName } from "../../abi/x86/vectors.ts";
import type { Fault } from "../../machine/events.ts";
import type { Exit } from "../../hvm/exit.ts";
import { exitRows } from "../../hvm/exit_kinds.ts";
import { checkById, explain } from "../../machine/checks.ts";
import { everywhere, fieldsOf, type Kind } from "../kinds.ts";
import { bold, counted, hex, INSPECT, type InspectOptions } from "../values.ts";
import type { RefusedCall } from "../../xen/call.ts";
import type { Monitor } from "../../xen/monitor.ts";
import { ruleText } from "../../xen/refusal.ts";
import type { VcpuSubject } from "../vcpu_subject.ts";
import { lineAt, nextInstruction } from "./code.ts";

/** The answer of `vcpu.why()`; prints itself, and `String(why)` is its first line. */
export class Why {
  /** What happened, in one line: "#GP(0x10): …". */
  readonly text: string;
  /** Name of the check that decided, "none" if nothing has happened yet. */
  readonly check: string;
  /** Manual, volume and section. */
  readonly source: string;
  /** More: the instruction, where it was, what followed. */
  readonly details: readonly string[];

  /** @ignore Made by `vcpu.why()`. */
  constructor(text: string, check: string, source: string, details: readonly string[]) {
    this.text = text;
    this.check = check;
    this.source = source;
    this.details = details;
  }
  /** The first line: what happened. */
  toString(): string {
    return this.text;
  }
  /** @ignore */
  [INSPECT](_inspect: unknown, options?: InspectOptions): string {
    const source = this.source ? [`  ${this.check}, ${this.source}`] : [];
    return [bold(this.text, options), ...this.details.map((d) => `  ${d}`), ...source].join("\n");
  }
}

/** How the vCPU stands, for who asks why. */
export interface Standing {
  /** Kind of the stop it stands at. */
  readonly at: string | undefined;
  /** Exits that were noted, the newest last. */
  readonly recent: Monitor["recent"];
}

/** Explains the last fault or exit of a vCPU, whichever came later. */
export function why(vcpu: VcpuSubject, standing: Standing): Why {
  const exit = vcpu.lastExit;
  const fault = vcpu.lastFault;
  if (exit && exit.kind === "entry-failure") {
    return new Why(
      `the guest could not be entered (${exit.what}): ${exit.text}`,
      exit.check,
      "",
      [`code ${hex(exit.code)}`],
    );
  }
  const { at } = standing;
  const atExit = at !== undefined && at !== "end" && !everywhere.includes(at as Kind);
  const refused = vcpu.engine?.call?.refused;
  if (refused && !atExit && refused.count - vcpu.inner.count > (fault?.count ?? -Infinity)) {
    return refusalWhy(vcpu, refused);
  }
  if (exit && (atExit || !fault)) return exitWhy(vcpu, exit, standing);
  if (fault) return faultWhy(vcpu, fault);
  return new Why("nothing has happened yet: no fault was raised", "none", "", []);
}

function faultWhy(vcpu: VcpuSubject, fault: Fault): Why {
  const { vector, errorCode, check, a, b, rip, count } = fault;
  const { name, source } = checkById(check);
  const code = errorCode === undefined ? "" : `(${hex(errorCode >>> 0)})`;
  const text = exceptionVectors.find((v) => v.vector === vector)?.text ?? "";
  const details: string[] = [];
  const { domain } = vcpu;
  const base = vcpu.codeBase;
  const absent = vector === VECTOR.UD ? absentFeature(vcpu, base + rip) : undefined;
  const reason = absent !== undefined
    ? `the CPUID of this guest does not show ${absent}`
    : check === 0
    ? text
    : explain(check, a, b);
  const place = domain.symbols?.format(base + rip);
  const where = `${hex(rip, 8)}${place ? ` <${place}>` : ""}`;
  try {
    details.push(`at ${where}: ${lineAt(vcpu, base + rip).text}`);
  } catch {
    details.push(`at ${where}`);
  }
  if (vector === VECTOR.PF && errorCode !== undefined) details.push(pageFaultText(errorCode));
  details.push(count === 0 ? "just now" : `${counted(-count, "instruction")} ago`);
  return new Why(`${vectorName(vector)}${code}: ${reason}`, name, source, details);
}

/** A hypercall that Xen refused. */
function refusalWhy({ inner }: VcpuSubject, refused: RefusedCall): Why {
  const { number, command, result, count, rule } = refused;
  const [name, row] = hypercallOf(number) ?? [`hypercall ${number}`];
  const sub = row?.operations && operationOf(row.operations, command & (row.operationMask ?? -1));
  const error = errnoName(result), what = `${name}${sub ? ` ${sub[0]}` : ""}`;
  const gave = error ? `-${error}` : result < 0 ? `${result}` : "an element's status";
  return new Why(
    `${what}: ${gave}: ${ruleText(refused)}`,
    rule,
    error ? `Xen public/errno.h: ${XEN_ERRNO_MEANING[error]}` : "",
    [count === inner.count ? "just now" : `${counted(inner.count - count, "instruction")} ago`],
  );
}

/** The feature that an instruction needs, and CPUID does not show. */
function absentFeature(vcpu: VcpuSubject, address: bigint): string | undefined {
  const { cpuid } = vcpu.inner.domain;
  try {
    const feature = nextInstruction(vcpu, address)?.feature;
    return feature === undefined || cpuid.has(feature) ? undefined : feature;
  } catch { /* the code is not mapped */ }
}

/** A page fault's error code in words (SDM 3 4.7). */
function pageFaultText(code: number): string {
  const words = [
    code & 1 ? "protection violation" : "page not present",
    code & 16 ? "instruction fetch" : code & 2 ? "write" : "read",
    code & 4 ? "by user code" : "by supervisor code",
  ];
  if (code & 8) words.push("reserved bit set");
  return words.join(", ");
}

function exitWhy(vcpu: VcpuSubject, exit: Exit, { at, recent }: Standing): Why {
  const fields = Object.entries(fieldsOf(exit))
    .filter(([, v]) => v !== undefined && typeof v !== "object")
    .map(([k, v]) => `${k} ${typeof v === "bigint" || typeof v === "number" ? hex(v) : v}`);
  const details = [fields.join(", ")].filter((d) => d);
  const here = at === exit.kind;
  if (!here && recent.at(-1)?.exit === exit) {
    const ago = vcpu.position.count - recent.at(-1)!.count;
    details.push(`${counted(ago, "instruction")} ago`);
  }
  if (here && exit.length > 0) {
    try {
      details.push(`at ${hex(vcpu.file.get("rip")!, 8)}: ${lineAt(vcpu).text}`);
    } catch { /* the code is not mapped: nothing to show */ }
  }
  const { lastFault } = vcpu;
  if (exit.kind === "triple-fault" && lastFault) {
    const { text, source } = faultWhy(vcpu, lastFault);
    details.push(`the last exception: ${text}${source ? ` (${source})` : ""}`);
  }
  return new Why(
    `exit "${exit.kind}": ${exitRows[exit.kind].meaning}`,
    exit.kind,
    "",
    details,
  );
}
