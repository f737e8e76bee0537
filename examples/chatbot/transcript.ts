import type { Pool, PoolClient } from 'pg'
import type { Reply } from './messages-api.ts'

/** A part of a conversation: one answer of the model within one turn. */
export interface Part {
  conversation: string
  turn: string
  round: number
}

export interface ChatEvent {
  n: number
  kind: string
  turn: string
  data: unknown
}

/**
 * What has happened in each conversation, in order: what the pages that look at it are shown. Events are
 * numbered, and each number is used once, so that of two processes that believe they are answering, one
 * goes on and the other stops.
 */
export class Transcripts {
  readonly #pool: Pool

  constructor(pool: Pool) {
    this.#pool = pool
  }

  async append(tx: PoolClient, event: Part & { kind: string; data: object }): Promise<void> {
    await tx.query(
      `insert into example_chatbot.events (conversation, n, turn, round, kind, data)
       select $1, coalesce(max(n), 0) + 1, $2, $3, $4, $5
       from example_chatbot.events where conversation = $1`,
      [event.conversation, event.turn, event.round, event.kind, event.data],
    )
  }

  async after(conversation: string, n: number): Promise<ChatEvent[]> {
    const { rows } = await this.#pool.query(
      `select n, kind, turn, data from example_chatbot.events
       where conversation = $1 and n > $2 order by n limit 500`,
      [conversation, n],
    )
    return rows
  }

  /** What was heard of an answer; all of it, if there is a reply. */
  async heard(part: Part): Promise<{ text: string; reply: Reply | null; next: number }> {
    const { rows } = await this.#pool.query(
      `select
         (select coalesce(string_agg(data ->> 'text', '' order by n), '') from example_chatbot.events
          where conversation = $1 and turn = $2 and round = $3 and kind = 'text') as text,
         (select data from example_chatbot.events
          where conversation = $1 and turn = $2 and round = $3 and kind = 'reply') as reply,
         (select coalesce(max(n), 0) + 1 from example_chatbot.events where conversation = $1) as next`,
      [part.conversation, part.turn, part.round],
    )
    return rows[0]
  }

  writer(part: Part, next: number): Writer {
    return new Writer(this.#pool, part, next)
  }
}

/** Writes an answer down as it comes. */
class Writer {
  readonly #pool: Pool
  readonly #part: Part
  #next: number
  #waiting = ''
  #writing: Promise<void> | undefined
  #error: unknown

  constructor(pool: Pool, part: Part, next: number) {
    this.#pool = pool
    this.#part = part
    this.#next = next
  }

  /** While one piece is on its way to the database, what comes meanwhile is the next. */
  write(text: string): void {
    if (this.#error) throw this.#error
    this.#waiting += text
    this.#writing ??= this.#drain()
  }

  /** Writes down that it is complete: from here on nobody asks for it again. */
  async end(reply: Reply): Promise<void> {
    await this.#writing
    if (this.#error) throw this.#error
    await this.#insert('reply', reply)
  }

  async #drain(): Promise<void> {
    try {
      while (this.#waiting) {
        const text = this.#waiting
        this.#waiting = ''
        await this.#insert('text', { text })
      }
    } catch (error) {
      // Also if the number is taken: somebody else is answering.
      this.#error = error
    } finally {
      this.#writing = undefined
    }
  }

  async #insert(kind: string, data: object): Promise<void> {
    const { conversation, turn, round } = this.#part
    await this.#pool.query(
      `insert into example_chatbot.events (conversation, n, turn, round, kind, data)
       values ($1, $2, $3, $4, $5, $6)`,
      [conversation, this.#next++, turn, round, kind, data],
    )
  }
}
