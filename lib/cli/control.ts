import { randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { type EncryptionKey, Sealer } from '../engine/values/seal.ts'
import { PawlError } from '../errors/index.ts'
import type { Database } from '../store/database/database.ts'
import { checkSchema } from '../store/migrate.ts'
import { Store } from '../store/store.ts'
import { Watch } from '../store/watch.ts'
import { WorkflowStore } from '../store/workflow-store.ts'
import { Control } from '../workflow/control.ts'

/** What the app stores with, as far as it is known here. */
export interface Storing {
  encryptionKeys: readonly EncryptionKey[]
  limits: { input: number; output: number }
}

export async function signal(
  db: Database,
  schema: string,
  { id, name, json, sender }: { id: string; name: string; json?: string; sender?: string },
  storing: Storing,
): Promise<void> {
  await checkSchema(db, schema)
  const value = json === undefined ? true : parse(json)
  if (storing.encryptionKeys.length === 0) await refuseSealed(db, schema, id)
  const control = controlOf(db, schema, storing)
  await control.signal(id, name, value, sender === undefined ? {} : { id: sender })
  await setImmediate() // The notification of it is on its way.
  console.log(`Sent "${name}" to ${id}.`)
}

export async function cancel(
  db: Database,
  schema: string,
  id: string,
  storing: Storing,
): Promise<void> {
  await checkSchema(db, schema)
  const ids = await controlOf(db, schema, storing).cancel(id)
  await setImmediate()
  if (ids.length === 0)
    console.log('Nothing to cancel: it has ended, or there is no such workflow.')
  else if (ids.length === 1) console.log('Asked it to end: what it did is undone.')
  else console.log(`Asked it to end, and ${ids.length - 1} that it has started.`)
}

function controlOf(db: Database, schema: string, { encryptionKeys, limits }: Storing): Control {
  const owner = randomUUID()
  const parts = {
    store: new Store(db, schema, owner, 0),
    workflows: new WorkflowStore(db, schema, owner, 0),
    watch: new Watch(db, schema),
    sealer: new Sealer(encryptionKeys),
    limits,
    storeTimeoutMs: 0, // Whoever sits at the command line decides whether to try again.
    engine: { attemptAt: () => undefined }, // Nothing runs here.
  }
  return new Control(
    () => parts,
    () => {},
  )
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch (error) {
    throw new PawlError(
      'invalid-option',
      `The value is no JSON: ${(error as Error).message}.`,
      `Give JSON, in quotes for the shell: '{"by":"Ada"}', '"text"', 5.`,
    )
  }
}

/** What is sent in the clear would be the one thing of the execution that anybody can read. */
async function refuseSealed(db: Database, schema: string, id: string): Promise<void> {
  const [row] = await db.query(
    `select 1 from "${schema}".executions where id::text = $1 and substr(input, 1, 1) = '\\x02'`,
    [id],
  )
  if (!row) return
  throw new PawlError(
    'decryption-failed',
    `What is stored of ${id} is encrypted, and the command line has no key to encrypt a signal with.`,
    'Give --module, a module that exports the Pawl of the app, with its encryptionKeys.',
  )
}
