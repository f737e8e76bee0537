import { type Context, Hono } from 'hono'
import { idempotency } from '../../../../lib/adapters/hono/hono.ts'
import { type Driver, translate } from '../driver.ts'
import { ask, bodyOf, responseOf } from './fetch.ts'
import { serveFetch } from './node-server.ts'

export const honoDriver: Driver = {
  name: 'Hono',
  async start({ pawl, options, handle }) {
    const app = new Hono()
    app.use(
      idempotency(
        pawl,
        translate(options, (c: Context) => ask(c.req.raw)),
      ),
    )
    app.all('*', async (c) =>
      responseOf(
        await handle({
          ...ask(c.req.raw),
          execution: c.get('execution'),
          body: () => bodyOf(c.req.raw),
        }),
      ),
    )
    app.onError((error, c) => c.json({ error: error.message }, 500))
    return serveFetch(app.fetch)
  },
}
