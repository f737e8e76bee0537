/**
 * The payment provider: somebody else's server, with a ledger that the shop cannot undo. Like
 * every real one (Stripe, Adyen, PayPal) it takes an idempotency key and charges once for each.
 */
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { z } from 'zod'
import { endWithParent, tellParent } from '../support/parent.ts'
import { PACE } from './pace.ts'

export interface Charge {
  id: string
  /** Whose purchase the shop says it is. */
  reference: string
  amount: number
  /** The idempotency key it was asked with. */
  key: string
  /** How often it was asked for; it was charged once. */
  asked: number
  refunded: boolean
  /** The keys of the receipts that were sent. */
  receipts: string[]
}

/** What the provider tells `main.ts` whenever its ledger has changed. */
export interface LedgerNews {
  ledger: Charge[]
  /** The reference whose charge has been made while its answer is held back. */
  held?: string
}

/** How long the bank takes, there and back again. */
const BANK_MS = 350 * PACE
const MAIL_MS = BANK_MS / 2

const chargeRequest = z.object({
  reference: z.string().max(64),
  amount: z.int().positive(),
  card: z.string(),
})
const receiptRequest = z.object({ charge: z.string(), email: z.email() })

const ledger: Charge[] = []
let holdBack: string | undefined

const app = express()
app.use(express.json())

app.post('/charges', async (req, res) => {
  const { reference, amount, card } = chargeRequest.parse(req.body)
  const key = keyOf(req)
  await sleep(BANK_MS)
  if (card === 'declined') {
    res.status(402).send('The card was declined.')
    return
  }

  let charge = ledger.find((entry) => entry.key === key)
  if (charge) {
    charge.asked += 1
  } else {
    const id = `ch_${randomBytes(4).toString('hex')}`
    charge = { id, reference, amount, key, asked: 1, refunded: false, receipts: [] }
    ledger.push(charge)
  }

  if (holdBack === reference) {
    holdBack = undefined
    tell({ held: reference })
    return // The money is gone, and whoever asked will never hear of it: its process is killed now.
  }
  tell()
  await sleep(BANK_MS)
  res.status(201).json({ id: charge.id })
})

app.post('/refunds', (req, res) => {
  const charge = find(z.object({ charge: z.string() }).parse(req.body).charge)
  charge.refunded = true // Asked twice, it is refunded once.
  tell()
  res.status(201).json({ id: charge.id })
})

app.post('/receipts', async (req, res) => {
  const { charge: id, email } = receiptRequest.parse(req.body)
  const charge = find(id)
  await sleep(MAIL_MS)
  if (email.startsWith('nobody@')) {
    res.status(422).send(`There is no mailbox ${email}.`)
    return
  }
  const key = keyOf(req)
  if (!charge.receipts.includes(key)) charge.receipts.push(key)
  tell()
  res.status(201).json({ id: charge.id })
})

app.get('/charges', (req, res) => {
  res.json(ledger.filter(({ reference }) => reference === req.query.reference))
})

function keyOf(req: express.Request): string {
  return z.string('an idempotency key').parse(req.get('idempotency-key'))
}

function find(id: string): Charge {
  const charge = ledger.find((entry) => entry.id === id)
  if (!charge) throw new Error(`There is no charge ${id}`)
  return charge
}

function tell(more: { held?: string } = {}) {
  tellParent({ ledger, ...more } satisfies LedgerNews)
}

process.on('message', (message: { holdBack: string }) => {
  holdBack = message.holdBack
})
endWithParent(() => process.exit())

const server = app.listen(0, '127.0.0.1', () => {
  tellParent({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })
})
