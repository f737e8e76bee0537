/**
 * A worker in a process of its own. What its steps do leaves rows in `effects`, committed at once, so that
 * a test can count what really happened. Settings come as JSON in PAWL; it prints `ready`.
 */
import pg from 'pg'
import { Pawl } from '../../lib/index.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string, max: 8 })
pool.on('error', () => {})
const logger = { debug() {}, warn() {} }
const pawl = new Pawl({ database: pool, logger, ...JSON.parse(process.env.PAWL ?? '{}') })

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** What goes together goes in one statement: the effects are to cost less than what is tested. */
let noted: string[] = []
let noting: Promise<void> | null = null
function note(key: string): Promise<void> {
  noted.push(key)
  noting ??= new Promise(setImmediate).then(async () => {
    const keys = noted
    noted = []
    noting = null
    await pool.query('insert into effects (key, pid) select unnest($1::text[]), $2', [
      keys,
      process.pid,
    ])
  })
  return noting
}

pawl.workflow('five steps', { retry: 1000 }, async (execution, n: number) => {
  let sum = n
  for (let i = 0; i < 5; i++) {
    sum += await execution.step(`step ${i}`, async () => {
      await note(`${execution.key} ${i}`)
      return i
    })
  }
  return sum
})

/** Resolves when the test says so; one question for all that wait. */
let asking: Promise<void> | undefined
async function allowed(): Promise<void> {
  asking ??= (async () => {
    while ((await pool.query('select from go')).rowCount === 0) await pause(100)
  })()
  await asking
}

/** It waits until the test says so. */
pawl.workflow('held', { retry: 1000 }, async (execution, n: number) => {
  await execution.step('before', () => note(`${execution.key} before`))
  await execution.step('held', async () => {
    await allowed()
  })
  return execution.step('after', async () => {
    await note(`${execution.key} after`)
    return 2 * n
  })
})

const square = pawl.workflow('square', { retry: 1000 }, async (execution, n: number) => {
  await execution.step('note', () => note(`${execution.key} square`))
  return n * n
})

pawl.workflow('fan out', { retry: 1000 }, async (_, n: number) => {
  const inputs = Array.from({ length: n }, (_, input) => ({ input }))
  const squares = await square.startMany(inputs)
  const results = await Promise.all(squares.map((handle) => handle.result()))
  return results.reduce((a, b) => a + b, 0)
})

await pawl.start()
console.log('ready')
process.once('SIGTERM', async () => {
  await pawl.stop()
  await pool.end()
  process.exit(0)
})
