/**
 * An app in a process of its own: each run of a handler leaves a row in the table `runs`, committed
 * at once, so that a test can count what really ran. Settings come as JSON in PAWL and ROUTE.
 */
import express from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl } from '../../lib/index.ts'
import { serveUntilTerminated } from './serve.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string, max: 8 })
pool.on('error', () => {})
const pawl = new Pawl({ database: pool, ...JSON.parse(process.env.PAWL ?? '{}') })
await pawl.start()

const app = express()
app.use(express.json())
app.use(
  idempotency(pawl, {
    scope: (req) => req.get('x-tenant') ?? 'nobody',
    ...JSON.parse(process.env.ROUTE ?? '{}'),
  }),
)

/**
 * What the request asks for in its body:
 * `ms` how long to work, `status` what to answer, `killBefore`/`killAfter` the attempt in which to
 * die before or after the work, `freeze` the attempts in which to stop (SIGSTOP) before the work,
 * `lock` an advisory lock to wait for, `stall` the attempt in which to block the event loop for `stallMs`.
 */
app.post('/orders', async (req, res) => {
  const {
    ms = 0,
    status = 201,
    killBefore,
    killAfter,
    freeze = [],
    lock,
    stall,
    stallMs = 0,
  } = req.body
  const execution = req.execution
  if (!execution) throw new Error('not protected')
  if (killBefore === execution.attempt) process.kill(process.pid, 'SIGKILL')
  const { rows } = await pool.query(
    'insert into runs (key, attempt, pid) values ($1, $2, $3) returning n',
    [execution.key, execution.attempt, process.pid],
  )
  if (freeze.includes(execution.attempt)) process.kill(process.pid, 'SIGSTOP')
  if (lock) await pool.query('select pg_advisory_xact_lock_shared($1)', [lock])
  if (ms) await new Promise((resolve) => setTimeout(resolve, ms))
  if (killAfter === execution.attempt) process.kill(process.pid, 'SIGKILL')
  if (stall === execution.attempt) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, stallMs)
  }
  res.status(status).json({
    run: rows[0].n,
    key: execution.key,
    attempt: execution.attempt,
    pid: process.pid,
  })
})

serveUntilTerminated(app, pawl, pool)
