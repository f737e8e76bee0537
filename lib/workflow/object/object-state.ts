import { persist } from '../../engine/retry/retry-while-unavailable.ts'
import type { Sealer } from '../../engine/values/encryptor.ts'
import type { StateKey, StateStore } from '../../store/state-store.ts'

/** What an object keeps under a key, as a handler that only reads sees it. */
export interface ReadonlyState {
  /**
   * What is kept under this name; undefined if nothing is. It is journaled: a later attempt sees the
   * same.
   */
  get<T = unknown>(name: string): Promise<T | undefined>
  /** The names under which something is kept, in order. Journaled too. */
  keys(): Promise<string[]>
}

/** What an object keeps under a key. */
export interface ObjectState extends ReadonlyState {
  /**
   * Keeps a value under this name, in the same commit as its journal entry: once, however often the
   * handler runs. Undefined deletes it.
   * @throws PawlError `value-unkeepable`, `limit-exceeded`, `superseded`, `invalid-option`
   */
  set(name: string, value: unknown): Promise<void>
  /** Keeps nothing under this name any more. */
  delete(name: string): Promise<void>
}

/** What is kept is sealed for where it is kept, and outlives every execution. */
const STATE = 'state'

export function sealState(
  sealer: Sealer,
  at: StateKey,
  name: string,
  bytes: Buffer | null,
): Buffer | null {
  return bytes && sealer.seal(bytes, STATE, purposeOf(at, name))
}

/** All that is kept under a key, encoded, by name. @throws PawlError `decryption-failed`, `store-unavailable` */
export async function readState(
  store: StateStore,
  sealer: Sealer,
  at: StateKey,
  giveUp: () => boolean,
): Promise<Map<string, Buffer>> {
  const stored = await persist(() => store.read(at), giveUp)
  return new Map(
    [...stored].map(([name, value]) => [name, sealer.open(value, STATE, purposeOf(at, name))]),
  )
}

function purposeOf({ object, key }: StateKey, name: string): string {
  return `state ${JSON.stringify([object, key, name])}`
}
