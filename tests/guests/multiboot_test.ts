// Other systems' real kernels: GNU Mach in every way, Xen with a domain 0 on the bare processor.
// The images come from `xvm guests fetch`, in XVM_GUESTS or the cache folder.
import { assertEquals, assertStringIncludes } from "@std/assert";
import { guestsFolder } from "../../repl/guests/images.ts";
import { type Outcome, run, type RunOptions } from "../conformance/run.ts";

const folder = guestsFolder();

function exists(file: string): boolean {
  try {
    return Deno.statSync(`${folder}/${file}`).isFile;
  } catch {
    return false;
  }
}

/** A test that says that it is skipped when one of its files has not been fetched. */
function guestTest(name: string, files: readonly string[], fn: () => Promise<void>): void {
  const missing = files.find((file) => !exists(file));
  Deno.test({
    name: missing ? `${name}: skipped, no ${missing} in ${folder} (xvm guests fetch)` : name,
    ignore: missing !== undefined,
    fn,
  });
}

const told = ({ text, lastFault }: Outcome) => `${text.slice(-2000)}\n${lastFault}`;

/** Instructions; GNU Mach waits in loops for devices that are not there. */
const LIMIT = 20e9;

const WAYS: readonly Pick<RunOptions, "type" | "cpu" | "paging">[] = [
  { type: "bare", cpu: "intel" },
  { type: "hvm", cpu: "intel", paging: "hap" },
  { type: "hvm", cpu: "intel", paging: "shadow" },
  { type: "hvm", cpu: "amd", paging: "hap" },
  { type: "hvm", cpu: "amd", paging: "shadow" },
];

for (const way of WAYS) {
  const name = `GNU Mach boots to its want of a bootstrap, ${Object.values(way).join(", ")}`;
  guestTest(name, ["gnumach"], async () => {
    const outcome = await run({
      image: `${folder}/gnumach`,
      ...way,
      memory: 64 << 20,
      cmdline: "console=com0",
      limit: LIMIT,
      until: "No bootstrap code loaded",
    });
    assertEquals(outcome.end, "until", told(outcome));
    // The memory's end by the map, and the time by the clock.
    assertStringIncludes(outcome.text, "100000:000000000004000000, available");
    assertStringIncludes(outcome.text, "RTC time is 2023-11-14 22:1");
  });
}

for (const cpu of ["intel", "amd"] as const) {
  const files = ["xen", "vmlinuz-cloud", "tiny-amd64.cpio.gz"];
  guestTest(`Xen boots a domain 0 to its init on the bare processor, ${cpu}`, files, async () => {
    const outcome = await run({
      image: `${folder}/xen`,
      type: "bare",
      cpu,
      memory: 512 << 20,
      cmdline: "console=com1 com1=115200,8n1 loglvl=all",
      modules: [
        { file: `${folder}/vmlinuz-cloud`, cmdline: "console=hvc0 earlyprintk=xen nokaslr" },
        { file: `${folder}/tiny-amd64.cpio.gz` },
      ],
      limit: LIMIT,
      until: "Run /init as init process",
    });
    assertEquals(outcome.end, "until", told(outcome));
    for (
      const line of [
        "(XEN) Xen version 4.17",
        "(XEN) Bootloader: xvm",
        "(XEN) Using ACPI (MADT) for SMP configuration information",
        "(XEN) Platform timer is 3.580MHz ACPI PM Timer",
        "(XEN) *** Building a PV Dom0 ***",
        "] Booting kernel on Xen",
        "] x86/mm: Checked W+X mappings: passed",
      ]
    ) assertStringIncludes(outcome.text, line);
  });
}
