import { conform } from './conform.ts'
import { fetchDriver } from './drivers/fetch.ts'

conform([fetchDriver])
