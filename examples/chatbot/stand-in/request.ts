import { z } from 'zod'

const block = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text'), text: z.string() }),
  z.object({ type: z.literal('tool_use'), id: z.string(), name: z.string(), input: z.unknown() }),
  z.object({ type: z.literal('tool_result'), tool_use_id: z.string(), content: z.string() }),
])

/** What the stand-in accepts of a Messages API request. */
export const request = z.object({
  model: z.string(),
  max_tokens: z.int().positive(),
  stream: z.literal(true),
  messages: z
    .array(
      z.object({
        role: z.enum(['user', 'assistant']),
        content: z.union([z.string().min(1), z.array(block).min(1)]),
      }),
    )
    .min(1),
})
/** The messages of a conversation, oldest first. */
export type Asked = z.infer<typeof request>['messages']
