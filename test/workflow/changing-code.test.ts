import { describe, expect, it } from 'vitest'
import { TerminalError, type WorkflowExecution } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

type Code = (execution: WorkflowExecution) => Promise<unknown>

/** Runs an execution under one code after the other, each deployed in place of the one before. */
function deployments(name: string) {
  let id = ''
  let key = ''
  let current: ReturnType<typeof app.pawl> | undefined
  return {
    async deploy(code: Code, options: { version?: string } = {}) {
      await current?.stop()
      const pawl = app.pawl()
      const workflow = pawl.workflow(name, options, code)
      await pawl.start()
      current = pawl
      if (!id) {
        const started = await workflow.start(undefined, { key: freshKey() })
        id = started.id
        key = started.key
      }
      return { pawl, id, handle: workflow.handle(key) }
    },
  }
}

describe('Code that has changed under an execution', () => {
  it('parks the workflow if a step has another kind now, and changes nothing: with the old code it finishes', async () => {
    const ran: string[] = []
    const original: Code = async (execution) => {
      const charge = await execution.step('charge', () => ran.push('charge'))
      await execution.signal('go')
      return charge
    }
    const { deploy } = deployments('another kind')
    const first = await deploy(original)
    await app.until(first.id, 'waiting')

    const changed = await deploy(async (execution) => {
      await execution.transaction('charge', () => ran.push('transaction'))
    })
    await changed.handle.signal('go')
    await app.until(first.id, 'parked')
    const { error } = await changed.handle.status()
    expect(error).toMatchObject({ name: 'DivergenceError', code: 'divergence' })
    expect(error?.message).toMatch(/"charge" is recorded as a step and is now a transaction/)

    const back = await deploy(original)
    expect(await back.pawl.release({ id: first.id })).toBe(true)
    expect(await back.handle.result()).toBe(1)
    expect(ran).toEqual(['charge'])
    expect(await app.journal(first.id)).toContain('step charge')
  })

  it('parks the workflow if it ends without running a recorded step, and names the step; with the old code it finishes', async () => {
    const ran: string[] = []
    const original: Code = async (execution) => {
      await execution.step('charge', () => ran.push('charge'))
      await execution.step('mail', () => ran.push('mail'))
      await execution.signal('go')
      return execution.step('ship', () => ran.push('ship'))
    }
    const { deploy } = deployments('renamed')
    const first = await deploy(original)
    await app.until(first.id, 'waiting')

    const changed = await deploy(async (execution) => {
      await execution.step('charge', () => ran.push('charge'))
      await execution.step('send mail', () => ran.push('send mail'))
      return 'changed'
    })
    await changed.handle.signal('go')
    await app.until(first.id, 'parked')
    const { error } = await changed.handle.status()
    expect(error).toMatchObject({ code: 'divergence', steps: ['mail'] })
    expect(error?.message).toMatch(/ended without running steps that its journal contains: "mail"/)

    const back = await deploy(original)
    expect(await back.pawl.release({ id: first.id })).toBe(true)
    expect(await back.handle.result()).toBe(4)
    expect(ran).toEqual(['charge', 'mail', 'send mail', 'ship'])
  })

  it('parks the workflow too if it fails for good without running steps that have compensations', async () => {
    const undone: string[] = []
    const { deploy } = deployments('fails')
    const first = await deploy(async (execution) => {
      await execution.step('book', () => 1, { compensate: () => undone.push('book') })
      await execution.signal('go')
    })
    await app.until(first.id, 'waiting')
    const changed = await deploy(async () => {
      throw new TerminalError('no')
    })
    await changed.handle.signal('go')
    await app.until(first.id, 'parked')
    const back = await deploy(async (execution) => {
      await execution.step('book', () => 1, { compensate: () => undone.push('book') })
      throw new TerminalError('no')
    })
    await back.pawl.release({ id: first.id })
    await app.until(first.id, 'failed')
    expect(undone).toEqual(['book'])
  })

  it('ends without those steps after a release under the same code', async () => {
    const { deploy } = deployments('accepted')
    const first = await deploy(async (execution) => {
      await execution.step('old', () => 1)
      await execution.signal('go')
    })
    await app.until(first.id, 'waiting')
    const changed = await deploy(async (execution) => {
      await execution.signal('go')
      return 'without'
    })
    await changed.handle.signal('go')
    await app.until(first.id, 'parked')
    await changed.pawl.release({ id: first.id })
    expect(await changed.handle.result()).toBe('without')
  })

  it('does not mistake the loser of a race for a skipped step', async () => {
    const raced: Code = async (execution) => {
      const slow = async () => {
        await execution.step('a', () => 1)
        await execution.step('b', () => 1)
        return 'slow'
      }
      const winner = await Promise.race([execution.step('fast', () => 'fast'), slow()])
      // The first attempt ends here, once the loser has recorded all of its steps.
      if (execution.attempt === 1) {
        await waitFor('the loser', async () => (await app.journal(execution.id)).length === 3)
        throw new Error('the process dies')
      }
      return winner
    }
    const pawl = app.pawl()
    const race = pawl.workflow('race', { retry: { backoff: 1 } }, raced)
    await pawl.start()
    const handle = await race.start(undefined)
    expect(['fast', 'slow']).toContain(await handle.result())
    expect((await handle.status()).status).toBe('done')
  })

  it('does not mistake the handling of a failed step for skipped steps', async () => {
    const ran: string[] = []
    let isDown = true
    const { deploy } = deployments('falls back')
    const code: Code = async (execution) => {
      await execution.step('before', () => ran.push('before'))
      const way = await execution
        .step('notify', () => {
          ran.push('notify')
          if (isDown) throw new Error('the mail server is down')
          return 'mail'
        })
        .catch((error: Error) =>
          execution.step('fall back', () => {
            ran.push('fall back')
            return `letter, since ${error.message}`
          }),
        )
      await execution.signal('go')
      await execution.step('after', () => ran.push('after'))
      return way
    }
    const first = await deploy(code)
    await app.until(first.id, 'waiting')
    expect(await app.journal(first.id)).toEqual(['step before', 'step notify', 'step fall back'])
    isDown = false
    const second = await deploy(code)
    await second.handle.signal('go')
    expect(await second.handle.result()).toBe('letter, since the mail server is down')
    expect(ran).toEqual(['before', 'notify', 'fall back', 'after'])
  })

  it('gives up if an earlier attempt had begun to, also when it runs again', async () => {
    const undone: string[] = []
    let failing = true
    const pawl = app.pawl()
    const trip = pawl.workflow('trip', { retry: { backoff: 1 } }, async (execution) => {
      await execution.step('book', () => 1, {
        compensate: () => {
          undone.push('book')
          if (failing) throw new Error('the hotel does not answer')
        },
      })
      await execution.signal('never')
    })
    await pawl.start()
    const handle = await trip.start(undefined)
    await app.until(handle.id, 'waiting')
    await handle.cancel()
    await waitFor('a compensation that failed', async () => {
      const { rows } = await database.pool.query(
        `select from pawl.executions where id = $1 and last_error is not null`,
        [handle.id],
      )
      return rows.length > 0 && undone.length >= 3
    })
    failing = false
    await app.until(handle.id, 'cancelled')
  })
})

describe('A version', () => {
  it('is run by processes that define it, and waits until there is one', async () => {
    const old = app.pawl()
    const oldCode = old.workflow('order', { version: '1' }, async (execution) => {
      await execution.signal('go')
      return 'under 1'
    })
    await old.start()
    const drained = await oldCode.start(undefined)
    const stuck = await oldCode.start(undefined)
    await app.until(drained.id, 'waiting')

    const ran: string[] = []
    const next = app.pawl()
    const newCode = next.workflow('order', { version: '2' }, async () => {
      ran.push('under 2')
      return 'under 2'
    })
    await next.start()
    expect(await (await newCode.start(undefined)).result()).toBe('under 2')
    // The old process is still there, and finishes what it has begun.
    await next.signal(drained.id, 'go')
    expect(await drained.result()).toBe('under 1')

    await app.until(stuck.id, 'waiting')
    await old.stop()
    await next.signal(stuck.id, 'go')
    // Enough for the process without it to look: one of its own that was started later is done.
    for (let i = 0; i < 3; i++) await (await newCode.start(undefined)).result()
    expect(await next.status(stuck.id)).toMatchObject({ status: 'waiting', version: '1' })
    const { rows } = await database.pool.query(
      `select status, version, due_at <= pawl.now() as due from pawl.execution_log where id = $1`,
      [stuck.id],
    )
    expect(rows).toEqual([{ status: 'waiting', version: '1', due: true }])

    const again = app.pawl()
    const handle = again
      .workflow('order', { version: '1' }, async (execution) => {
        await execution.signal('go')
        return 'under 1, again'
      })
      .handle(stuck.key)
    await again.start()
    expect(await handle.result()).toBe('under 1, again')
    expect(ran).toHaveLength(4)
  })

  it('is refused if it is defined twice', () => {
    const pawl = app.pawl()
    pawl.workflow('twice', { version: '1' }, () => 1)
    pawl.workflow('twice', { version: '2' }, () => 1)
    expect(() => pawl.workflow('twice', { version: '1' }, () => 1)).toThrow(
      /two definitions of "twice" of version "1"/,
    )
  })
})

describe('execution.patched', () => {
  it('is false for executions that are past it, true for others, and the same in every attempt', async () => {
    const seen: unknown[] = []
    const { deploy } = deployments('patched')
    const first = await deploy(async (execution) => {
      await execution.step('charge', () => 1)
      await execution.signal('go')
      return execution.step('ship', () => 'shipped')
    })
    await app.until(first.id, 'waiting')
    const patched: Code = async (execution) => {
      const checks = await execution.patched('check fraud')
      seen.push([execution.attempt, checks])
      if (checks) await execution.step('check fraud', () => 1)
      await execution.step('charge', () => 1)
      await execution.signal('go')
      const late = await execution.patched('mail')
      seen.push([execution.attempt, 'mail', late])
      if (late) await execution.step('mail', () => 1)
      await execution.signal('again')
      return execution.step('ship', () => `shipped, ${checks}, ${late}`)
    }
    const second = await deploy(patched)
    await second.handle.signal('go')
    // It has come past the first change, and not yet to the second.
    await waitFor('the second wait', async () =>
      (await app.journal(first.id)).includes('step mail'),
    )
    await app.until(first.id, 'waiting')
    await second.handle.signal('again')
    expect(await second.handle.result()).toBe('shipped, false, true')
    const attempts = (seen as unknown[][]).filter((entry) => entry.length === 2)
    expect(attempts.length).toBeGreaterThan(1)
    expect(attempts.every(([, checks]) => checks === false)).toBe(true)
    const mails = (seen as unknown[][]).filter((entry) => entry.length === 3)
    expect(mails.every(([, , late]) => late === true)).toBe(true)

    seen.length = 0
    const { handle } = await deployments('patched').deploy(patched)
    await handle.signal('go')
    await handle.signal('again')
    expect(await handle.result()).toBe('shipped, true, true')
  })

  const rounds: Code = async (execution) => {
    const results: string[] = []
    for (let round = 1; round <= 3; round++) {
      results.push(await execution.step('work', () => `old ${round}`))
      await execution.signal('next')
    }
    return results
  }
  const patchedRounds: Code = async (execution) => {
    const results: string[] = []
    for (let round = 1; round <= 3; round++) {
      const better = await execution.patched('better work')
      if (better) results.push(await execution.step('better work', () => `new ${round}`))
      else results.push(await execution.step('work', () => `old ${round}`))
      await execution.signal('next')
    }
    return results
  }
  /** Sends the signal, and waits until the execution waits for the next one. */
  const next = async (
    { handle, id }: Awaited<ReturnType<ReturnType<typeof deployments>['deploy']>>,
    done: number,
  ) => {
    await handle.signal('next')
    await waitFor('the signal to be taken', async () => {
      const taken = (await app.journal(id)).filter((entry) => entry === 'signal next')
      return taken.length === done && (await app.status(id)) === 'waiting'
    })
  }
  const patches = async (id: string) =>
    (await app.journal(id)).filter((entry) => entry.startsWith('patch'))

  it('is decided once: all rounds of a loop that had begun go on as they were, in every attempt', async () => {
    const { deploy } = deployments('loop')
    await app.until((await deploy(rounds)).id, 'waiting')
    const second = await deploy(patchedRounds)
    await next(second, 1)
    await next(await deploy(patchedRounds), 2)
    const last = await deploy(patchedRounds)
    await last.handle.signal('next')
    expect(await last.handle.result()).toEqual(['old 1', 'old 2', 'old 3'])
    expect(await patches(last.id)).toEqual(['patch patched better work'])

    const other = await deployments('loop').deploy(patchedRounds)
    for (let round = 0; round < 3; round++) await other.handle.signal('next')
    expect(await other.handle.result()).toEqual(['new 1', 'new 2', 'new 3'])
    expect(await patches(other.id)).toEqual(['patch patched better work'])
  })

  it('lets the old code finish what the new one had taken over, in a deployment that is rolled back', async () => {
    const { deploy } = deployments('rolled back')
    await app.until((await deploy(rounds)).id, 'waiting')
    await next(await deploy(patchedRounds), 1)
    const back = await deploy(rounds)
    await next(back, 2)
    await back.handle.signal('next')
    expect(await back.handle.result()).toEqual(['old 1', 'old 2', 'old 3'])
    expect(await patches(back.id)).toEqual(['patch patched better work'])
  })

  it('stands in the way of no recorded step that a cancellation has to undo', async () => {
    const undone: string[] = []
    const book = (execution: WorkflowExecution) =>
      execution.step('book', () => 1, { compensate: () => undone.push('book') })
    const { deploy } = deployments('cancelled')
    const first = await deploy(async (execution) => {
      await book(execution)
      await execution.signal('go')
    })
    await app.until(first.id, 'waiting')
    const second = await deploy(async (execution) => {
      if (await execution.patched('check')) await execution.step('check', () => 1)
      await book(execution)
      await execution.signal('go')
    })
    await second.handle.cancel()
    await app.until(first.id, 'cancelled')
    expect(undone).toEqual(['book'])
  })

  it('takes no part in the order in which concurrent steps replay', async () => {
    const pawl = app.pawl()
    const race = pawl.workflow(
      'race with a patch',
      { retry: { backoff: 1 } },
      async (execution) => {
        const first = execution.step('first', () => 'first')
        const branch = async () => {
          const isNew = await execution.patched('a change')
          return execution.step('second', () => `second, ${isNew}`)
        }
        const both = await Promise.all([first, branch(), execution.patched('a change')])
        if (execution.attempt < 3) throw new Error('again')
        return both
      },
    )
    await pawl.start()
    expect(await (await race.start(undefined)).result()).toEqual(['first', 'second, true', true])
  })
})
