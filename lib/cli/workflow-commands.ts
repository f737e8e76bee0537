/** The `signal` and `cancel` commands of the command line. */

import { randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { type EncryptionKey, Encryptor } from '../engine/values/encryptor.ts'
import { PawlError } from '../errors/index.ts'
import { ChangeListener } from '../store/change-listener.ts'
import type { Database } from '../store/database/database.ts'
import { ExecutionReader } from '../store/execution-reader.ts'
import { ExecutionStore } from '../store/execution-store.ts'
import { checkSchema } from '../store/migrations/schema-version.ts'
import { WorkflowStore } from '../store/workflow-store.ts'
import { ExecutionControl } from '../workflow/execution-control.ts'

/** The options of the app's Pawl that matter when a signal is stored. */
export interface StorageOptions {
  encryptionKeys: readonly EncryptionKey[]
  limits: { input: number; output: number }
}

/**
 * Sends a signal to a workflow. Its value is given as JSON; default true.
 * @throws PawlError `invalid-option`, `decryption-failed`, and those of `pawl.signal()`
 */
export async function signalCommand(
  db: Database,
  schema: string,
  { id, name, json, sender }: { id: string; name: string; json?: string; sender?: string },
  storage: StorageOptions,
): Promise<void> {
  await checkSchema(db, schema)
  const value = json === undefined ? true : parseJson(json)
  if (storage.encryptionKeys.length === 0) await refuseIfEncrypted(db, schema, id)
  const control = createControl(db, schema, storage)
  await control.signal(id, name, value, sender === undefined ? {} : { id: sender })
  await setImmediate() // Lets the notification be sent before the database is closed.
  console.log(`Sent "${name}" to ${id}.`)
}

/** Cancels a workflow, and the workflows that it started. */
export async function cancelCommand(
  db: Database,
  schema: string,
  id: string,
  storage: StorageOptions,
): Promise<void> {
  await checkSchema(db, schema)
  const ids = await createControl(db, schema, storage).cancel(id)
  await setImmediate()
  if (ids.length === 0) console.log('Nothing to cancel: the workflow has ended, or does not exist.')
  else if (ids.length === 1) console.log('Cancelling: its compensations run, then it ends.')
  else console.log(`Cancelling the workflow, and ${ids.length - 1} that it has started.`)
}

function createControl(
  db: Database,
  schema: string,
  { encryptionKeys, limits }: StorageOptions,
): ExecutionControl {
  const owner = randomUUID()
  const dependencies = {
    store: new ExecutionStore(db, schema, owner, 0),
    reader: new ExecutionReader(db, schema),
    workflows: new WorkflowStore(db, schema, owner, 0),
    changeListener: new ChangeListener(db, schema),
    encryptor: new Encryptor(encryptionKeys),
    limits,
    storeTimeoutMs: 0, // The command fails at once; the person who called it decides whether to retry.
    engine: { activeAttempt: () => undefined }, // Nothing runs here.
  }
  return new ExecutionControl(
    () => dependencies,
    () => {},
  )
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch (error) {
    throw new PawlError(
      'invalid-option',
      `The value is not JSON: ${(error as Error).message}.`,
      `Give JSON, in quotes for the shell: '{"by":"Ada"}', '"text"', 5.`,
    )
  }
}

/**
 * Refuses to send an unencrypted signal to an execution that is encrypted: the database would then contain
 * its value in plain text.
 * @throws PawlError `decryption-failed`
 */
async function refuseIfEncrypted(db: Database, schema: string, id: string): Promise<void> {
  const [row] = await db.query(
    `select 1 from "${schema}".executions where id::text = $1 and substr(input, 1, 1) = '\\x02'`,
    [id],
  )
  if (!row) return
  throw new PawlError(
    'decryption-failed',
    `The data of ${id} is encrypted, and the command line has no key to encrypt a signal with.`,
    'Give --module, a module that exports the Pawl of the app, with its encryptionKeys.',
  )
}
