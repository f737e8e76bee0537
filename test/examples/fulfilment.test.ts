import { beforeAll, describe, expect, it } from 'vitest'
import { freshKey } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withExample } from './example.ts'

const example = withExample('fulfilment', { PACKING: '2s' })
beforeAll(() => example.start())

/** Orders, and gives the answer and what is asked of it afterwards. */
async function order(more: object = {}, key = freshKey()) {
  const answer = await example.post(
    '/orders',
    { item: 'Moka pot', amount: 3400, address: 'Paris', ...more },
    { 'Idempotency-Key': key },
  )
  const { id } = answer.body
  const ask = () => example.get(answer.body.status)
  return {
    key,
    id,
    answer,
    ask,
    until: (status: string) =>
      waitFor(`the order to be ${status}`, async () => (await ask()).status === status),
    books: () =>
      example.row(
        `select o.state, c.asked as charge_asked, c.refunded, p.address, p.recalled,
           (select count(*)::int from example_fulfilment.reservations r where r.order_id = o.id) as reserved
         from example_fulfilment.orders o join example_fulfilment.charges c on c.id = o.charge
         left join example_fulfilment.parcels p on p.id::text =
           (select output #>> '{}' from pawl.step_log s where s.key = o.id::text and s.name = 'ship')
         where o.id = $1`,
        [id],
      ),
  }
}

describe('the order fulfilment example', () => {
  it('answers at once, ships after packing, and a retry of the order changes nothing', async () => {
    const { key, id, answer, until, books } = await order()
    expect(answer.status).toBe(202)
    expect(answer.headers.get('location')).toBe(answer.body.status)
    await until('waiting')
    const again = await order({}, key)
    expect(again.id).toBe(id)
    expect(again.answer.headers.get('idempotent-replayed')).toBe('true')
    await until('done')
    expect(await books()).toEqual({
      state: 'shipped',
      charge_asked: 1,
      refunded: false,
      address: 'Paris',
      recalled: false,
      reserved: 1,
    })
    expect(await example.journal(id)).toEqual([
      'transaction accept',
      'transaction reserve stock',
      'sleep sleep',
      'step ship',
      'transaction mark shipped',
    ])
  })

  it('goes on after a kill while the order is packed', async () => {
    const { until, books } = await order()
    await until('waiting')
    await example.kill()
    await example.start()
    await until('done')
    expect(await books()).toMatchObject({ state: 'shipped', charge_asked: 1, reserved: 1 })
  })

  it('undoes everything when shipping fails for good', async () => {
    const { ask, until, books } = await order({ address: 'nowhere' })
    await until('failed')
    expect(await books()).toMatchObject({ state: 'cancelled', refunded: true, reserved: 0 })
    expect((await ask()).error?.message).toBe('Nobody delivers to nowhere.')
  })

  it('is cancelled while it is packed, and undone', async () => {
    const { id, until, books } = await order()
    await until('waiting')
    expect((await example.post(`/orders/${id}/cancel`)).status).toBe(202)
    await until('cancelled')
    expect(await books()).toMatchObject({ state: 'cancelled', refunded: true, reserved: 0 })
  })

  it('tries again while the carrier cannot be reached, and sends one parcel', async () => {
    const { id, until, books } = await order({ address: 'storm' })
    await until('done')
    expect(await books()).toMatchObject({ state: 'shipped', recalled: false })
    const attempts = 'select attempt from pawl.execution_log where key = $1'
    expect((await example.row(attempts, [id])).attempt).toBeGreaterThanOrEqual(3)
    const parcels = `select count(*)::int from example_fulfilment.parcels where address = 'storm'`
    expect(await example.row(parcels)).toEqual({ count: 1 })
  })

  it('declines a card, and answers what is not there', async () => {
    const { answer } = await order({ card: 'declined' })
    expect(answer).toMatchObject({ status: 402, body: { error: 'The card was declined.' } })
    const there = await fetch(`${example.url}/operations/${crypto.randomUUID()}`)
    expect(there.status).toBe(404)
    const nothing = await example.post(`/orders/${crypto.randomUUID()}/cancel`)
    expect(nothing.status).toBe(404)
  })
})
