import {
  type Duration,
  type ObjectExecution,
  type Pawl,
  type StepContext,
  TerminalError,
} from 'pawl'
import type { Pool } from 'pg'
import { z } from 'zod'
import type { Message, MessagesApi, Reply, ToolResult, ToolUse } from './messages-api.ts'
import { needsApproval, runTool, SYSTEM, TOOLS } from './tools.ts'
import type { Part, Transcripts } from './transcript.ts'

/** What a model that was interrupted is told, behind what it had said. */
export const CONTINUE =
  'Your answer was interrupted. Go on exactly where it ends, and repeat nothing of it.'

const approval = z.object({ approved: z.boolean() })

/** How often a model may be asked within one turn: it calls tools, and is asked again. */
const MAX_ROUNDS = 20

/** What conversations work with. */
export interface ChatParts {
  pool: Pool
  transcripts: Transcripts
  api: MessagesApi
  /** How long a tool waits for somebody's approval. */
  patience: Duration
}

/**
 * A conversation is an object: what is said to it is answered one message at a time, in the order in which
 * it was said, and what it remembers is kept with it.
 */
export function defineConversation(pawl: Pawl, { pool, transcripts, api, patience }: ChatParts) {
  return pawl.object('conversation', { handlers: { say } })

  async function say(execution: ObjectExecution, text: string): Promise<void> {
    const tell = (kind: string, data: object) =>
      execution.transaction(`tell ${kind}`, (tx) =>
        transcripts.append(tx, { ...partOf(0), kind, data }),
      )
    const partOf = (round: number): Part => ({
      conversation: execution.objectKey,
      turn: execution.key,
      round,
    })

    const messages = (await execution.state.get<Message[]>('messages')) ?? []
    messages.push({ role: 'user', content: text })
    await tell('said', { text })
    try {
      for (let round = 1; ; round++) {
        if (round > MAX_ROUNDS) throw new TerminalError('It has called tools for too long.')
        const reply = await execution.step('ask the model', (context) =>
          answer(partOf(round), messages, context),
        )
        messages.push({ role: 'assistant', content: reply.content })
        const calls = reply.content.filter((block) => block.type === 'tool_use')
        if (calls.length === 0) break
        const results: ToolResult[] = []
        for (const call of calls) results.push(await use(call))
        messages.push({ role: 'user', content: results })
      }
    } catch (error) {
      if (error instanceof TerminalError) await tell('failed', { message: error.message })
      throw error
    }
    await execution.state.set('messages', messages)
    await tell('ended', {})

    async function use(call: ToolUse): Promise<ToolResult> {
      await tell('called', { call: call.id, name: call.name, input: call.input })
      if (needsApproval(call)) {
        await tell('approval asked', { call: call.id })
        // Days, if need be: the conversation is a row in the database until somebody has clicked.
        const given = await execution.signal(`approval of ${call.id}`, {
          schema: approval,
          timeout: patience,
        })
        const approved = given?.approved ?? false
        await tell('approval given', { call: call.id, approved, inTime: given !== undefined })
        if (!approved) return resultOf(call, 'A colleague has declined this.')
      }
      const result = await execution.step(`tool ${call.name}`, ({ idempotencyKey }) =>
        runTool(pool, call, idempotencyKey),
      )
      await tell('result', { call: call.id, result })
      return resultOf(call, result)
    }
  }

  /**
   * Asks the model, and writes down what it says while it says it. If the process dies in between, the
   * step is run again: what was written down stays, and the model is asked for the rest.
   */
  async function answer(part: Part, messages: Message[], { signal }: StepContext): Promise<Reply> {
    const { text, reply: known, next } = await transcripts.heard(part)
    if (known) return known
    const asked: Message[] = text.trim()
      ? [...messages, { role: 'assistant', content: text }, { role: 'user', content: CONTINUE }]
      : messages
    const writer = transcripts.writer(part, next)
    const reply = await api.stream(
      { system: SYSTEM, messages: asked, tools: TOOLS },
      { signal, onText: (text) => writer.write(text) },
    )
    const whole = { ...reply, content: behind(text, reply.content) }
    await writer.end(whole)
    return whole
  }
}

/** What was heard before, and what came after the interruption. */
function behind(text: string, content: Reply['content']): Reply['content'] {
  if (!text) return content
  const [first, ...rest] = content
  if (first?.type === 'text') return [{ type: 'text', text: text + first.text }, ...rest]
  return [{ type: 'text', text }, ...content]
}

function resultOf(call: ToolUse, content: string): ToolResult {
  return { type: 'tool_result', tool_use_id: call.id, content }
}
