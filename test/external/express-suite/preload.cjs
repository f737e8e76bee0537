/**
 * Loaded by mocha before Express' tests: mounts a middleware first in every app, mounted apps
 * included. MOUNT says which: `nothing` (a function that calls next), or Pawl for all methods.
 * With FRESH_KEYS, every HTTP request of the process carries a key of its own.
 */
const { randomUUID } = require('node:crypto')
const http = require('node:http')
const { join } = require('node:path')

const application = require(join(process.cwd(), 'lib/application.js'))
let middleware = (_request, _response, next) => next()

if (process.env.MOUNT === 'pawl') {
  const { Pawl } = require(join(process.env.PAWL, 'index.js'))
  const { idempotency } = require(join(process.env.PAWL, 'http/express.js'))
  const pawl = new Pawl({ database: process.env.DATABASE_URL, migrate: true, drainTimeout: 0 })
  const started = pawl.start()
  exports.mochaHooks = {
    beforeAll: () => started,
    afterAll: () => pawl.stop(),
  }
  middleware = idempotency(pawl, { methods: 'all' })
}

if (application.lazyrouter) {
  // Express 4 makes an app's router when it is first used.
  const { lazyrouter } = application
  application.lazyrouter = function () {
    const isNew = !this._router
    lazyrouter.call(this)
    if (isNew) this._router.use(middleware)
  }
} else {
  // Express 5: `router` is a getter that makes one.
  const { init } = application
  application.init = function () {
    init.call(this)
    const { get } = Object.getOwnPropertyDescriptor(this, 'router')
    let mounted = false
    Object.defineProperty(this, 'router', {
      configurable: true,
      enumerable: true,
      get: () => {
        const router = get.call(this)
        if (!mounted) router.use(middleware)
        mounted = true
        return router
      },
    })
  }
}

if (process.env.FRESH_KEYS) {
  const { request } = http
  http.request = (...args) => {
    const outgoing = request(...args)
    if (!outgoing.hasHeader('Idempotency-Key')) {
      outgoing.setHeader('Idempotency-Key', randomUUID())
    }
    return outgoing
  }
}
