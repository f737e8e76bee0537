import { conform } from './conform.ts'
import { nestExpressDriver, nestFastifyDriver } from './drivers/nest.ts'

conform([nestExpressDriver, nestFastifyDriver])
