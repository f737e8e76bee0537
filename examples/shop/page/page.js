/** Watches the example over server-sent events, and plays what its buttons say. */
import { showBooks } from './books.js'
import { price } from './dom.js'
import { showJournal } from './journal.js'
import { Scenarios } from './scenarios.js'
import { showStory } from './story.js'

const $ = (id) => document.getElementById(id)
const buttons = document.querySelectorAll('[data-scenario]')
const pawlSwitch = $('pawl')
const ended = new AbortController()

/** The last one; null until there is one. */
let snapshot = null
let pawl = true
/** Who waits for a snapshot of a kind. */
let waiting = []

const scenarios = new Scenarios(
  {
    signal: ended.signal,
    killAt: (moment, cart) => post('sabotage', { moment, cart }),
    /** Until the page shows what there is by now. */
    async look() {
      const { version } = await post('look')
      await until((snapshot) => snapshot.version >= version)
    },
    until,
  },
  show,
)

pawlSwitch.addEventListener('click', () => {
  pawl = !pawl
  pawlSwitch.setAttribute('aria-checked', String(pawl))
  document.body.classList.toggle('without', !pawl)
})

$('goods').addEventListener('change', () => {
  $('price').textContent = price(Number(chosen().dataset.amount))
})

for (const button of buttons) {
  button.addEventListener('click', () => {
    if (!isReady()) return
    // Where the columns are below each other, what happens would be out of sight.
    if (matchMedia('(max-width: 699px)').matches) $('shop').scrollIntoView()
    const { value, dataset } = chosen()
    const purchase = { pawl, item: value, amount: Number(dataset.amount) }
    scenarios.play(button.dataset.scenario, purchase).catch((error) => {
      if (!ended.signal.aborted) throw error
    })
  })
}

const live = new EventSource('live')
live.addEventListener('message', ({ data }) => {
  const before = snapshot?.shop.state
  snapshot = JSON.parse(data)
  const { state, pid } = snapshot.shop
  if (before !== state && state === 'killed') scenarios.note({ kind: 'killed', pid })
  if (before !== state && state === 'up') scenarios.note({ kind: 'restarted', pid })
  waiting = waiting.filter(({ condition, resolve }) => {
    if (!condition(snapshot)) return true
    resolve(snapshot)
    return false
  })
  show()
})
live.addEventListener('bye', () => {
  live.close()
  ended.abort()
})
for (const event of ['bye', 'error']) {
  live.addEventListener(event, () => {
    $('gone').hidden = false
  })
}
live.addEventListener('open', () => {
  $('gone').hidden = true
})

/** The first snapshot, from this one on, that fulfils the condition. */
function until(condition) {
  if (condition(snapshot)) return Promise.resolve(snapshot)
  return new Promise((resolve) => waiting.push({ condition, resolve }))
}

async function post(path, body = {}) {
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: ended.signal,
  })
  return response.json()
}

function chosen() {
  return document.querySelector('[name=item]:checked')
}

function isReady() {
  return !scenarios.busy && snapshot?.shop.state === 'up'
}

function show() {
  const { shop, orders } = snapshot
  // Not `disabled`, which would take the keyboard's focus away.
  for (const button of buttons) button.ariaDisabled = String(!isReady())
  document.body.dataset.played = scenarios.played

  const state = $('shop-state')
  state.dataset.state = shop.state
  state.textContent = {
    starting: 'starting …',
    up: `running, pid ${shop.pid}`,
    killed: `server down, pid ${shop.pid} was killed`,
    restarting: 'server down, restarting …',
    stopped: 'stopped',
  }[shop.state]

  // One notch for each order; the catch keeps the wheel from ever slipping back.
  document.body.style.setProperty('--notches', orders.length)
  const { story, busy } = scenarios
  showStory(story, busy, snapshot)
  showJournal(story, snapshot)
  showBooks(story, busy, snapshot)
}
