/**
 * What the example scripts share: a domain from the command line, the demo guest if no kernel is
 * named.
 *
 * `--kernel F --ramdisk F --cmdline S --memory SIZE --type hvm|bare|pvh --until TEXT
 * --paging hap|shadow --shadow-memory SIZE --hide-xen`
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { type Domain, Hypervisor } from "xvm";

/** A domain on a host of its own, and the text on its console that ends the script's run. */
export interface Guest extends AsyncDisposable {
  readonly hv: Hypervisor;
  readonly dom: Domain;
  readonly until: string;
}

/** The domain that the arguments name. */
export async function guest(args: string[] = Deno.args): Promise<Guest> {
  const given = parseArgs(args, {
    string: ["kernel", "ramdisk", "cmdline", "memory", "type", "until", "paging", "shadow-memory"],
    boolean: ["hide-xen"],
  });
  const paging = given.paging as "hap" | "shadow" | undefined;
  const type = given.type as "hvm" | "bare" | "pvh" | undefined;
  const { kernel, ramdisk, cmdline = "console=ttyS0 nokaslr quiet", memory = "128M" } = given;
  if (!kernel) {
    if (type === "pvh") throw new Error("--type pvh needs a --kernel");
    const hv = await Hypervisor.demo({ type, paging });
    return made(hv, hv.domains[0], given.until ?? "power off");
  }
  const hv = await Hypervisor.start({ memory: "512M" });
  const dom = await hv.createDomain({
    name: "guest",
    type,
    paging,
    shadowMemory: given["shadow-memory"],
    kernel,
    ramdisk,
    cmdline,
    memory,
    ...(given["hide-xen"] ? { xen: false } : {}),
  });
  return made(hv, dom, given.until ?? "GUEST-READY");
}

function made(hv: Hypervisor, dom: Domain, until: string): Guest {
  return { hv, dom, until, [Symbol.asyncDispose]: () => hv.close() };
}

/** Lets a domain run until its console shows the text; the demo guest gets a key now and then. */
export async function runUntil({ dom, until }: Guest, keys = "ctmfdq"): Promise<void> {
  const demo = dom.name === "demo";
  let typed = 0;
  const stop = demo
    ? dom.console.onOutput((text) => {
      // The demo guest asks for a key at the end of each prompt.
      if (text.endsWith(" ") && dom.console.text.endsWith("demo> ") && typed < keys.length) {
        dom.console.write(keys[typed++]);
      }
    })
    : () => {};
  const shown = dom.console.shows(until);
  dom.unpause();
  await shown;
  dom.pause();
  stop();
}
