import { expect } from 'vitest'
import type { ProblemCode } from '../../../lib/http/problem.ts'
import { Pawl, type PawlOptions } from '../../../lib/index.ts'
import { silent } from '../../helpers/app.ts'
import type { TestDatabase } from '../../helpers/database.ts'
import { type Proxy as DatabaseProxy, startProxy } from '../../helpers/proxy.ts'
import { freshKey, type RawResponse, type RequestOptions, request } from '../../helpers/request.ts'
import { endToEnd } from '../../helpers/twice.ts'
import { waitFor } from '../../helpers/wait-for.ts'
import type { Call, Driver, Options, Reply } from './driver.ts'

/** One behaviour that every framework must show. */
export interface Case {
  /** A row of docs/edge-cases.md, `IETF n` of its checklist, or a promise. */
  row: string
  name: string
  options?: Options
  /** What the app does. Default: `{ json: { run } }`. */
  handle?: (call: Call, run: number) => Reply | Promise<Reply>
  /** Requests, one after the other, and what comes of each. */
  steps?: Step[]
  /** How often the handler has run after that. */
  runs?: number
  /** Where it is about what happens at the same time. */
  act?: (app: Running) => Promise<void>
  /** The same where it does something to its Pawl, or to the way to the database: it gets its own. */
  alone?: (app: Alone) => Promise<void>
  /** Of a case that is alone. */
  pawl?: Partial<PawlOptions>
}

export interface Step extends Pick<RequestOptions, 'method' | 'body' | 'headers'> {
  /** By a name: the same name is the same key, new for each run of the case. Default `A`; null: none. */
  key?: string | null
  /** The header's lines as they are sent. Here and in `headers` `{A}` stands for that key. */
  lines?: string[]
  path?: string
  expect: Expectation
}

export interface Expectation {
  status?: number
  /** A problem document of that type. */
  problem?: ProblemCode
  json?: unknown
  text?: string | RegExp
  bytes?: Uint8Array
  /** Undefined: it is not there. */
  headers?: Record<string, string | RegExp | undefined>
  /** Byte for byte the first answer to this key, and marked as a replay; default: not marked. */
  replay?: true
}

/** An app of one case, in one framework. */
export interface Running {
  url: string
  pawl: Pawl
  /** The test's own way to the database. */
  database: TestDatabase
  runs(): number
  send(step: Omit<Step, 'expect'>, signal?: AbortSignal): Promise<RawResponse>
  /** The key of that name. */
  key(name?: string): string
  /** The row of that key; undefined if there is none. */
  stored(name?: string): Promise<Record<string, unknown> | undefined>
}

/** An app with a Pawl of its own. */
export interface Alone extends Running {
  /** On the app's way to the database. */
  proxy: DatabaseProxy
  /** The same app once more, as another process would have it. */
  peer(): Promise<Alone>
}

/** What the cases of a file share. */
export interface Bench {
  database: TestDatabase
  /** Of the cases that do nothing to it. */
  pawl: Pawl
}

export async function runCase(what: Case, driver: Driver, bench: Bench): Promise<void> {
  const { options = {}, handle = defaultHandle, steps = [], runs, act, alone } = what
  const { database } = bench
  const keys = new Map<string, string>()
  const key = (name = 'A') => {
    const known = keys.get(name) ?? freshKey()
    keys.set(name, known)
    return known
  }
  let count = 0
  const closing: (() => Promise<unknown>)[] = []
  const serve = async (pawl: Pawl): Promise<Running> => {
    const { url, close } = await driver.start({
      pawl,
      options,
      handle: (call) => handle(call, ++count),
    })
    closing.push(close)
    const send: Running['send'] = (step, signal) =>
      request(url + (step.path ?? '/'), { ...toSend(step, key), ...(signal && { signal }) })
    const stored: Running['stored'] = async (name) => {
      const sql = 'select * from pawl.execution_log where key = $1'
      return (await database.pool.query(sql, [key(name)])).rows[0]
    }
    return { url, pawl, database, key, runs: () => count, send, stored }
  }
  const serveAlone = async (): Promise<Alone> => {
    const proxy = await startProxy(database.url)
    closing.push(proxy.close)
    const start = async (): Promise<Alone> => {
      const settings = { logger: silent, drainTimeout: 0, ...what.pawl }
      const pawl = new Pawl({ database: proxy.url, ...settings })
      closing.push(() => pawl.stop())
      // One that is impatient may find its first connection slow.
      await waitFor('Pawl to start', () =>
        pawl.start().then(
          () => true,
          () => false,
        ),
      )
      return { ...(await serve(pawl)), proxy, peer: start }
    }
    return start()
  }
  try {
    if (alone) {
      const app = await serveAlone()
      await take(steps, app.send)
      await alone(app)
    } else {
      const app = await serve(bench.pawl)
      await take(steps, app.send)
      await act?.(app)
    }
    if (runs !== undefined) expect(count, 'runs of the handler').toBe(runs)
  } finally {
    for (const close of closing.reverse()) await close()
  }
}

async function take(
  steps: readonly Step[],
  send: (step: Step) => Promise<RawResponse>,
): Promise<void> {
  const firsts = new Map<string | null, RawResponse>()
  for (const [at, step] of steps.entries()) {
    const answer = await send(step)
    const name = step.key === undefined ? 'A' : step.key
    meets(answer, step.expect, firsts.get(name), `step ${at + 1}`)
    if (!firsts.has(name)) firsts.set(name, answer)
  }
}

function toSend(
  { key: name, lines, headers = {}, method, body }: Omit<Step, 'expect'>,
  key: (name?: string) => string,
): RequestOptions {
  const named = (line: string) => line.replace(/\{(\w)\}/g, (_, at) => key(at))
  const all = Object.entries({
    ...headers,
    ...((lines ?? name !== null) ? { 'Idempotency-Key': lines ?? [key(name ?? undefined)] } : {}),
  })
  return {
    ...(method && { method }),
    ...(body !== undefined && { body }),
    headers: Object.fromEntries(all.map(([at, value]) => [at, [value].flat().map(named)])),
  }
}

const defaultHandle = (_: Call, run: number): Reply => ({ json: { run } })

function meets(
  answer: RawResponse,
  wanted: Expectation,
  first: RawResponse | undefined,
  step: string,
): void {
  const { status, problem, json, text, bytes, headers = {}, replay } = wanted
  if (status !== undefined) expect(answer.status, step).toBe(status)
  if (problem) {
    expect(answer.headers['content-type'], step).toBe('application/problem+json; charset=utf-8')
    expect(answer.json.type, step).toBe(`urn:pawl:problem:${problem}`)
  }
  if (json !== undefined) expect(answer.json, step).toEqual(json)
  if (typeof text === 'string') expect(answer.text, step).toBe(text)
  else if (text) expect(answer.text, step).toMatch(text)
  if (bytes) expect(answer.body, step).toEqual(Buffer.from(bytes))
  for (const [name, value] of Object.entries(headers)) {
    if (value instanceof RegExp) expect(answer.headers[name], step).toMatch(value)
    else expect(answer.headers[name], step).toEqual(value)
  }
  if (!replay) {
    if (!problem) expect(answer.headers['idempotent-replayed'], step).toBeUndefined()
    return
  }
  expect(answer.headers['idempotent-replayed'], step).toBe('true')
  expect(answer.status, step).toBe(first?.status)
  expect(answer.body, step).toEqual(first?.body)
  expect(endToEnd(answer), step).toEqual(first && endToEnd(first))
}
