import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { parseSize } from "./size.ts";
import { memoryOf, readDomainFile } from "./xl.ts";
import { parseXl } from "./xl_syntax.ts";

const values = (text: string) =>
  Object.fromEntries(Object.values(parseXl(text)).map(({ key, value }) => [key, value]));

Deno.test("parseXl() reads strings, numbers and lists", () => {
  assertEquals(
    values(
      `# a guest\nname = "debian" ; memory=256\ndisk = [ 'a,xvda,w', "b" ]\nvcpus = 0x2\r\n` +
        `empty = []\nnested = [ [1, 2,], "#no comment",\n # one\n ]\nname = 'new'\nextra = "a"\nextra += " b"\n` +
        `empty += [ 3 ]`,
    ),
    {
      name: "new",
      memory: 256,
      disk: ["a,xvda,w", "b"],
      vcpus: 2,
      empty: [3],
      nested: [[1, 2], "#no comment"],
      extra: "a b",
    },
  );
});

Deno.test("parseXl() says what it expected, and where", () => {
  const DIGITS = ": a number has digits alone, or 0x and hexadecimal ones";
  const cases: [text: string, message: string][] = [
    ["a = 1\nb 2", "x.cfg:2: expected = after b, got 2"],
    [`a = ["x"\n\n`, "x.cfg:1: expected , or ], got the end of the file"],
    ["a = {", "x.cfg:1: cannot read {"],
    ["\na = 'x\n", "x.cfg:2: cannot read 'x: the closing ' is missing"],
    ["a = debian", "x.cfg:1: expected a string in quotes, a whole number or a list, got debian"],
    ["a =\n", "x.cfg:1: expected a value, got the end of the file"],
    ["a = 1 b = 2", "x.cfg:1: expected the end of the line or ;, got b"],
    ["'a' = 1", "x.cfg:1: expected a key, got 'a'"],
    ["a = 256M", `x.cfg:1: cannot read 256M${DIGITS}`],
    ["vcpus = 2.5", `x.cfg:1: cannot read 2.5${DIGITS}`],
    ["vcpus = 3n", `x.cfg:1: cannot read 3n${DIGITS}`],
    ["vcpus = NaN", "x.cfg:1: expected a string in quotes, a whole number or a list, got NaN"],
    ["a = 1\na += 'x'", "x.cfg:2: a: += adds a string to a string, and a list to a list"],
  ];
  for (const [text, message] of cases) {
    assertEquals(assertThrows(() => parseXl(text, "x.cfg"), SyntaxError).message, message);
  }
});

const folder = await Deno.makeTempDir();
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
let files = 0;
async function written(text: string, suffix = "cfg"): Promise<string> {
  const path = `${folder}/${++files}.${suffix}`;
  await Deno.writeTextFile(path, text);
  return path;
}

Deno.test("readDomainFile() takes the keys of xl.cfg that apply here", async () => {
  const file = await readDomainFile(
    await written(`
name = "debian"
type = "pvh"
kernel = "/boot/vmlinuz"
ramdisk = "/boot/initrd"
root = "/dev/ram0"
extra = "quiet"
memory = "64"
maxmem = 64
vcpus = 1
maxvcpus = 1
cpus = "all"
cpu_weight = 512
cap = 50
hap = 0
shadow_memory = 8
on_crash = "preserve"
on_reboot = "destroy"
serial = "pty"
cpuid = "host,sse3=0"
cpu = "amd"
seed = 7
processors = 4
acpi = 1
vnc = 0
disk = []
vif = [ ]
`),
  );
  assertEquals(file, {
    options: {
      name: "debian",
      type: "pvh",
      kernel: "/boot/vmlinuz",
      ramdisk: "/boot/initrd",
      memory: 64 * 2 ** 20,
      vcpus: 1,
      weight: 512,
      cap: 50,
      paging: "shadow",
      shadowMemory: 8 * 2 ** 20,
      cpuid: "host,sse3=0",
      cmdline: "root=/dev/ram0 quiet",
    },
    host: { cpu: "amd", seed: 7, cpus: 4 },
    actions: { poweroff: "destroy", reboot: "destroy", crash: "preserve", watchdog: "destroy" },
    warnings: [],
  });
  assertEquals(memoryOf(file), { memory: 64 * 2 ** 20, shadowMemory: 8 * 2 ** 20 });
  const grows = async (more: string) => {
    const { options } = await readDomainFile(
      await written(`kernel = "k"; memory = 64; maxmem = 128; ${more}`),
    );
    return [options.memory, options.maxMemory];
  };
  assertEquals(await grows(`type = "pvh"`), [64 << 20, 128 << 20]);
  assertEquals(await grows(`type = "hvm"; xen = 1`), [64 << 20, 128 << 20]);
  await assertRejects(() => grows(`type = "pvh"; xen = 0`), Error, "maxmem: a domain keeps");
  const old = await readDomainFile(await written(`builder = "hvm"; kernel = "k"; maxmem = 32`));
  assertEquals(old.options, { type: "hvm", kernel: "k", memory: 32 * 2 ** 20 });
});

Deno.test("readDomainFile() passes root and extra over when cmdline is given, as xl does", async () => {
  const path = await written(`kernel = "k"\ncmdline = "a"\nextra = "b"`);
  const { options, warnings } = await readDomainFile(path);
  assertEquals(options.cmdline, "a");
  assertEquals(warnings, [`${path}:3: root and extra are passed over, because cmdline is given`]);
});

Deno.test("readDomainFile() refuses by name what does not apply, with the line and the reason", async () => {
  const cases: [text: string, message: string][] = [
    [`disk = [ "a,raw,xvda,w" ]`, "disk: cannot be given: no block device is there yet"],
    [`vif = [ "bridge=xenbr0" ]`, "vif: cannot be given: no network is there yet"],
    [`firmware = "ovmf"`, "firmware: cannot be given: no firmware is there"],
    [`boot = "c"`, "boot: cannot be given: no firmware"],
    [`device_model_version = "qemu-xen"`, "device_model_version: cannot be given: device models"],
    [`pci = [ "01:00.0" ]`, "pci: cannot be given: no device of a real machine"],
    [`vnc = 1`, "vnc: 0 is the one value available, got 1: the screen is text"],
    [`acpi = 0`, "acpi: 1 is the one value available"],
    [`nestedhvm = 1`, "nestedhvm: 0 is the one value available"],
    [`type = "vax"`, `type: expected one of "bare", "hvm", "pvh", "pv", got "vax"`],
    [`builder = "pvh"`, `builder: expected one of "hvm", "generic", got "pvh"`],
    [`memory = "lots"`, `memory: expected MiB from 2 to 3072, got "lots"`],
    [`memory = [ 1 ]`, "memory: expected MiB from 2 to 3072, got [1]"],
    ["memory = 5000", "memory: expected MiB from 2 to 3072, got 5000"],
    ["maxmem = 3073", "maxmem: expected MiB from 2 to 3072, got 3073"],
    ["memory = 1", "memory: expected MiB from 2 to 3072, got 1"],
    [`vcpus = 0`, "vcpus: expected processors from 1 to 16, got 0"],
    [`vcpus = 17`, "vcpus: expected processors from 1 to 16, got 17"],
    [`vcpus = -1`, "vcpus: expected processors from 1 to 16, got -1"],
    [`vcpus = "2.5"`, 'vcpus: expected processors from 1 to 16, got "2.5"'],
    [`vcpus = [ 2 ]`, "vcpus: expected processors from 1 to 16, got [2]"],
    [`maxvcpus = 0`, "maxvcpus: expected processors from 1 to 16, got 0"],
    [`maxvcpus = 17`, "maxvcpus: expected processors from 1 to 16, got 17"],
    [
      `vcpus = 2; maxvcpus = 4`,
      "maxvcpus: a domain keeps what it starts with: expected vcpus's 2, got 4",
    ],
    [`processors = 0`, "processors: expected processors from 1 to 8, got 0"],
    [`processors = 9`, "processors: expected processors from 1 to 8, got 9"],
    [`cpu_weight = 0`, "cpu_weight: expected a weight from 1 to 65535, got 0"],
    [`hap = 2`, "hap: expected 0 or 1, got 2"],
    [`shadow_memory = 8`, "shadow_memory: shadow paging has a pool: say hap = 0 too"],
    [
      `memory = 64; maxmem = 128`,
      "maxmem: a domain keeps what it starts with: expected memory's 64",
    ],
    [`maxvcpus = 4`, "maxvcpus: a domain keeps what it starts with: expected vcpus's 1, got 4"],
    [`on_crash = "coredump-restart"`, `on_crash: "coredump-restart" is not available yet`],
    [`on_crash = "explode"`, `on_crash: expected one of "destroy", "restart", "preserve"`],
    [`serial = [ "pty", "pty" ]`, "serial: one serial port is there"],
    [`serial = "tcp::4444"`, `serial: expected one of "pty", "stdio", "mon:stdio", got`],
    [`cpuid = [ "1:ecx=x" ]`, "cpuid: the list of 32-digit strings is not read"],
    [`cpus = "2-3"`, `cpus: expected "all" or "0", got "2-3"`],
    [`name = 5`, "name: expected a string in quotes, got 5"],
    [`memry = 64`, "memry: xl.cfg has no such key; did you mean memory?"],
    [
      `frobnicate = 1`,
      "frobnicate: xl.cfg has no such key; there are: name, type, builder, kernel",
    ],
    [`constructor = 1`, "constructor: xl.cfg has no such key"],
    [`processors = 9`, "processors: expected processors from 1 to 8, got 9"],
    [`seed = -1`, "seed: expected a seed from 0 to 4294967295, got -1"],
  ];
  for (const [text, message] of cases) {
    const path = await written(`kernel = "k"\n\n${text}\n`);
    const error = await assertRejects(() => readDomainFile(path), RangeError);
    assertEquals(error.message.slice(0, `${path}:3: ${message}`.length), `${path}:3: ${message}`);
  }
  const path = await written(`name = "x"`);
  const error = await assertRejects(() => readDomainFile(path), RangeError);
  assertEquals(error.message, `${path}: names no kernel: expected kernel = "FILE"`);
});

Deno.test("readDomainFile() takes modules: an object, or a function that gives one", async () => {
  const path = await written(
    `export default { name: "b" as string, kernel: "k", memory: "1G" };
     export const host = { cpu: "amd", seed: 3 };`,
    "ts",
  );
  const file = await readDomainFile(path);
  assertEquals(file.options, { name: "b", kernel: "k", memory: "1G" });
  assertEquals(file.host, { cpu: "amd", seed: 3 });
  assertEquals(memoryOf(file).memory, 2 ** 30);
  const made = await written(`export default async () => ({ kernel: new Uint8Array(3) });`, "ts");
  assertEquals((await readDomainFile(made)).options, { kernel: new Uint8Array(3) });
  for (const wrong of ["5", "[]", "null", "() => 'x'"]) {
    const bad = await written(`export default ${wrong};`, "ts");
    await assertRejects(() => readDomainFile(bad), TypeError, "the default export has to be");
  }
});

Deno.test("parseSize() takes units, and nothing else", () => {
  assertEquals(["4096", "64K", "256M", "1GiB"].map(parseSize), [4096, 65536, 2 ** 28, 2 ** 30]);
  for (const wrong of ["", "M", "-1", "1X", "0.3"]) {
    assertThrows(() => parseSize(wrong), RangeError);
  }
});

/** What a text comes to: nothing, or the message of an error of the configuration's own. */
function refusal(text: string): string {
  try {
    parseXl(text, "x.cfg");
    return "";
  } catch (error) {
    if (error instanceof SyntaxError) return error.message;
    throw error;
  }
}

Deno.test("parseXl() bounds what it nests and what it quotes", () => {
  assertEquals(
    refusal(`disk = ${"[".repeat(20_000)}`),
    "x.cfg:1: expected lists within lists to a depth of 16, got [",
  );
  assertEquals(
    refusal(`a = 1\ndisk = ${"[".repeat(17)}1${"]".repeat(17)}`),
    "x.cfg:2: expected lists within lists to a depth of 16, got [",
  );
  assertEquals(values(`a = ${"[".repeat(16)}1${"]".repeat(16)}`).a, [[[[[[[[[[[[[[[[
    1,
  ]]]]]]]]]]]]]]]]);
  const long = "n".repeat(2 ** 20);
  for (
    const text of [long, `${long} 1`, `a = ${long}`, `"${long}`, `a = "${long}`, `${long} += 1`]
  ) {
    const message = refusal(text);
    assert(message === "" || (message.includes("characters)") && message.length < 300), message);
  }
  // Keys that every object inherits are keys like any other.
  assertEquals(Object.keys(parseXl("__proto__ = 1\nconstructor = 2\ntoString += 'a'")), [
    "__proto__",
    "constructor",
    "toString",
  ]);
});

Deno.test("readDomainFile() quotes no long name, and reads no long file", async () => {
  const folder = await Deno.makeTempDir();
  const refused = async (text: string) => {
    await Deno.writeTextFile(`${folder}/x.cfg`, text);
    return (await assertRejects(() => readDomainFile(`${folder}/x.cfg`), Error)).message;
  };
  const long = "n".repeat(2 ** 19);
  const kernel = 'kernel = "k"\n';
  const texts = [
    `${long} = 1`,
    `type = "${long}"`,
    `memory = "${long}"`,
    `memory = ${"9".repeat(4000)}`,
  ];
  for (
    const text of [...texts, `hap = [ "${long}" ]`, `on_crash = "${long}"`, `hpet = "${long}"`]
  ) {
    const message = await refused(kernel + text);
    assert(message.length < 1500, `${message.length} characters for ${text.slice(0, 20)}`);
  }
  assertEquals(
    (await refused(" ".repeat(2 ** 20 + 1))).replace(folder, ""),
    "configuration: at most 1 MB was expected, /x.cfg has 1 MB",
  );
  const folderError = await assertRejects(() => readDomainFile(folder), Error);
  assertEquals(folderError.message, `configuration: a file was expected, ${folder} is a folder`);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("parseXl() gives values or a SyntaxError of a line for any text", () => {
  const words = [
    "a",
    "name",
    "=",
    "+=",
    "[",
    "]",
    ",",
    ";",
    "\n",
    '"s"',
    "'t'",
    "1",
    "0x1f",
    "-3",
    "#c\n",
    '"',
    "\0",
    "é",
    "9a",
    " ",
  ];
  let x = 0x2026, refused = 0;
  const next = (below: number) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
  for (let round = 0; round < 5000; round++) {
    const text = Array.from({ length: next(20) }, () => words[next(words.length)]).join(
      next(2) ? " " : "",
    );
    const message = refusal(text);
    if (message === "") continue;
    refused++;
    assert(/^x\.cfg:\d+: /.test(message) && message.length < 300, JSON.stringify(text));
  }
  assert(refused > 1000 && refused < 4990);
});
