import { conform } from './conform.ts'
import { express4Driver, express5Driver } from './drivers/express.ts'

conform(express4Driver, express5Driver)
