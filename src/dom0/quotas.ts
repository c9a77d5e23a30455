/**
 * How much a domain may have of the store, and how much it has. Domain 0 may have everything.
 *
 * @module
 */

/** Quotas by the names that CONTROL "quota" has for them, as xenstored of Xen 4.17 has them. */
export const QUOTAS = {
  /** Nodes that a domain owns. */
  nodes: 1000,
  /** One more is let through: xenstored compares before it adds. */
  watches: 128,
  /** At once; one more is let through here, too. */
  transactions: 10,
  /** Requests that are not done: there was no room for the answer, or for an event that they made. */
  outstanding: 20,
  /** That a transaction looks at. */
  "transaction-nodes": 1024,
  /** Bytes of all that is kept for a domain. */
  memory: 2.5 * 2 ** 20,
  /** Bytes of a node; it is less. */
  "node-size": 2048,
  /** Characters of a path. */
  "path-max": 2048,
  /** Entries of a node's permissions. */
  permissions: 5,
};
export type Quotas = typeof QUOTAS;

/** What a domain has. All of it follows from nodes, watches, transactions and messages. */
export interface Account {
  nodes: number;
  outstanding: number;
  memory: number;
}

export class Accounts {
  readonly #accounts = new Map<number, Account>();

  constructor(readonly quotas: Quotas) {}

  of(domain: number): Account {
    let account = this.#accounts.get(domain);
    if (!account) {
      account = { nodes: 0, outstanding: 0, memory: 0 };
      this.#accounts.set(domain, account);
    }
    return account;
  }
  close(domain: number): void {
    this.#accounts.delete(domain);
  }
  clear(): void {
    this.#accounts.clear();
  }
  /** Those who have anything, by number. */
  get all(): [number, Account][] {
    return [...this.#accounts].filter(([, account]) => Object.values(account).some(Boolean))
      .sort((a, b) => a[0] - b[0]);
  }

  /** Has a domain so much of one thing, or more? */
  reached(domain: number, what: keyof Account): boolean {
    return domain !== 0 && this.of(domain)[what] >= this.quotas[what];
  }
  /** Bytes more, or less, are kept for a domain. @returns false, and nothing changes: too many */
  charge(domain: number, bytes: number, checked: boolean): boolean {
    const account = this.of(domain), memory = account.memory + bytes;
    if (checked && domain !== 0 && memory >= this.quotas.memory) return false;
    account.memory = memory;
    return true;
  }
}
