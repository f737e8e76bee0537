import type { Duration, Pawl, Workflow } from 'pawl'
import type { Pool } from 'pg'
import { z } from 'zod'
import type { Bank } from './bank.ts'
import type { Carrier } from './carrier.ts'
import { markOrder } from './orders.ts'
import { putBack, reserve } from './stock.ts'

const order = z.object({
  id: z.uuid(),
  item: z.string(),
  address: z.string(),
  charge: z.string(),
})
type Order = z.infer<typeof order>

/** What the workflow works with. */
export interface Warehouse {
  pool: Pool
  bank: Bank
  carrier: Carrier
  /** How long an order is packed. */
  packing: Duration
}

/**
 * From a paid order to a parcel. Whatever fails for good, or is cancelled, is undone from the last step to
 * the first: the parcel recalled, the stock put back, the money refunded.
 */
export function defineFulfilment(
  pawl: Pawl,
  { pool, bank, carrier, packing }: Warehouse,
): Workflow<Order, { parcel: string }> {
  return pawl.workflow(
    'fulfil order',
    { input: order, retry: { attempts: 10, backoff: '1s' } },
    async (execution, { id, item, address, charge }) => {
      await execution.transaction('accept', (tx) => markOrder(tx, id, 'accepted'), {
        compensate: async () => {
          await bank.refund(charge)
          await markOrder(pool, id, 'cancelled')
        },
      })
      await execution.transaction('reserve stock', (tx) => reserve(tx, id, item), {
        compensate: () => putBack(pool, id),
      })

      // Hours, in a warehouse. Nothing runs meanwhile; the order is a row that is due then.
      await execution.sleep(packing)

      const parcel = await execution.step(
        'ship',
        ({ idempotencyKey }) => carrier.ship(address, idempotencyKey),
        { compensate: (parcel) => carrier.recall(parcel) },
      )
      await execution.transaction('mark shipped', (tx) => markOrder(tx, id, 'shipped'))
      return { parcel }
    },
  )
}
