/** A chat: what is said goes to the conversation, and what it answers comes back as an event stream. */
import express, { type ErrorRequestHandler, type Express } from 'express'
import { idempotency } from 'pawl/express'
import { z } from 'zod'
import { servePage } from '../support/pages.ts'
import type { AppParts } from '../support/serve.ts'
import { defineConversation } from './conversation.ts'
import { eventStream } from './event-stream.ts'
import { MessagesApi } from './messages-api.ts'
import { createTables } from './tables.ts'
import { Transcripts } from './transcript.ts'

const message = z.object({ text: z.string().min(1).max(4000) })
const place = z.object({ id: z.uuid() })
const click = place.extend({
  turn: z.string().min(1).max(255),
  call: z.string().min(1).max(100),
  verdict: z.enum(['approve', 'decline']),
})

export async function createApp({ pawl, pool }: AppParts): Promise<Express> {
  await createTables(pool)
  const transcripts = new Transcripts(pool)
  const conversation = defineConversation(pawl, {
    pool,
    transcripts,
    api: new MessagesApi({
      url: process.env.MODEL_URL ?? 'https://api.anthropic.com',
      key: process.env.MODEL_KEY ?? 'none',
      model: process.env.MODEL ?? 'stand-in',
    }),
    patience: process.env.PATIENCE ?? '3 days',
  })

  const app = express()
  servePage(app, new URL('./page/', import.meta.url), 'Chatbot', ['chat.css'])

  // The key of the request is that of the turn: however often the browser sends it, it is said once.
  const keyed = idempotency(pawl, { required: true, resumable: true })
  app.post('/conversations/:id/messages', keyed, express.json(), async (req, res) => {
    const { id } = place.parse(req.params)
    const { text } = message.parse(req.body)
    const turn = req.execution?.key as string
    await conversation.of(id).start('say', text, { key: turn })
    res.status(202).json({ turn })
  })

  app.post('/conversations/:id/turns/:turn/calls/:call/:verdict', async (req, res) => {
    const { id, turn, call, verdict } = click.parse(req.params)
    // One sender's id for all clicks: the first is kept.
    await conversation
      .of(id)
      .handle('say', turn)
      .signal(`approval of ${call}`, { approved: verdict === 'approve' }, { id: 'click' })
    res.status(202).json({ turn })
  })

  app.get('/conversations/:id/events', (req, res) => {
    const { id } = place.parse(req.params)
    eventStream(req, res, (after) => transcripts.after(id, after))
  })
  app.use(explain)
  return app
}

const explain: ErrorRequestHandler = (error, _req, res, next) => {
  if (error instanceof z.ZodError) res.status(400).json({ error: z.prettifyError(error) })
  else if (error.code === 'execution-missing') res.status(410).json({ error: 'This is decided.' })
  else next(error)
}
