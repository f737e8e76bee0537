/**
 * The payment provider: somebody else's server, with a ledger that the shop cannot undo. Like
 * every real one (Stripe, Adyen, PayPal) it takes an idempotency key and charges once for each.
 */
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { z } from 'zod'
import { endWithParent, tellParent } from './parent.ts'

export interface Charge {
  id: string
  /** Whose purchase the shop says it is. */
  reference: string
  amount: number
  /** The idempotency key it was asked with. */
  key: string | null
  /** How often it was asked for; it was charged once. */
  asked: number
}

/** What the provider tells `main.ts` whenever its ledger has changed. */
export interface LedgerNews {
  ledger: Charge[]
  /** The reference whose charge has been made while its answer is held back. */
  held?: string
}

const BANK_MS = 350
const chargeRequest = z.object({ reference: z.string().max(40), amount: z.int().positive() })

const ledger: Charge[] = []
let holdBack: string | undefined

const app = express()
app.use(express.json())

app.post('/charges', async (req, res) => {
  const { reference, amount } = chargeRequest.parse(req.body)
  const key = req.get('idempotency-key') ?? null
  await sleep(BANK_MS)

  let charge = key === null ? undefined : ledger.find((entry) => entry.key === key)
  if (charge) {
    charge.asked += 1
  } else {
    charge = { id: `ch_${randomBytes(4).toString('hex')}`, reference, amount, key, asked: 1 }
    ledger.push(charge)
  }

  if (holdBack === reference) {
    holdBack = undefined
    tellParent({ ledger, held: reference } satisfies LedgerNews)
    return // The money is gone, and whoever asked will never hear of it: its process is killed now.
  }
  tellParent({ ledger } satisfies LedgerNews)
  await sleep(BANK_MS)
  res.status(201).json({ id: charge.id })
})

process.on('message', (message: { holdBack: string }) => {
  holdBack = message.holdBack
})
endWithParent(() => process.exit())

const server = app.listen(0, '127.0.0.1', () => {
  tellParent({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })
})
