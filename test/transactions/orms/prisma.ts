import { PrismaPg } from '@prisma/adapter-pg'
import {
  type PrismaClientLike,
  type PrismaTransaction,
  prismaTransactions,
} from '../../../lib/transactions/prisma.ts'
import { generatedClient } from '../prisma/generate.ts'
import { ISOLATION, type OpenOrm, type Order } from './orm.ts'

/** What the cases use of the client, which is generated only when the tests run. */
interface Tx extends PrismaTransaction {
  order: {
    create(query: { data: Omit<Order, 'id'> }): Promise<Order>
    count(): Promise<number>
    updateMany(query: { data: { item: string } }): Promise<unknown>
  }
}

interface Client extends PrismaClientLike<Tx> {
  $disconnect(): Promise<void>
}

export async function openPrisma(url: string): Promise<OpenOrm<Tx>> {
  const { PrismaClient } = (await generatedClient()) as {
    PrismaClient: new (options: object) => Client
  }
  const prisma = new PrismaClient({
    adapter: new PrismaPg({ connectionString: url, max: 3 }),
    // Prisma's defaults are short for a busy machine.
    transactionOptions: { maxWait: 30_000, timeout: 30_000 },
  })
  return {
    on: prismaTransactions(prisma),
    insert: (tx, data) => tx.order.create({ data }),
    count: (tx) => tx.order.count(),
    async rename(tx, item) {
      await tx.order.updateMany({ data: { item } })
    },
    isolation: async (tx) => (await tx.$queryRawUnsafe<{ level: string }[]>(ISOLATION))[0]!.level,
    close: () => prisma.$disconnect(),
  }
}
