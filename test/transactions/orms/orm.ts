import type { TransactionHost } from '../../../lib/index.ts'

/** A row of the table `orders`. */
export interface Order {
  id: number
  item: string
  ticket: string | null
}

/** An ORM on a database, with what the shared cases need of it, done by its own means. */
export interface OpenOrm<Tx> {
  on: TransactionHost<Tx>
  insert(tx: Tx, order: Omit<Order, 'id'>): Promise<Order>
  count(tx: Tx): Promise<number>
  /** Gives every order this item. */
  rename(tx: Tx, item: string): Promise<void>
  /** What `transaction_isolation` is. */
  isolation(tx: Tx): Promise<string>
  close(): Promise<void>
}

export type OpensOrm<Tx> = (url: string) => Promise<OpenOrm<Tx>>

/** The table that the cases write to. */
export const ORDERS =
  'create table orders (id serial primary key, item text not null, ticket text unique)'

export const ISOLATION = `select current_setting('transaction_isolation') as level`
