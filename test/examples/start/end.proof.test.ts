import { chmod, readdir } from 'node:fs/promises'
import { beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../../helpers/wait-for.ts'
import { stillRunning } from '../processes.ts'
import { Command } from './command.ts'
import { copyProject, privateFolder } from './project-copy.ts'

/** Six processes start and end; a busy machine takes its time. */
const SLOW = { timeout: 120_000 }

let cwd: string
let TMPDIR: string

beforeAll(async () => {
  cwd = await copyProject()
  TMPDIR = await privateFolder()
  await chmod(TMPDIR, 0o711)
}, 120_000)

const startShop = () => new Command(['npm', 'start'], { cwd, env: { TMPDIR, PORT: '0' } })

/** The data folders that are left. */
async function folders(): Promise<string[]> {
  return (await readdir(TMPDIR)).filter((name) => name.startsWith('pawl-'))
}

/** Starts the shop and waits until it is open. */
async function openShop() {
  const shop = startShop()
  await shop.prints(/Ctrl-C ends everything/)
  const processes = await shop.descendants()
  const commands = processes.map(({ command }) => command).join('\n')
  for (const part of ['start.js shop', 'shop.ts', 'provider.ts', 'database.ts', 'postgres -D']) {
    expect(commands).toContain(part)
  }
  expect(await folders()).toHaveLength(1)
  return { shop, processes }
}

describe('the example shop, when it is ended', SLOW, () => {
  const asked: Record<string, (shop: Command) => void> = {
    'Ctrl-C twice': (shop) => {
      shop.signalGroup('SIGINT')
      shop.signalGroup('SIGINT')
    },
    'SIGINT to npm alone': (shop) => shop.process.kill('SIGINT'),
    'SIGTERM to npm alone': (shop) => shop.process.kill('SIGTERM'),
  }
  for (const [how, end] of Object.entries(asked)) {
    it(`leaves nothing once npm has ended: ${how}`, async () => {
      const { shop, processes } = await openShop()
      end(shop)
      expect(await shop.exited, shop.output).toBe(0)
      expect(await stillRunning(processes)).toEqual([])
      expect(await folders()).toEqual([])
    })
  }

  const gone: Record<string, (shop: Command) => void> = {
    'npm and the example are killed': (shop) => shop.signalGroup('SIGKILL'),
    'npm is killed': (shop) => shop.process.kill('SIGKILL'),
    'the terminal is closed': (shop) => shop.signalGroup('SIGHUP'),
  }
  for (const [how, end] of Object.entries(gone)) {
    it(`leaves nothing when ${how}, which ends npm at once`, async () => {
      const { shop, processes } = await openShop()
      end(shop)
      await shop.exited
      await waitFor('the end of all', async () => (await stillRunning(processes)).length === 0)
      expect(await folders()).toEqual([])
    })
  }

  // What it is doing at that moment: it is told by the processes that run.
  for (const moment of ['initdb', 'shop.ts']) {
    it(`leaves nothing on Ctrl-C in the middle of its start, when ${moment} runs`, async () => {
      const shop = startShop()
      const processes = await waitFor(
        moment,
        async () => {
          const found = await shop.descendants()
          return found.some(({ command }) => command.includes(moment)) ? found : null
        },
        100_000,
      )
      shop.signalGroup('SIGINT')
      expect(await shop.exited, shop.output).toBe(0)
      expect(await stillRunning(processes)).toEqual([])
      expect(await folders()).toEqual([])
      expect(shop.output).not.toMatch(/\n\s+at /)
    })
  }
})
