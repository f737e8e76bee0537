/** The state that an object keeps under each key: its interfaces for handlers, and its reading and encryption. */

import { retryWhileUnavailable } from '../../engine/retry/retry-while-unavailable.ts'
import type { Encryptor } from '../../engine/values/encryptor.ts'
import type { StateKey, StateStore } from '../../store/state-store.ts'

/** The state of an object under one key, as readers see it. */
export interface ReadonlyState {
  /**
   * Reads the value under this name; undefined if there is none. The result is recorded in the journal, so
   * that a later attempt gets the same one.
   */
  get<T = unknown>(name: string): Promise<T | undefined>
  /** Lists the names that have values, sorted. The result is recorded in the journal too. */
  keys(): Promise<string[]>
}

/** The state of an object under one key, as handlers see it. */
export interface ObjectState extends ReadonlyState {
  /**
   * Stores a value under this name, in the same commit as the journal entry: once, however often the handler
   * runs. Undefined deletes the value.
   * @throws PawlError `value-unkeepable`, `limit-exceeded`, `superseded`, `invalid-option`
   */
  set(name: string, value: unknown): Promise<void>
  /** Deletes the value under this name. */
  delete(name: string): Promise<void>
}

/** Takes the place of the execution's id in encryption: state belongs to no execution. */
const STATE = 'state'

/** Encrypts a value for the place where it is stored; null stays null. */
export function encryptState(
  encryptor: Encryptor,
  stateKey: StateKey,
  name: string,
  bytes: Buffer | null,
): Buffer | null {
  return bytes && encryptor.encrypt(bytes, STATE, purposeOf(stateKey, name))
}

/**
 * Reads and decrypts all encoded values under a key, by name.
 * @throws PawlError `decryption-failed`, `store-unavailable`
 */
export async function readState(
  store: StateStore,
  encryptor: Encryptor,
  stateKey: StateKey,
  giveUp: () => boolean,
): Promise<Map<string, Buffer>> {
  const stored = await retryWhileUnavailable(() => store.read(stateKey), giveUp)
  return new Map(
    [...stored].map(([name, value]) => [
      name,
      encryptor.decrypt(value, STATE, purposeOf(stateKey, name)),
    ]),
  )
}

function purposeOf({ object, key }: StateKey, name: string): string {
  return `state ${JSON.stringify([object, key, name])}`
}
