/** Listens on one connection for all that use the same few connections. */

import type { PgClient } from './pg-pool.ts'

/** A connection that listens. */
interface Connection {
  client: PgClient
  giveBack(broken: boolean): void
}

interface Subscriber {
  channel: string
  onMessage(payload: string): void
  onLost(): void
}

/**
 * Opens a connection for the first subscriber, and gives it back after the last. Several instances of Pawl may share
 * a pool: with a connection for each, those that listen would leave none for statements.
 */
export class SharedListener<C extends Connection> {
  readonly #open: () => Promise<C>
  readonly #send: (connection: C, sql: string) => Promise<unknown>
  readonly #subscribers = new Set<Subscriber>()
  #connection: Promise<{ connection: C; close: () => void }> | null = null
  /** How many are about to subscribe. */
  #pending = 0

  constructor(open: () => Promise<C>, send: (connection: C, sql: string) => Promise<unknown>) {
    this.#open = open
    this.#send = send
  }

  /**
   * Calls `onMessage` for each notification on the channel, until the returned function is called or the connection is
   * lost; then calls `onLost`, once.
   */
  async listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>> {
    const subscriber = { channel, onMessage, onLost }
    this.#pending++
    try {
      const opened = this.#connect()
      const { connection } = await opened
      // From now on, since a notification may arrive before the reply has been handled.
      this.#subscribers.add(subscriber)
      await this.#send(connection, `listen ${quoteIdentifier(channel)}`)
      if (this.#connection !== opened) throw new Error('The connection that listens was lost.')
    } catch (error) {
      this.#subscribers.delete(subscriber)
      throw error
    } finally {
      this.#pending--
      await this.#closeIfUnused()
    }
    return async () => {
      this.#subscribers.delete(subscriber)
      await this.#closeIfUnused()
    }
  }

  #connect(): Promise<{ connection: C; close: () => void }> {
    if (this.#connection) return this.#connection
    const opened = this.#open().then((connection) => {
      const { client } = connection
      const message = ({ channel, payload = '' }: { channel: string; payload?: string }) => {
        for (const subscriber of this.#subscribers)
          if (subscriber.channel === channel) subscriber.onMessage(payload)
      }
      const close = () => {
        client.off('notification', message)
        client.off('error', lost)
        client.off('end', lost)
        connection.giveBack(true)
      }
      const lost = () => {
        close()
        if (this.#connection !== opened) return
        this.#connection = null
        const subscribers = [...this.#subscribers]
        this.#subscribers.clear()
        for (const { onLost } of subscribers) onLost()
      }
      client.on('notification', message)
      client.on('error', lost)
      client.on('end', lost)
      return { connection, close }
    })
    opened.catch(() => {
      if (this.#connection === opened) this.#connection = null
    })
    this.#connection = opened
    return opened
  }

  async #closeIfUnused(): Promise<void> {
    const opened = this.#connection
    if (!opened || this.#pending > 0 || this.#subscribers.size > 0) return
    this.#connection = null
    const connection = await opened.catch(() => null)
    connection?.close()
  }
}

function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
