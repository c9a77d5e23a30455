/**
 * Checks what the house forbids (design.md section 2): imports against the layers, vendors named in
 * generic code, and the host's clock or randomness below `xen/world`.
 *
 * `deno run --allow-read scripts/layers.ts` prints one line per violation and exits 1 when there is
 * any. Tests (`*_test.ts`) may import what they like.
 *
 * @module
 */
import { walk } from "@std/fs";

/** One broken rule. */
export interface Violation {
  /** Path from the repository's root. */
  file: string;
  /** Line, from 1. */
  line: number;
  /** What is wrong, and what would be right. */
  message: string;
}

/** Which folders (or files) of src a layer may import besides itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  "src/abi": [],
  "src/machine": ["src/abi"],
  "src/devices": ["src/abi"],
  "src/afterburn": ["src/abi", "src/machine/isa"],
  "src/hvm": ["src/abi", "src/machine"],
  "src/pv": ["src/abi", "src/machine"],
  "src/xen": ["src/abi", "src/machine", "src/hvm", "src/pv"],
  "src/dom0": ["src/abi", "src/machine", "src/hvm", "src/pv", "src/xen"],
  "src/builder": [
    "src/abi",
    "src/machine",
    "src/hvm",
    "src/pv",
    "src/xen",
    "src/devices",
    "src/afterburn",
  ],
  "src/debug": [
    "src/abi",
    "src/machine",
    "src/hvm",
    "src/pv",
    "src/xen",
    "src/devices",
    "src/dom0",
    "src/builder",
  ],
  "mod.ts": ["src"],
  "repl": ["mod.ts", "src", "deno.json"],
  "scripts": ["mod.ts", "src", "repl"],
  "tests": ["mod.ts", "src", "repl", "scripts"],
  "compat": [],
};

const GENERIC = ["src/xen/", "src/builder/", "src/devices/"];
const VENDOR = /vmx|svm|vmcs|vmcb/i;
/** Where the host is configured, a vendor is chosen by its name. */
const HOST_CONFIGURATION = ["src/xen/host.ts", "src/builder/host.ts"];

const DETERMINISTIC = ["src/machine/", "src/hvm/", "src/xen/", "src/devices/"];
const HOST_INPUT =
  /\b(Date\.now|new Date\(\)|performance\.now|Math\.random|getRandomValues|randomUUID|setTimeout|setInterval)\b/;
/** The one door for what comes from outside. */
const WORLD = "src/xen/world";

/** Beyond 2 GiB it comes out negative in optimized code: Machine.size says why. */
const RAM_LENGTH = /\bram\.length\b/;

/** Only here devices and the hypervisor meet. */
const BOARD = "src/builder/board";

/** The text with comments blanked, so that lines and columns stay where they are. */
export function withoutComments(text: string): string {
  const token =
    /\/\/[^\n]*|\/\*[^]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[^])*`|(?<=[(,=:[!&|?{};\n]\s*)\/(?![/*])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\//g;
  return text.replace(
    token,
    (part) => /^\/[/*]/.test(part) ? part.replace(/[^\n]/g, " ") : part,
  );
}

const IMPORT = /\b(?:from|import)\s*\(?\s*["']([^"']+)["']/g;

/** The root-relative path that `specifier` means in `file`, or null for a package. */
function resolve(file: string, specifier: string): string | null {
  if (specifier === "xvm") return "mod.ts";
  if (!specifier.startsWith(".")) return null;
  return new URL(specifier, `file:///${file}`).pathname.slice(1);
}

const within = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`);

const layerOf = (path: string) => Object.keys(MAY_IMPORT).find((layer) => within(path, layer));

function checkImport(file: string, specifier: string): string | null {
  const layer = layerOf(file);
  if (!layer) {
    return `no layer is known for this place; known: ${Object.keys(MAY_IMPORT).join(" ")}`;
  }
  const target = resolve(file, specifier);
  if (target === null) {
    const bare = layer === "src/abi" || layer === "src/devices";
    return bare ? `${layer} imports no package, but imports "${specifier}"` : null;
  }
  if (within(target, layer) || MAY_IMPORT[layer].some((ok) => within(target, ok))) return null;
  const allowed = MAY_IMPORT[layer].join(", ") || "nothing";
  return `${layer} imports ${target}; besides itself it may import ${allowed}`;
}

/** The violations in one file; `file` is its path from the root, with `/`. */
export function checkFile(file: string, text: string): Violation[] {
  if (file.endsWith("_test.ts")) return [];
  const code = withoutComments(text);
  const found: Violation[] = [];
  const report = (line: number, message: string) => found.push({ file, line, message });
  const lineAt = (index: number) => code.slice(0, index).split("\n").length;

  const imported: string[] = [];
  for (const match of code.matchAll(IMPORT)) {
    const message = checkImport(file, match[1]);
    if (message) report(lineAt(match.index), message);
    imported.push(resolve(file, match[1]) ?? "");
  }
  if (file.startsWith("src/builder/") && !file.startsWith(BOARD)) {
    const both = ["src/devices", "src/xen"].every((it) =>
      imported.some((path) => within(path, it))
    );
    if (both) report(1, `devices and xen meet only in ${BOARD}.ts`);
  }

  const generic = GENERIC.some((folder) => file.startsWith(folder)) &&
    !HOST_CONFIGURATION.includes(file);
  const deterministic = DETERMINISTIC.some((folder) => file.startsWith(folder)) &&
    !file.startsWith(WORLD);
  for (const [i, line] of code.split("\n").entries()) {
    const vendor = generic ? line.match(VENDOR) : null;
    if (vendor) report(i + 1, `generic code names a vendor: "${vendor[0]}"; ask through hvm/ops`);
    const host = deterministic ? line.match(HOST_INPUT) : null;
    if (file.startsWith("src/") && RAM_LENGTH.test(line)) {
      report(i + 1, "the length of memory is machine.size");
    }
    if (host) report(i + 1, `${host[1]} is not guest time or seeded; it enters through ${WORLD}`);
  }
  return found;
}

/** The violations of all TypeScript files under `root`, and how many files there are. */
export async function checkTree(root: URL): Promise<{ files: number; violations: Violation[] }> {
  const violations: Violation[] = [];
  let files = 0;
  for (const top of ["mod.ts", "src", "repl", "scripts", "tests", "compat"]) {
    const start = new URL(top, root);
    try {
      for await (const { path } of walk(start, { exts: [".ts"], includeDirs: false })) {
        const file = path.slice(decodeURIComponent(root.pathname).length);
        violations.push(...checkFile(file, await Deno.readTextFile(path)));
        files++;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return { files, violations };
}

if (import.meta.main) {
  const { files, violations } = await checkTree(new URL("../", import.meta.url));
  for (const { file, line, message } of violations) console.error(`${file}:${line}: ${message}`);
  console.log(`layers: ${files} files, ${violations.length} violations`);
  Deno.exit(violations.length === 0 && files > 0 ? 0 : 1);
}
