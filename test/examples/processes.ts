import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

interface Process {
  pid: number
  parent: number
  command: string
}

/** The process's children, their children, and so on. */
export async function descendantsOf(pid: number): Promise<Process[]> {
  const all = await runningProcesses()
  const found: Process[] = []
  let parents = [pid]
  while (parents.length > 0) {
    const children = all.filter(({ parent }) => parents.includes(parent))
    found.push(...children)
    parents = children.map((child) => child.pid)
  }
  return found
}

/** Those of the processes that still run; one that waits to be reaped does not. */
export async function stillRunning(processes: Process[]): Promise<Process[]> {
  const pids = new Set((await runningProcesses()).map(({ pid }) => pid))
  return processes.filter(({ pid }) => pids.has(pid))
}

async function runningProcesses(): Promise<Process[]> {
  const columns = 'pid=,ppid=,stat=,args='
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', columns], { maxBuffer: 1e7 })
  return stdout.split('\n').flatMap((line) => {
    const [, pid, parent, state, command] = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? []
    if (!command || state?.startsWith('Z')) return []
    return [{ pid: Number(pid), parent: Number(parent), command }]
  })
}
