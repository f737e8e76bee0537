import { expect, it } from 'vitest'
import { step } from '../../lib/index.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'

const database = withDatabase()

it.each(expressVersions)(
  'plain step() finds its execution behind the body parsers of Express $version',
  async ({ express }) => {
    const { url } = await startApp(
      database.url,
      {},
      (app) => {
        app.use(express.json({ limit: '1mb' }), express.text({ limit: '1mb' }))
        app.post('/', async (_req, res) => {
          await step('a', () => 1)
          res.json({ ok: true })
        })
      },
      { express },
    )
    // In one piece, in many, and as text.
    for (const body of [{ a: 1 }, { a: 'x'.repeat(500_000) }, 'x'.repeat(300_000)]) {
      const key = freshKey()
      const headers = typeof body === 'string' ? { 'Content-Type': 'text/plain' } : {}
      expect((await request(url, { key, body, headers })).status).toBe(200)
      const sql = 'select 1 from pawl.step_log where key = $1'
      expect((await database.pool.query(sql, [key])).rowCount).toBe(1)
    }
  },
)
