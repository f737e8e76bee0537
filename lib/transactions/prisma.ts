/** The entry point of pawl/prisma: lets Pawl record its journal entries in transactions of Prisma. */

import type { TransactionHost } from '../store/database/transaction-host.ts'

const ISOLATION_LEVELS = {
  'read committed': 'ReadCommitted',
  'repeatable read': 'RepeatableRead',
  serializable: 'Serializable',
} as const

/**
 * The part of a Prisma client that Pawl uses. The client is generated from the app's schema, so there is
 * no type to import.
 */
export interface PrismaClientLike<Tx extends PrismaTransaction> {
  $transaction<T>(
    work: (tx: Tx) => Promise<T>,
    options?: { isolationLevel?: (typeof ISOLATION_LEVELS)[keyof typeof ISOLATION_LEVELS] },
  ): Promise<T>
}

/** The part of an interactive transaction's client that Pawl uses. */
export interface PrismaTransaction {
  $queryRawUnsafe<T>(sql: string, ...values: unknown[]): PromiseLike<T>
}

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a Prisma client for PostgreSQL,
 * also an extended one. Prisma ends a transaction after 5 s unless the client's `transactionOptions` set
 * another timeout.
 *
 * ```ts
 * await execution.transaction('record order', { on: prismaTransactions(prisma) }, (tx) =>
 *   tx.order.create({ data: order }))
 * ```
 */
export function prismaTransactions<Tx extends PrismaTransaction>(
  prisma: PrismaClientLike<Tx>,
): TransactionHost<Tx> {
  return {
    transaction: (work, isolation) =>
      prisma.$transaction(
        (tx) => work(tx, (sql, values) => tx.$queryRawUnsafe(sql, ...values) as Promise<never>),
        isolation && { isolationLevel: ISOLATION_LEVELS[isolation] },
      ),
  }
}
