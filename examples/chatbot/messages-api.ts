import { TerminalError } from 'pawl'
import { serverSentEvents } from './server-sent-events.ts'

export interface TextBlock {
  type: 'text'
  text: string
}
export interface ToolUse {
  type: 'tool_use'
  id: string
  name: string
  input: Record<string, unknown>
}
export interface ToolResult {
  type: 'tool_result'
  tool_use_id: string
  content: string
}
export interface Message {
  role: 'user' | 'assistant'
  content: string | (TextBlock | ToolUse | ToolResult)[]
}
export interface Tool {
  name: string
  description: string
  input_schema: object
}

/** What the model has said, as a whole. */
export interface Reply {
  content: (TextBlock | ToolUse)[]
  stop_reason: string | null
}

/** What arrives of a stream; other events say nothing that is needed here. */
type StreamEvent =
  | { type: 'content_block_start'; index: number; content_block: TextBlock | ToolUse }
  | {
      type: 'content_block_delta'
      index: number
      delta:
        | { type: 'text_delta'; text: string }
        | { type: 'input_json_delta'; partial_json: string }
    }
  | { type: 'message_delta'; delta: { stop_reason: string | null } }
  | { type: 'message_stop' }
  | { type: 'error'; error: { type: string; message: string } }

const MAX_TOKENS = 2048

/** A client of Anthropic's Messages API (`POST /v1/messages`, streamed), and of whatever speaks it. */
export class MessagesApi {
  readonly #url: string
  readonly #key: string
  readonly #model: string

  constructor({ url, key, model }: { url: string; key: string; model: string }) {
    this.#url = url
    this.#key = key
    this.#model = model
  }

  /**
   * @param onText is called with each piece of text as it comes
   * @throws TerminalError where asking again cannot help; else whatever broke
   */
  async stream(
    request: { system: string; messages: Message[]; tools: Tool[] },
    { signal, onText }: { signal: AbortSignal; onText: (text: string) => void },
  ): Promise<Reply> {
    const response = await fetch(new URL('/v1/messages', this.#url), {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'x-api-key': this.#key,
        'anthropic-version': '2023-06-01',
      },
      body: JSON.stringify({
        model: this.#model,
        max_tokens: MAX_TOKENS,
        stream: true,
        ...request,
      }),
      signal,
    })
    if (!response.ok || !response.body) {
      const message = `The model answered ${response.status}: ${await response.text()}`
      const hopeless = response.status < 500 && ![408, 409, 429].includes(response.status)
      throw hopeless ? new TerminalError(message) : new Error(message)
    }
    const content: Reply['content'] = []
    const json: string[] = []
    let stopReason: string | null = null
    for await (const data of serverSentEvents(response.body)) {
      const event = JSON.parse(data) as StreamEvent
      if (event.type === 'error') throw new Error(`The model failed: ${event.error.message}`)
      if (event.type === 'message_delta') stopReason = event.delta.stop_reason
      if (event.type === 'content_block_start') content[event.index] = { ...event.content_block }
      if (event.type === 'content_block_delta') {
        const block = content[event.index]
        if (event.delta.type === 'text_delta' && block?.type === 'text') {
          block.text += event.delta.text
          onText(event.delta.text)
        }
        if (event.delta.type === 'input_json_delta') {
          json[event.index] = (json[event.index] ?? '') + event.delta.partial_json
        }
      }
      if (event.type === 'message_stop') {
        return {
          content: content.map((block, i) => withInput(block, json[i])),
          stop_reason: stopReason,
        }
      }
    }
    throw new Error('The stream ended before the message did.')
  }
}

function withInput(block: TextBlock | ToolUse, json: string | undefined): TextBlock | ToolUse {
  return block.type === 'tool_use' && json ? { ...block, input: JSON.parse(json) } : block
}
