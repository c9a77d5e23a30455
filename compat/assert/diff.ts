/** Values as text, one property to a line, so that two of them can be compared line by line. */
export function show(value: unknown): string {
  return Deno.inspect(value, {
    depth: 20,
    sorted: true,
    trailingComma: true,
    compact: false,
    iterableLimit: 10_000,
    strAbbreviateSize: 100_000,
  });
}

const MAX_LINES = 2_000;
const CONTEXT = 3;

/** A line diff of the two values: `-` stands before what was given, `+` before what was expected. */
export function diff(actual: unknown, expected: unknown): string {
  const bothText = typeof actual === "string" && typeof expected === "string";
  const a = (bothText ? actual : show(actual)).split("\n");
  const b = (bothText ? expected : show(expected)).split("\n");
  const lines = a.length > MAX_LINES || b.length > MAX_LINES ? blunt(a, b) : aligned(a, b);
  return ["    [Diff] Actual / Expected", "", ...elide(lines)].join("\n");
}

/** Everything that is common at both ends kept, the middle replaced as a whole. */
function blunt(a: string[], b: string[]): string[] {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  return [
    ...a.slice(0, head).map((line) => `    ${line}`),
    ...a.slice(head, a.length - tail).map((line) => `-   ${line}`),
    ...b.slice(head, b.length - tail).map((line) => `+   ${line}`),
    ...a.slice(a.length - tail).map((line) => `    ${line}`),
  ];
}

/** The shortest edit by the longest common subsequence of lines. */
function aligned(a: string[], b: string[]): string[] {
  const width = b.length + 1;
  const best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] = a[i] === b[j]
        ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const lines: string[] = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) lines.push(`    ${a[i++]}`), j++;
    else if (
      j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])
    ) lines.push(`-   ${a[i++]}`);
    else lines.push(`+   ${b[j++]}`);
  }
  return lines;
}

/** Long stretches without a change are cut down to a few lines of context. */
function elide(lines: string[]): string[] {
  const near = lines.map((_, i) =>
    lines.slice(Math.max(0, i - CONTEXT), i + CONTEXT + 1).some((line) => !line.startsWith(" "))
  );
  return lines.flatMap((line, i) => near[i] ? [line] : near[i - 1] ?? true ? ["    ..."] : []);
}
