import { createHash } from 'node:crypto'
import type { Asked } from './request.ts'

/** What it says, and the tool it calls. */
interface Answer {
  text: string
  call?: { id: string; name: string; input: object }
}

const ESSAY =
  `A pawl is the small catch of a ratchet: it lets the wheel turn forward, and never slip back.
Each notch that it has passed is kept, whatever pulls at the wheel. That is why it is a good name for
something that remembers what has been done: whoever comes later goes on from the last notch, and not from
the beginning. You can kill the server now, in the middle of this sentence, and the rest of it will still
come, because every word that you can read here has been written down before you could read it.`.replaceAll(
    '\n',
    ' ',
  )

/** What it answers; of an answer that was interrupted, the rest. */
export function answerTo(asked: Asked) {
  const last = asked.at(-1)
  const before = asked.at(-2)
  // An answer of its own, and then a user who says nothing new: it is to go on.
  const continued =
    before?.role === 'assistant' &&
    typeof before.content === 'string' &&
    typeof last?.content === 'string' &&
    /interrupted/i.test(last.content)
  const messages = continued ? asked.slice(0, -2) : asked
  const { text, call } = answer(messages)
  const had = continued ? (before.content as string) : ''
  return {
    said: saidLast(messages),
    continued,
    text: text.startsWith(had) ? text.slice(had.length) : text,
    call,
  }
}

function answer(messages: Asked): Answer {
  const said = saidLast(messages)
  const results = resultsSince(messages)
  const order = /order\s+#?(\w+)/i.exec(said)?.[1]
  if (!order) return { text: `You said: “${said}” ${ESSAY}` }
  const call = (name: string, input: object) => ({ id: idOf(messages), name, input })
  if (results.length === 0) {
    return { text: 'Let me look at your order.', call: call('look_up_order', { order }) }
  }
  if (!/refund|money/i.test(said)) return { text: `I have found it. ${results[0]} Enjoy it!` }
  if (results.length === 1) {
    const euros = Number(/(\d+) euros/.exec(results[0] as string)?.[1])
    const text = 'I have found it. I am asking a colleague whether you can have your money back.'
    return { text, call: call('refund', { order, euros }) }
  }
  return { text: `This is what became of it: ${results[1]} Is there anything else?` }
}

/** What the user has said last; results of tools are said by nobody. */
function saidLast(messages: Asked): string {
  const said = messages.findLast(({ role, content }) => role === 'user' && isSaid(content))
  const content = said?.content ?? ''
  if (typeof content === 'string') return content
  return content.map((block) => (block.type === 'text' ? block.text : '')).join(' ')
}

const isSaid = (content: Asked[number]['content']) =>
  typeof content === 'string' || content.some(({ type }) => type === 'text')

/** What the tools have given since then. */
function resultsSince(messages: Asked): string[] {
  const from = messages.findLastIndex(({ role, content }) => role === 'user' && isSaid(content))
  return messages
    .slice(from)
    .flatMap(({ content }) => (typeof content === 'string' ? [] : content))
    .flatMap((block) => (block.type === 'tool_result' ? [block.content] : []))
}

/** The same question is the same call. */
function idOf(messages: Asked): string {
  return `toolu_${createHash('sha256').update(JSON.stringify(messages)).digest('hex').slice(0, 20)}`
}
