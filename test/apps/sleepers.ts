/**
 * Starts workflows that sleep for a day, in a process of its own that has `global.gc`. Each number on
 * standard input starts so many more; when all of them sleep it prints what the heap holds then, in bytes,
 * and how many objects of suspended executions are still there.
 */
import { createInterface } from 'node:readline'
import { Pawl } from '../../lib/index.ts'

const gc = globalThis.gc as () => void
const url = process.env.DATABASE_URL as string
const logger = { debug() {}, warn() {} }
const pawl = new Pawl({
  database: url,
  logger,
  workers: { concurrency: 500 },
  processTimeout: '5m',
})
const held: WeakRef<object>[] = []

const sleeper = pawl.workflow('sleeper', async (execution, n: number) => {
  const large = { bytes: Buffer.alloc(100).toString('hex').split('') }
  if (held.length < 100) held.push(new WeakRef(large))
  await execution.sleep('1 day')
  return n + large.bytes.length
})

await pawl.start()
console.log('ready')
let asleep = 0
for await (const line of createInterface({ input: process.stdin })) {
  const n = Number(line)
  for (let from = 0; from < n; from += 1000) {
    const size = Math.min(1000, n - from)
    await sleeper.startMany(Array.from({ length: size }, (_, i) => ({ input: asleep + i })))
    asleep += size
  }
  while (pawl.engine.busyIds.length > 0 || (await waiting()) < asleep) {
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  for (let i = 0; i < 5; i++) {
    gc()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const alive = held.filter((ref) => ref.deref() !== undefined).length
  console.log(`heap ${process.memoryUsage().heapUsed} ${alive}`)
}

async function waiting(): Promise<number> {
  const { default: pg } = await import('pg')
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query(
    `select count(*)::int as n from pawl.steps where kind = 'sleep'
     and execution_id in (select id from pawl.executions where status = 'waiting')`,
  )
  await client.end()
  return rows[0].n
}
