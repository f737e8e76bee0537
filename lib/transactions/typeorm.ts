import type { DataSource, EntityManager } from 'typeorm'
import type { TransactionHost } from '../store/database/transaction-host.ts'

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a TypeORM data source of
 * PostgreSQL. Entities are instances of classes, which the journal does not keep: return plain values.
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
          // Structured, or what comes back depends on the kind of statement.
          const result = await manager.queryRunner?.query(sql, [...values], true)
          return result?.records ?? []
        })
      if (!isolation) return dataSource.transaction(run)
      return dataSource.transaction(LEVELS[isolation], run)
    },
  }
}

const LEVELS = {
  'read committed': 'READ COMMITTED',
  'repeatable read': 'REPEATABLE READ',
  serializable: 'SERIALIZABLE',
} as const
