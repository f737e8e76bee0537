/**
 * Stands in for a model provider: `POST /v1/messages`, streamed, as Anthropic's. What it says is in
 * `script.ts`. It knows nothing of Pawl, and forgets whoever hangs up.
 */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { z } from 'zod'
import { endWithParent, tellParent } from '../../support/parent.ts'
import { request } from './request.ts'
import { answerTo } from './script.ts'

/** How long it thinks about a word, in ms. */
const WORD_MS = Number(process.env.WORD_MS ?? 70)

/** What it was asked, for whoever wants to know how often. */
const asks: { said: string; continued: boolean }[] = []

const app = express()
app.use(express.json({ limit: '10mb' }))

app.post('/v1/messages', async (req, res) => {
  const asked = request.safeParse(req.body)
  if (!req.get('x-api-key') || !asked.success) {
    const message = asked.success ? 'x-api-key is missing' : z.prettifyError(asked.error)
    res.status(400).json({ type: 'error', error: { type: 'invalid_request_error', message } })
    return
  }
  const { said, continued, text, call } = answerTo(asked.data.messages)
  asks.push({ said, continued })
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  const send = (type: string, more: object) =>
    res.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`)

  send('message_start', {
    message: { id: `msg_${asks.length}`, role: 'assistant', content: [], stop_reason: null },
  })
  let index = 0
  const whole = (content_block: object) => send('content_block_start', { index, content_block })
  const delta = (delta: object) => send('content_block_delta', { index, delta })
  if (text) {
    whole({ type: 'text', text: '' })
    for (const word of text.match(/\S+\s*/g) ?? []) {
      await sleep(WORD_MS)
      if (res.destroyed) return
      delta({ type: 'text_delta', text: word })
    }
    send('content_block_stop', { index })
    index++
  }
  if (call) {
    const { input, ...rest } = call
    whole({ type: 'tool_use', ...rest, input: {} })
    delta({ type: 'input_json_delta', partial_json: JSON.stringify(input) })
    send('content_block_stop', { index })
  }
  send('message_delta', { delta: { stop_reason: call ? 'tool_use' : 'end_turn' } })
  send('message_stop', {})
  res.end()
})

app.get('/asks', (_req, res) => void res.json(asks))

const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
if (process.connected) {
  tellParent({ url })
  endWithParent(() => process.exit())
} else console.log(url)
