/**
 * An app in a process of its own whose handler journals its work. Each call of the provider and each run
 * of a handler leaves a row, committed at once, so that a test can count what really happened. Settings
 * come as JSON in PAWL and ROUTE.
 */
import express from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl, TerminalError } from '../../lib/index.ts'
import { serveUntilTerminated } from './serve.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string, max: 8 })
pool.on('error', () => {})
const pawl = new Pawl({ database: pool, ...JSON.parse(process.env.PAWL ?? '{}') })
await pawl.start()

const app = express()
// As an app's own authentication: by credentials, or by what Pawl recorded of them.
app.use((req, res, next) => {
  const tenant = req.execution?.recovering ? req.execution.scope : req.get('authorization')
  if (!tenant) return res.sendStatus(401)
  res.locals.tenant = tenant
  next()
})
app.use(
  idempotency(pawl, {
    scope: (req) => req.res?.locals.tenant,
    ...JSON.parse(process.env.ROUTE ?? '{}'),
  }),
)
app.use(express.json())

const note = (key: string, what: string) =>
  pool.query('insert into happened (key, what, pid) values ($1, $2, $3)', [key, what, process.pid])

/**
 * `dieIn` names the point at which to die (in attempt `dieAttempt`, default 1), `waitIn` where to wait
 * `ms`, `fail` the attempts whose answer is a 500, `giveUp` whether the last step fails for good.
 */
app.post('/orders', async (req, res) => {
  const execution = req.execution
  if (!execution) throw new Error('not protected')
  const { dieIn, dieAttempt = 1, waitIn, ms = 0, fail = [], giveUp = false } = req.body
  const { key, attempt } = execution
  const at = async (point: string) => {
    if (waitIn === point && attempt === 1) await new Promise((resolve) => setTimeout(resolve, ms))
    if (dieIn === point && attempt === dieAttempt) process.kill(process.pid, 'SIGKILL')
  }
  await note(key, 'run')
  await at('start')
  const payment = await execution.step(
    'charge',
    async ({ idempotencyKey }) => {
      await at('before charge')
      await note(key, 'charge')
      await at('after charge')
      return { id: idempotencyKey, at: new Date(0) }
    },
    { compensate: () => note(key, 'refund') },
  )
  await at('after step')
  const order = await execution.transaction('record', async (tx) => {
    const { rows } = await tx.query('insert into orders (key) values ($1) returning id', [key])
    await at('in transaction')
    return rows[0].id as number
  })
  await at('after transaction')
  if (giveUp) {
    await execution.step('reserve', async () => {
      await note(key, 'reserve')
      throw new TerminalError('sold out', { status: 409 })
    })
  }
  await execution.step('notify', () => note(key, 'notify').then(() => attempt))
  await at('end')
  if (fail.includes(attempt)) throw new Error('provoked')
  res.status(201).json({ payment: payment.id, isDate: payment.at instanceof Date, order })
})

pawl.recoverRequests(app)
serveUntilTerminated(app, pawl, pool)
