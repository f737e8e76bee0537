import type { Logger } from './options/logger.ts'
import type { ByteSize, Duration } from './options/parse-options.ts'
import type { PgPool } from './store/database/node-postgres.ts'
import type { PGliteLike } from './store/database/pglite.ts'

/** Options of {@link Pawl}. */
export interface PawlOptions {
  /**
   * The app's PostgreSQL (14 or later): a `pg.Pool`, a connection string, or a PGlite instance. For a
   * connection string Pawl opens a pool of its own, of five connections; of a given pool it uses two
   * or three under load.
   */
  database: PgPool | PGliteLike | string
  /** The schema Pawl lives in. Default `'pawl'`. */
  schema?: string
  /**
   * A stable name of this process among its peers (a pod's ordinal, a systemd unit). A process that
   * starts under it retires its predecessor at once, so that a restart need not wait for
   * `processTimeout`. Two processes must not run under one name. Default: none.
   */
  instance?: string
  /** Apply missing migrations in `start()`. Safe with many processes. Default `false`. */
  migrate?: boolean
  /** A process without a heartbeat for this long is dead. At least 1 s. Default `'15s'`. */
  processTimeout?: Duration
  /** How long a statement may take, and a request may wait for a store that is away. Default `'5s'`. */
  storeTimeout?: Duration
  /** How long `stop()` waits for what is running. Default `'10s'`. */
  drainTimeout?: Duration
  /**
   * How many workflows this process runs at a time, if it defines any; `false`: it only starts them, and
   * others run them (`npx pawl work`). Default `{ concurrency: 100 }`.
   */
  workers?: false | { concurrency?: number }
  /**
   * How much may be stored of one execution, before an error (`limit-exceeded`) says so: the `input` and
   * the `output` of a workflow, what one `step` of a request or a workflow gives (1 MiB each), and how many
   * `steps` it may record (10,000).
   */
  limits?: { input?: ByteSize; output?: ByteSize; step?: ByteSize; steps?: number }
  /** How often this process deletes what has expired. Default `'1 minute'`. */
  retentionInterval?: Duration
  /**
   * AES-256-GCM keys (32 bytes, or their base64) under which stored responses, requests and step values
   * are encrypted. The first encrypts; the others still decrypt, for rotation. Default: none.
   */
  encryptionKeys?: readonly { id: string; key: Uint8Array | string }[]
  /** Where Pawl says what it does. Default: warnings on the console, progress with `NODE_DEBUG=pawl`. */
  logger?: Logger
}
