/** Keeps a database's connections and timers out of the async context of the request that happens to need them. */

import { AsyncLocalStorage } from 'node:async_hooks'
import { runOutsideRequests } from '../../context/outside-requests.ts'
import type { Database } from './database.ts'

/**
 * Wraps a database so that its statements, connections and notifications run outside requests. Otherwise a connection
 * that was opened for one request, or its idle timer, would keep that request's context, and run callbacks in it, for
 * as long as it is open. The work of an app's transaction runs in the context of its caller.
 */
export function detach(db: Database): Database {
  return {
    query: (...args) => runOutsideRequests(() => db.query(...args)),
    urgent: (...args) => runOutsideRequests(() => db.urgent(...args)),
    timeoutMs: db.timeoutMs,
    get connections() {
      return db.connections
    },
    host: {
      transaction: (work, isolation) => {
        const runInCallersContext = AsyncLocalStorage.snapshot()
        return runOutsideRequests(() =>
          db.host.transaction((tx, run) => runInCallersContext(work, tx, run), isolation),
        )
      },
    },
    transaction: (work) => runOutsideRequests(() => db.transaction(work)),
    session: (work, signal) => runOutsideRequests(() => db.session(work, signal)),
    listen: (channel, onMessage, onLost) =>
      runOutsideRequests(() =>
        db.listen(
          channel,
          (payload) => runOutsideRequests(() => onMessage(payload)),
          () => runOutsideRequests(onLost),
        ),
      ),
    close: () => runOutsideRequests(() => db.close()),
  }
}
