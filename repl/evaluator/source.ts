/**
 * From what was typed to what the engine can run: types stripped, static imports made dynamic, checks
 * for ctrl-C put into loops, functions and awaits.
 *
 * @module
 */
import { stripTypeScriptTypes } from "node:module";
import process from "node:process";
import { type Node, parse, type Program } from "acorn";

/** The global that prepared code calls; see evaluator.ts. */
export const HOOKS = "__xvm__";

/** What became of a text. */
export type Prepared =
  | { kind: "ready"; js: string }
  /** A beginning: more lines can make it whole. */
  | { kind: "incomplete" }
  | { kind: "wrong"; error: SyntaxError };

type Parsed = { js: string; program: Program };

const parseScript = (js: string): Program =>
  parse(js, {
    ecmaVersion: "latest",
    sourceType: "script",
    allowAwaitOutsideFunction: true,
    allowImportExportEverywhere: true,
    allowHashBang: true,
  });

/** Makes `text`, TypeScript or JavaScript, ready for the engine. */
export function prepare(input: string): Prepared {
  // What a script would dispose of at its end stays at a prompt, which has none.
  const text = input.replace(/^(?:await\s+)?using(?=\s+[A-Za-z_$][\w$]*\s*=)/gm, "const");
  let parsed: Parsed | null = null;
  if (/^\s*\{[^]*\}\s*$/.test(text)) parsed = tryParse(`(${text.trim()}\n)`); // an object, not a block
  parsed ??= tryParse(text);
  if (parsed) return { kind: "ready", js: rewrite(parsed) };
  const error = explain(text);
  return error ? { kind: "wrong", error } : { kind: "incomplete" };
}

/** Whether `text` can be run as it stands. */
export function isValid(text: string): boolean {
  return tryParse(text) !== null;
}

function tryParse(text: string): Parsed | null {
  const variants = [
    () => text,
    () => stripTypeScriptTypes(text, { mode: "strip" }),
    () => stripTypeScriptTypes(text, { mode: "transform" }),
  ];
  for (const variant of variants) {
    try {
      const js = quietly(variant);
      // The transformer drops an unfinished comment instead of refusing it.
      if (js.trim() === "" && text.includes("/*") && !text.includes("*/")) return null;
      return { js, program: parseScript(js) };
    } catch {
      // the next variant may understand it
    }
  }
  return null;
}

/** `stripTypeScriptTypes` warns once that it is experimental; nobody at a prompt can act on that. */
function quietly<T>(fn: () => T): T {
  const emit = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return fn();
  } finally {
    process.emitWarning = emit;
  }
}

/** The error that makes `text` wrong, or null when it only lacks an end. */
function explain(text: string): SyntaxError | null {
  const atEnd = (js: string) => {
    try {
      parseScript(js);
      return false;
    } catch (error) {
      const { pos, message } = error as SyntaxError & { pos: number };
      if (/Unterminated (template|comment)/.test(message)) return true;
      return pos >= js.trimEnd().length && !/Unterminated/.test(message);
    }
  };
  if (atEnd(text)) return null;
  try {
    const js = quietly(() => stripTypeScriptTypes(text, { mode: "strip" }));
    if (atEnd(js)) return null;
  } catch {
    // explained below
  }
  try {
    quietly(() => stripTypeScriptTypes(text, { mode: "transform" }));
    parseScript(text);
    return new SyntaxError("cannot be parsed");
  } catch (error) {
    return fromTransformer(error as Error, text);
  }
}

function fromTransformer(error: Error, text: string): SyntaxError | null {
  const [first] = error.message.split("\n");
  const at = error.message.match(/:(\d+):(\d+)\s*$/);
  const line = Number(at?.[1] ?? 1), column = Number(at?.[2] ?? 1);
  const lines = text.trimEnd().split("\n");
  const past = line > lines.length || (line === lines.length && column > lines[line - 1].length);
  if (
    !/Unterminated string/.test(first) &&
    (past || /got '<eof>'|Unexpected eof|token `<eof>`|Unterminated template/.test(first))
  ) {
    return null;
  }
  const message = first.replace(/^SyntaxError: /, "").replace(/ \(\d+:\d+\)$/, "");
  return new SyntaxError(`${message} (line ${line}, column ${column})`);
}

/** A replacement of `js.slice(start, end)`. */
interface Edit {
  start: number;
  end: number;
  text: string;
  /** Whether it closes what an earlier edit opened. */
  closes?: true;
}

// deno-lint-ignore no-explicit-any
type AnyNode = Node & Record<string, any>;

const LOOPS = new Set([
  "ForStatement",
  "ForInStatement",
  "ForOfStatement",
  "WhileStatement",
  "DoWhileStatement",
]);
const FUNCTIONS = new Set(["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"]);

/** The program with imports made dynamic and interrupt checks put in; lines stay where they are. */
function rewrite({ js, program }: Parsed): string {
  const edits: Edit[] = [];
  const insert = (at: number, text: string) => edits.push({ start: at, end: at, text });
  const close = (at: number, text: string) =>
    edits.push({ start: at, end: at, text, closes: true });
  const check = `${HOOKS}.check();`;

  const body = (node: AnyNode) => {
    if (node.type === "BlockStatement") insert(node.start + 1, check);
    else {
      insert(node.start, `{${check}`);
      close(node.end, "}");
    }
  };
  const visit = (node: AnyNode) => {
    if (LOOPS.has(node.type)) body(node.body);
    if (FUNCTIONS.has(node.type)) {
      if (node.body.type === "BlockStatement") insert(afterDirectives(node.body), check);
      else {
        const start = expressionStart(js, node.body);
        insert(start, `(${HOOKS}.check(),`);
        close(node.end, ")");
      }
    }
    if (node.type === "AwaitExpression") {
      insert(node.start + "await".length, ` ${HOOKS}.await(`);
      close(node.end, ")");
    }
    if (node.type === "ForOfStatement" && node.await) {
      insert(node.right.start, `${HOOKS}.iterate(`);
      close(node.right.end, ")");
    }
    if (node.type === "ImportExpression") {
      edits.push({ start: node.start, end: node.start + "import".length, text: `${HOOKS}.import` });
    }
    if (node.type === "ImportDeclaration") {
      edits.push({ start: node.start, end: node.end, text: dynamicImport(node) });
      return;
    }
    if (node.type === "ExportNamedDeclaration" && node.declaration) {
      edits.push({ start: node.start, end: node.declaration.start, text: "" });
    }
    for (const child of children(node)) visit(child);
  };
  visit(program as AnyNode);
  return apply(js, edits);
}

/** Where an arrow function's expression starts, before a parenthesis that the tree leaves out. */
function expressionStart(js: string, body: AnyNode): number {
  return js.lastIndexOf("=>", body.start) + 2;
}

function afterDirectives(block: AnyNode): number {
  const directives = block.body.filter((it: AnyNode) => it.directive !== undefined);
  return directives.at(-1)?.end ?? block.start + 1;
}

function* children(node: AnyNode): Generator<AnyNode> {
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (child && typeof child.type === "string") yield child;
    }
  }
}

function dynamicImport(node: AnyNode): string {
  const load = `await ${HOOKS}.await(${HOOKS}.import(${node.source.raw}))`;
  const names: string[] = [];
  let whole = "";
  for (const it of node.specifiers as AnyNode[]) {
    if (it.type === "ImportNamespaceSpecifier") whole = it.local.name;
    else if (it.type === "ImportDefaultSpecifier") names.push(`default: ${it.local.name}`);
    else {
      const imported = it.imported.name ?? it.imported.raw;
      names.push(imported === it.local.name ? imported : `${imported}: ${it.local.name}`);
    }
  }
  if (whole && names.length) return `const ${whole} = ${load}, { ${names.join(", ")} } = ${whole};`;
  if (whole) return `const ${whole} = ${load};`;
  return names.length ? `const { ${names.join(", ")} } = ${load};` : `${load};`;
}

function apply(js: string, edits: Edit[]): string {
  // At one place what closes comes first, the inner before the outer; the rest keeps its order.
  const ordered = edits.map((edit, i) => ({ edit, rank: edit.closes ? -1 - i : i }))
    .sort((a, b) => a.edit.start - b.edit.start || a.rank - b.rank);
  let result = "", at = 0;
  for (const { edit } of ordered) {
    if (edit.start < at) continue;
    result += js.slice(at, edit.start) + edit.text;
    at = edit.end;
  }
  return result + js.slice(at);
}
