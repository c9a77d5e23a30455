// Sets the shared word at SIGINT, also while the main thread is busy. See interrupt.ts.

const scope = self as unknown as { onmessage: (event: MessageEvent<Int32Array>) => void };

scope.onmessage = ({ data: word }) => {
  Deno.addSignalListener("SIGINT", () => {
    Atomics.store(word, 0, 1);
  });
};
