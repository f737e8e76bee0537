import { cases } from '../../helpers/proof.ts'
import { conform } from './conform.ts'
import { koaDriver } from './drivers/koa.ts'

// It shares most of the code with Express and Fastify: each third case here, all of them in the proofs.
conform([koaDriver], { every: cases(3, { proof: 1 }) })
