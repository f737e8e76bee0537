/** The entry point of pawl/typeorm: lets Pawl record its journal entries in transactions of TypeORM. */

import type { DataSource, EntityManager } from 'typeorm'
import type { TransactionHost } from '../store/database/transaction-host.ts'

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a TypeORM data source for
 * PostgreSQL. Return plain values: the journal cannot store entities, which are instances of classes.
 *
 * ```ts
 * await execution.transaction('record order', { on: typeormTransactions(dataSource) }, async (manager) => {
 *   const { id } = await manager.save(Order, order)
 *   return { id }
 * })
 * ```
 */
export function typeormTransactions(
  dataSource: Pick<DataSource, 'transaction'>,
): TransactionHost<EntityManager> {
  return {
    transaction: (work, isolation) => {
      const run = (manager: EntityManager) =>
        work(manager, async (sql, values) => {
          // Asks for a structured result (`true`): else its form depends on the kind of statement.
          const result = await manager.queryRunner?.query(sql, [...values], true)
          return result?.records ?? []
        })
      if (!isolation) return dataSource.transaction(run)
      return dataSource.transaction(ISOLATION_LEVELS[isolation], run)
    },
  }
}

const ISOLATION_LEVELS = {
  'read committed': 'READ COMMITTED',
  'repeatable read': 'REPEATABLE READ',
  serializable: 'SERIALIZABLE',
} as const
