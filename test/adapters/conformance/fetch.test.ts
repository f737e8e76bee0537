import { cases } from '../../helpers/proof.ts'
import { conform } from './conform.ts'
import { fetchDriver } from './drivers/fetch.ts'

// It shares most of the code with Express and Fastify: each third case here, all of them in the proofs.
conform([fetchDriver], { every: cases(3, { proof: 1 }) })
