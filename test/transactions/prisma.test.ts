import { conform } from './conform.ts'
import { openPrisma } from './orms/prisma.ts'

conform('prisma', openPrisma)
