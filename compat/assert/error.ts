/** Thrown by every assertion that does not hold. */
export class AssertionError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

/** `message`, followed by the caller's own note when there is one. */
export function withNote(message: string, note?: string): string {
  return note ? `${message}: ${note}` : message;
}
