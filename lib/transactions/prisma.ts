import type { TransactionHost } from '../store/database/transaction-host.ts'

const LEVELS = {
  'read committed': 'ReadCommitted',
  'repeatable read': 'RepeatableRead',
  serializable: 'Serializable',
} as const

/**
 * What Pawl uses of a Prisma client. It is generated from the app's own schema, so there is no type to
 * import.
 */
export interface PrismaClientLike<Tx extends PrismaTransaction> {
  $transaction<T>(
    work: (tx: Tx) => Promise<T>,
    options?: { isolationLevel?: (typeof LEVELS)[keyof typeof LEVELS] },
  ): Promise<T>
}

/** What Pawl uses of the client of an interactive transaction. */
export interface PrismaTransaction {
  $queryRawUnsafe<T>(sql: string, ...values: unknown[]): PromiseLike<T>
}

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a Prisma client of PostgreSQL,
 * also an extended one. Prisma ends a transaction after 5 s unless the client's `transactionOptions` say
 * otherwise.
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
        isolation && { isolationLevel: LEVELS[isolation] },
      ),
  }
}
