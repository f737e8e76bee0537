import type { Pool } from 'pg'
import { z } from 'zod'
import type { Tool, ToolUse } from './messages-api.ts'

export const SYSTEM =
  'You answer the customers of a small shop for coffee things. Look up an order before you say anything about it.'

const orderInput = z.object({ order: z.string().min(1).max(40) })
const refundInput = orderInput.extend({ euros: z.number().positive() })

export const TOOLS: Tool[] = [
  {
    name: 'look_up_order',
    description: 'Finds an order by its number.',
    input_schema: z.toJSONSchema(orderInput),
  },
  {
    name: 'refund',
    description: 'Gives a customer money back. A colleague has to approve it.',
    input_schema: z.toJSONSchema(refundInput),
  },
]

/** Whether somebody has to say yes before it is run. */
export function needsApproval({ name }: ToolUse): boolean {
  return name === 'refund'
}

/** Runs a tool; what the model has asked for wrongly is told to the model. */
export async function runTool(pool: Pool, call: ToolUse, idempotencyKey: string): Promise<string> {
  if (call.name === 'look_up_order') {
    const input = orderInput.safeParse(call.input)
    if (!input.success) return z.prettifyError(input.error)
    return `Order ${input.data.order}: one moka pot, 34 euros, delivered yesterday.`
  }
  if (call.name === 'refund') {
    const input = refundInput.safeParse(call.input)
    if (!input.success) return z.prettifyError(input.error)
    const { order, euros } = input.data
    await pool.query(
      'insert into example_chatbot.refunds (key, order_id, euros) values ($1, $2, $3) on conflict do nothing',
      [idempotencyKey, order, euros],
    )
    return `Refunded ${euros} euros for order ${order}.`
  }
  return `There is no tool ${call.name}.`
}
