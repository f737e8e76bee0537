import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'vitest'
import { proofOnly } from '../helpers/proof.ts'
import { conform } from './conform.ts'
import { openPrisma } from './orms/prisma.ts'
import { generate } from './prisma/generate.ts'

// By its path: two versions are installed, and this one takes a tenth of the other's time.
const TSC = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url))

conform('prisma', openPrisma)

// The client is generated when the tests run, so `npm run types` cannot know it.
proofOnly('types: fn gets the transaction client of Prisma, with its models', async () => {
  await generate()
  const generated = fileURLToPath(new URL('prisma/generated/', import.meta.url))
  const up = '../../../..'
  await writeFile(
    `${generated}use.ts`,
    `import type { Execution, TransactionHost } from '${up}/lib/index.ts'
import { prismaTransactions } from '${up}/lib/transactions/prisma.ts'
import type { Order, Prisma, PrismaClient } from './client.ts'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

export const host = (prisma: PrismaClient) => prismaTransactions(prisma)
export const exact: Equal<
  ReturnType<typeof host>,
  TransactionHost<Prisma.TransactionClient>
> = true

export const find = (execution: Execution, prisma: PrismaClient): Promise<Order | null> =>
  execution.transaction('find', { on: prismaTransactions(prisma) }, (tx) => tx.order.findFirst())

export const extended = (execution: Execution, prisma: PrismaClient): Promise<string> => {
  const client = prisma.$extends({ model: { order: { shout: (item: string) => item.toUpperCase() } } })
  return execution.transaction('shout', { on: prismaTransactions(client) }, (tx) => tx.order.shout('a'))
}

export const wrong = (execution: Execution, prisma: PrismaClient) =>
  // @ts-expect-error there is no such model
  execution.transaction('find', { on: prismaTransactions(prisma) }, (tx) => tx.orders.findFirst())
`,
  )
  await writeFile(
    `${generated}tsconfig.json`,
    JSON.stringify({ extends: `${up}/tsconfig.json`, include: ['use.ts'] }),
  )
  const checked = promisify(execFile)(process.execPath, [TSC, '--singleThreaded', '-p', generated])
  await expect(checked).resolves.toEqual({ stdout: '', stderr: '' })
})
