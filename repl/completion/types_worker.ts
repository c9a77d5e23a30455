// TypeScript's language service over one module made of the session's inputs. See types.ts.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import type { Answer, Question } from "./types.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const FILE = join(ROOT, "__prompt__.ts");

// What the shell defines at the prompt, for the compiler.
const PRELUDE = `
import * as xvm from "xvm";
import type { Hypervisor } from "xvm";
type Domain__ = Awaited<ReturnType<Hypervisor["createDomain"]>>;
declare global { const hv: Hypervisor; const dom: Domain__; const vcpu: Domain__["vcpus"][number]; }
`;

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  lib: ["lib.esnext.d.ts", "lib.dom.d.ts"],
  types: [],
  strict: true,
  noEmit: true,
  allowImportingTsExtensions: true,
  paths: { xvm: [join(ROOT, "mod.ts")] },
};

let content = "", version = 0;

/** Each name that mod.ts exports is known at the prompt without an import. */
function exportedNames(): string {
  const program = service.getProgram();
  const source = program?.getSourceFile(join(ROOT, "mod.ts"));
  const symbol = source && program!.getTypeChecker().getSymbolAtLocation(source);
  const names = symbol
    ? program!.getTypeChecker().getExportsOfModule(symbol).map((it) => it.name)
    : [];
  return names.filter((it) => it !== "Hypervisor").map((it) => `import { ${it} } from "xvm";`).join(
    "\n",
  );
}

const service = ts.createLanguageService({
  getCompilationSettings: () => OPTIONS,
  getScriptFileNames: () => [FILE],
  getScriptVersion: (file) => file === FILE ? String(version) : "1",
  getScriptSnapshot: (file) => {
    const text = file === FILE ? content : ts.sys.readFile(file);
    return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text);
  },
  getCurrentDirectory: () => ROOT,
  getDefaultLibFileName: (options) => ts.getDefaultLibFilePath(options),
  fileExists: (file) => file === FILE || ts.sys.fileExists(file),
  readFile: ts.sys.readFile,
  readDirectory: ts.sys.readDirectory,
  directoryExists: (folder) => folder === dirname(FILE) || ts.sys.directoryExists(folder),
});

let imports: string | undefined;

function answer({ id, earlier, text, cursor }: Question): Answer {
  if (imports === undefined) {
    content = PRELUDE;
    version++;
    imports = exportedNames();
  }
  const head = `${PRELUDE}${imports}\n${earlier.join("\n;")}\n;`;
  content = head + text;
  version++;
  const at = head.length + cursor;
  const start = text.slice(0, cursor).match(/[\p{L}\p{N}_$-]*$/u)![0];
  const found = service.getCompletionsAtPosition(FILE, at, {
    includeCompletionsForModuleExports: false,
  });
  const items = (found?.entries ?? [])
    .filter((it) => it.name.startsWith(start) && it.kind !== ts.ScriptElementKind.warning)
    .filter((it) => found!.isMemberCompletion || it.kind === ts.ScriptElementKind.string)
    .map((it) => it.name);
  return { id, from: cursor - start.length, items };
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<Question>) => void;
  postMessage(answer: Answer): void;
};

scope.onmessage = ({ data }) => {
  let reply: Answer;
  try {
    reply = answer(data);
  } catch {
    reply = { id: data.id, from: data.cursor, items: [] };
  }
  scope.postMessage(reply);
};
