import { cases } from '../../helpers/proof.ts'
import { conform } from './conform.ts'
import { honoDriver } from './drivers/hono.ts'

// It shares most of the code with Express and Fastify: each third case here, all of them in the proofs.
conform([honoDriver], { every: cases(3, { proof: 1 }) })
