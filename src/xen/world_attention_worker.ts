/**
 * The Worker of world_attention.ts: its timer and SIGINT set the shared words.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import {
  oncePerPress,
  SLICE_MS,
  WORD,
  type WorkerAnswer,
  type WorkerMessage,
} from "./world_attention.ts";

/** Ticks without a running guest after which the timer rests. */
const REST = 100;

const say = (answer: WorkerAnswer) => parentPort!.postMessage(answer);

let words: Int32Array<SharedArrayBuffer>;
let timer: ReturnType<typeof setInterval> | undefined;
let idle = 0;

const also: ((before: number) => void)[] = [];
let loading = Promise.resolve();

const onInterrupt = oncePerPress(() => {
  Atomics.store(words, WORD.interrupt, 1);
  Atomics.store(words, WORD.due, 1);
  const before = Atomics.add(words, WORD.unheard, 1);
  say("heard?");
  for (const each of also) each(before);
});

function own(on: boolean): void {
  if (!on) return Deno.removeSignalListener("SIGINT", onInterrupt);
  Deno.addSignalListener("SIGINT", onInterrupt);
  say("owns");
}

async function load(module: string, data: unknown): Promise<void> {
  const { default: atInterrupt } = await import(module);
  also.push(atInterrupt(words, data));
}

function tick(): void {
  if (Atomics.load(words, WORD.running) !== 0) {
    Atomics.store(words, WORD.due, 1);
    idle = 0;
  } else if (++idle > REST) {
    clearInterval(timer);
    timer = undefined;
    Atomics.store(words, WORD.ticking, 0);
    // A slice may have begun just before, and seen the timer tick.
    if (Atomics.load(words, WORD.running) !== 0) startTimer();
  }
}

function startTimer(): void {
  Atomics.store(words, WORD.ticking, 1);
  idle = 0;
  timer ??= setInterval(tick, SLICE_MS);
}

parentPort!.on("message", (message: WorkerMessage) => {
  if (message.kind === "start") {
    words = message.words;
    startTimer();
    Atomics.store(words, WORD.ready, 1);
  } else if (message.kind === "turn") say("turn");
  else if (message.kind === "tick") startTimer();
  else if (message.kind === "also") {
    loading = loading.then(() => load(message.module, message.data));
  } else void loading.then(() => own(message.own));
});
