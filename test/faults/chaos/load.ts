/** The clients of the chaos test: each sends one operation after the other, until it has an answer. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Operation } from '../../apps/chaos.ts'
import { type RawResponse, request } from '../../helpers/request.ts'
import type { Cluster } from './cluster.ts'
import { Random } from './random.ts'

/** An operation that a client has an answer to. */
export interface Acknowledged {
  path: string
  operation: Operation
  answer: RawResponse
}

type Draw = Omit<Operation, 'id' | 'n'>

/** How long a client waits for one answer before it asks another process, in ms. */
const PATIENCE_MS = 5000

/** Sends operations of all kinds. */
export class Load {
  readonly #cluster: Cluster
  readonly #seed: number
  readonly acknowledged: Acknowledged[] = []
  /** How many requests were sent, retries included. */
  requests = 0
  /** The longest time until an answer, in ms, and to what. */
  longest = { ms: 0, id: '' }
  #isOver = false
  #count = 0

  constructor(cluster: Cluster, seed: number) {
    this.#cluster = cluster
    this.#seed = seed
  }

  /** Runs the clients until `end` is called; resolves when each has its last answer. */
  async run(): Promise<void> {
    const clients = [
      ...['a', 'b', 'c'].map((key) => (random: Random) => this.#orderedJobs(random, key)),
      ...['x', 'y'].map((key) => (random: Random) => this.#counts(random, key)),
      (random: Random) => this.#family(random),
      (random: Random) => this.#family(random),
      (random: Random) => this.#drips(random),
      (random: Random) => this.#drips(random),
      (random: Random) => this.#wide(random),
      (random: Random) => this.#wide(random),
      (random: Random) => this.#rings(random),
      (random: Random) => this.#cancelled(random),
      (random: Random) => this.#scattered(random),
      (random: Random) => this.#orders(random),
    ]
    await Promise.all(
      clients.map(async (client, n) => {
        const random = new Random(this.#seed * 1000 + n + 1)
        while (!this.#isOver) {
          await client(random)
          await sleep(random.between(20, 250))
        }
      }),
    )
  }

  end(): void {
    this.#isOver = true
  }

  /** One client for each key: they must begin in the order in which it has started them. */
  async #orderedJobs(random: Random, key: string): Promise<void> {
    await this.#send(random, { op: 'job', key: `ordered-${key}`, priority: random.below(3) })
    if (random.next() < 0.9) await sleep(random.between(300, 900))
  }

  async #scattered(random: Random): Promise<void> {
    const delay = random.pick([0, 0, 400, 1500])
    await this.#send(random, { op: 'job', key: `scattered-${random.below(4)}`, delay })
    await sleep(300)
  }

  async #orders(random: Random): Promise<void> {
    await this.#send(random, { op: 'order', key: `order-${random.below(3)}` })
    await sleep(300)
  }

  async #cancelled(random: Random): Promise<void> {
    const delay = random.pick([0, 0, 2000])
    const { operation } = await this.#send(random, {
      op: 'job',
      key: `cancelled-${random.below(2)}`,
      delay,
    })
    await sleep(random.pick([0, 50, 200, 700]))
    await this.#send(random, { op: 'cancel', target: operation.id })
  }

  async #counts(random: Random, key: string): Promise<void> {
    await this.#send(random, { op: 'count', key })
  }

  async #family(random: Random): Promise<void> {
    const key = random.pick(['m', 'n', 'o'])
    const { operation } = await this.#send(random, { op: 'parent', key })
    await sleep(random.between(200, 700))
    if (random.next() < 0.2) await this.#send(random, { op: 'cancelParent', target: operation.id })
  }

  async #drips(random: Random): Promise<void> {
    await this.#send(random, { op: 'drip' })
  }

  async #wide(random: Random): Promise<void> {
    const { operation } = await this.#send(random, { op: 'wide' })
    await sleep(random.pick([0, 200, 900]))
    await this.#send(random, { op: 'signal', target: operation.id })
  }

  async #rings(random: Random): Promise<void> {
    const id = `ring-${this.#seed}-${this.#count}`
    const ring = Array.from({ length: 2 + random.below(2) }, (_, n) => `${id}-${n}`)
    await this.#send(random, { op: random.pick(['ring', 'tightRing']), ring })
    await sleep(random.between(200, 600))
    const peers = [`${id}-l`, `${id}-r`]
    await this.#send(random, { op: 'peers', ring: peers })
    await sleep(random.between(200, 600))
  }

  async #send(random: Random, draw: Draw): Promise<Acknowledged> {
    const n = this.#count++
    const operation: Operation = { ...draw, id: `${draw.op}-${n}`, n }
    const path = random.next() < 0.3 ? '/recovered' : '/op'
    const began = performance.now()
    const answer = await this.#persistently(random, path, operation)
    const ms = performance.now() - began
    if (ms > this.longest.ms) this.longest = { ms, id: operation.id }
    const acknowledged = { path, operation, answer }
    this.acknowledged.push(acknowledged)
    return acknowledged
  }

  /** As a patient client does: again with the same key, at any process, until the answer is final. */
  async #persistently(random: Random, path: string, operation: Operation): Promise<RawResponse> {
    for (let tries = 0; ; tries++) {
      const answer = await this.send(random, path, operation)
      if (answer?.status === 201) return answer
      if (answer && answer.status < 500 && answer.status !== 409)
        throw new Error(`${operation.id} was answered with ${answer.status}: ${answer.text}`)
      if (tries > 600) throw new Error(`${operation.id} never got an answer: ${answer?.text}`)
      await sleep(random.between(50, 200))
    }
  }

  /** Sends an operation once. @returns undefined if there is no answer */
  async send(random: Random, path: string, operation: Operation): Promise<RawResponse | undefined> {
    this.requests++
    const url = `${await this.#cluster.url(random)}${path}`
    const signal = AbortSignal.timeout(PATIENCE_MS)
    return request(url, { key: operation.id, body: operation, signal }).catch(() => undefined)
  }
}
