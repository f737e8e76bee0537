/** Watches the example over server-sent events, and says which button has been pressed. */
import { showBooks } from './books.js'
import { price } from './dom.js'
import { showStory } from './story.js'

const $ = (id) => document.getElementById(id)
const buttons = document.querySelectorAll('[data-scenario]')
const pawlSwitch = $('pawl')

let pawl = true
let ready = false

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
    if (!ready) return
    ready = false
    const { value, dataset } = chosen()
    fetch('scenarios', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        scenario: button.dataset.scenario,
        pawl,
        item: value,
        amount: Number(dataset.amount),
      }),
    })
  })
}

const live = new EventSource('live')
live.addEventListener('message', ({ data }) => show(JSON.parse(data)))
live.addEventListener('bye', () => live.close())
for (const event of ['bye', 'error']) {
  live.addEventListener(event, () => {
    $('gone').hidden = false
  })
}
live.addEventListener('open', () => {
  $('gone').hidden = true
})

function chosen() {
  return document.querySelector('[name=item]:checked')
}

function show(snapshot) {
  const { shop, busy, played, orders } = snapshot
  ready = !busy && shop.pid !== null && shop.state !== 'starting'
  // Not `disabled`, which would take the keyboard's focus away.
  for (const button of buttons) button.ariaDisabled = String(!ready)
  document.body.dataset.played = played

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
  showStory(snapshot)
  showBooks(snapshot)
}
