/**
 * Runs `npm test` and writes how long each file took to `helpers/durations.json`, by which the next run orders
 * them: `npx tsx test/durations.ts`, on a machine that does nothing else.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../', import.meta.url))
const LIST = join(ROOT, 'test/helpers/durations.json')

interface Report {
  readonly testResults: readonly { name: string; startTime: number; endTime: number }[]
}

const folder = mkdtempSync(join(tmpdir(), 'pawl-durations-'))
const report = join(folder, 'report.json')
const { status } = spawnSync(
  'npm',
  ['test', '--', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
  { cwd: ROOT, stdio: 'inherit' },
)
if (status === 0) {
  const { testResults }: Report = JSON.parse(readFileSync(report, 'utf8'))
  const durations = testResults
    .map(({ name, startTime, endTime }) => ({
      file: relative(ROOT, name),
      seconds: Math.round((endTime - startTime) / 100) / 10,
    }))
    .sort((a, b) => b.seconds - a.seconds || a.file.localeCompare(b.file))
  const entries = durations.map(({ file, seconds }) => [file, seconds])
  writeFileSync(LIST, `${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`)
}
rmSync(folder, { recursive: true })
process.exit(status ?? 1)
