/**
 * What the devices' tests share: a world that records, a seeded generator, the save/load property.
 *
 * @module
 */
import type { Device, DeviceContext, Size } from "./device.ts";

/** A world under the test's control. */
export class TestContext implements DeviceContext {
  /** Guest ns. */
  time = 0;
  readonly lines: boolean[] = new Array(16).fill(false);
  /** Every change of a line, as `[line, level, time]`. */
  readonly edges: [line: number, level: boolean, time: number][] = [];
  now(): number {
    return this.time;
  }
  irq(line: number, level: boolean): void {
    this.lines[line] = level;
    this.edges.push([line, level, this.time]);
  }
  reschedule(): void {}
}

/** Runs `device` to `time`, stopping at every deadline as the board does. */
export function runTo(device: Device, context: TestContext, time: number): void {
  for (;;) {
    const next = device.deadline();
    if (next > time) break;
    context.time = Math.max(context.time, next);
    device.run(context.time);
    if (device.deadline() <= next) throw new Error(`${device.name} is stuck at ${next} ns`);
  }
  context.time = time;
}

/** A seeded generator of integers: `next(n)` is in 0 to n - 1 (32-bit xorshift, Marsaglia 2003). */
export class Random {
  constructor(public seed: number) {}
  next(below: number): number {
    let x = this.seed | 0 || 1;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.seed = x;
    return (x >>> 0) % below;
  }
  pick<T>(items: readonly T[]): T {
    return items[this.next(items.length)];
  }
}

/** Random accesses to everything the device answers, time passing; what was read and driven. */
export function activity(
  device: Device,
  context: TestContext,
  random: Random,
  count: number,
  extra?: (random: Random) => void,
): number[] {
  const seen: number[] = [];
  const sizes = ([1, 2, 4] as Size[]).filter((size) => size <= device.width);
  for (let i = 0; i < count; i++) {
    const size = random.pick(sizes);
    const value = random.pick([random.next(256), random.next(2 ** 32), 0, 0xff]) % 256 ** size;
    const kind = random.next(8);
    if (kind === 0) extra?.(random);
    else if (kind === 1) runTo(device, context, context.time + random.next(3_000_000));
    else if (device.ports.length && (kind < 5 || !device.mmio.length)) {
      const [first, last] = random.pick(device.ports);
      const port = first + random.next(last - first + 1);
      if (random.next(2)) seen.push(device.read!(port, size));
      else device.write!(port, size, value);
    } else if (device.mmio.length) {
      const range = random.pick(device.mmio);
      const address = range.base + random.next(Math.min(range.size, 0x400)) * 4 % range.size;
      if (random.next(2)) seen.push(device.mmioRead!(address, size));
      else device.mmioWrite!(address, size, value);
    }
    seen.push(context.edges.length, device.deadline());
  }
  return seen;
}

/**
 * After random activity: put into a fresh device, the state is all there is: from there both go on in
 * the same way.
 */
export function checkSaveLoad<D extends Device>(
  make: (context: TestContext) => D,
  options: { rounds?: number; extra?: (device: D, random: Random) => void } = {},
): void {
  for (let seed = 1; seed <= (options.rounds ?? 20); seed++) {
    const one = new TestContext();
    const first = make(one);
    const poke = (device: D) => (random: Random) => options.extra?.(device, random);
    activity(first, one, new Random(seed * 7919), 300, poke(first));
    const saved = structuredClone(first.state);
    const other = new TestContext();
    other.time = one.time;
    const second = make(other);
    second.state = structuredClone(saved);
    const where = `${first.name}, seed ${seed}`;
    one.edges.length = 0;
    const a = activity(first, one, new Random(seed), 300, poke(first));
    const b = activity(second, other, new Random(seed), 300, poke(second));
    same(b, a, `${where}: what was read after loading`);
    same([text(second.state)], [text(first.state)], `${where}: at the end`);
  }
}

/** A state as text. */
const text = (state: object): string =>
  JSON.stringify(state, (_, value) => typeof value === "bigint" ? `${value}n` : value);

/** @throws {Error} naming the first place at which the two differ. */
function same<T>(found: ArrayLike<T>, expected: ArrayLike<T>, what: string): void {
  for (let i = 0; i < Math.max(found.length, expected.length); i++) {
    if (found[i] === expected[i]) continue;
    throw new Error(`${what}: item ${i} is ${found[i]}, expected ${expected[i]}`);
  }
}
