import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** How much the heap of this process grows while `work` runs, in bytes; without what can be collected. */
export async function heapGrowth(work: () => Promise<unknown>): Promise<number> {
  const before = await usedHeap()
  await work()
  return (await usedHeap()) - before
}

/** What the heap of this process holds, in bytes, without what can be collected. */
export async function usedHeap(): Promise<number> {
  // What a finalizer holds is collected one turn later.
  for (let n = 0; n < 3; n++) {
    gc()
    await sleep(10)
  }
  return process.memoryUsage().heapUsed
}
