/** An app without a scope, whose answers hold a secret in body and headers. */
import express from 'express'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl } from '../../lib/index.ts'
import { serve } from './serve.ts'

const pawl = new Pawl({ database: process.env.DATABASE_URL as string })
await pawl.start()
const app = express()
app.use(idempotency(pawl))
app.use(express.json())
app.post('/secrets', (req, res) => {
  const { secret } = req.body
  res
    .set('X-Secret', Buffer.from(JSON.stringify(secret ?? null)).toString('base64'))
    .json({ secret })
})
serve(app)
