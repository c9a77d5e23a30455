/** XTF, the Xen Test Framework: what its images say on a correct Xen, as facts. */

/** Environments of virtual machines: the mode in which a test runs, as its image's name says. */
export const ENVIRONMENTS = ["hvm32", "hvm32pae", "hvm32pse", "hvm64"] as const;

/** Results, as the last line of a test's text says them. */
export type XtfResult = "SUCCESS" | "SKIP" | "ERROR" | "FAILURE";

/** Tests that are to be there, and succeed, in each environment that has them. */
export const NAMED = [
  "example",
  "selftest",
  "cpuid",
  "msr",
  "rtm-check",
  "lm-ts",
  "invlpg",
  "xsa-consoleio-write",
  "xsa-188",
  "xsa-192",
] as const;

/** What is said of others that say neither SUCCESS nor SKIP, and why that is right. */
export const OTHERS: Readonly<Record<string, XtfResult>> = {
  // It looks for Xen's prefix of emulated instructions, which only a debugging option switches on.
  fep: "FAILURE",
};
/** They test Hyper-V's interface, which a domain here has not. */
export const VIRIDIAN: ReadonlySet<string> = new Set(["xsa-472-1", "xsa-472-2", "xsa-472-3"]);

/** Instructions after which a test is given up; and of one that makes a billion turns. */
export const XTF_LIMIT = 50e6;
export const LONG: Readonly<Record<string, number>> = { "xsa-269": 4e9 };

/** `test-hvm32pae-xsa-192` taken apart; undefined for what is no test of a virtual machine. */
export function xtfTest(file: string): { environment: string; name: string } | undefined {
  const [, environment, name] = /^test-(hvm[^-]+)-([^.~]+)$/.exec(file) ?? [];
  return environment === undefined ? undefined : { environment, name };
}

/** The result that a test's text ends with; undefined: it came to none. */
export const resultIn = (text: string): string | undefined =>
  /^Test result: (\w+)/m.exec(text)?.[1];
