/** What happened to the last purchase: the verdict, the request, and each try. */
import { el, plural, showList } from './dom.js'

const $ = (id) => document.getElementById(id)

const explained = {
  order: {
    with: 'The order ran once, and its answer is kept for whoever asks again.',
    without: 'Nothing went wrong, this time. Now break it.',
  },
  'double-click': {
    with: 'The second click waited for the first, and got the same answer.',
    without: 'The shop took two clicks for two orders.',
  },
  retry: {
    with: 'The retry got the stored answer; the handler did not run again.',
    without: 'The shop took the retry for another order.',
  },
  'other-amount': {
    with: 'A key names one request: another one under it is refused, and nothing is overwritten.',
    without: 'The shop took it for another order.',
  },
  'kill-charging': {
    with: 'The restarted shop asked for the charge again, under the same key: it was charged once.',
    without: 'The first charge has no order, and the retry charged again.',
  },
  'kill-charged': {
    with: 'The restarted shop went on behind the recorded charge. The provider was asked once.',
    without: 'Nobody remembered the charge: the retry began from the start, and charged again.',
  },
  'walk-away': {
    with: 'Nobody asked again. The restarted shop found the unfinished order, and finished it.',
    without: 'The customer has paid and left. No order, and nobody who knows of it.',
  },
}

const surprise = 'With Pawl this must not happen. Please report how you got here.'

export function showStory(story, busy, { orders, ledger, shop }) {
  $('nothing').hidden = story !== null
  if (story === null) {
    showVerdict('idle', 'One order, one charge?', 'Order something, then press the other buttons.')
    return
  }
  const { cart, item, amount, key, pawl, scenario, events } = story
  showList($('request'), [{ id: key, pawl, body: { cart, item, amount } }], asked)

  const list = $('events')
  const before = list.childElementCount
  showList(list, events, (event) =>
    event.kind === 'try' ? tried(event) : happened(event, scenario),
  )
  if (list.childElementCount > before) list.lastElementChild.scrollIntoView({ block: 'nearest' })

  const made = orders.filter((order) => order.cart === cart).length
  const charged = ledger.filter(({ reference }) => reference === cart).length
  const counts = `${plural(made, 'order')}, ${plural(charged, 'charge')}`
  const good = made === 1 && charged === 1
  $('verdict').dataset.orders = made
  $('verdict').dataset.charges = charged
  if (!busy) {
    const text = explained[scenario][pawl ? 'with' : 'without']
    showVerdict(good ? 'good' : 'bad', counts, pawl && !good ? surprise : text)
  } else if (shop.state === 'up') {
    showVerdict('busy', counts, 'It is happening now …')
  } else {
    const customer =
      scenario === 'walk-away' ? 'The customer has left …' : 'The customer keeps trying …'
    showVerdict('down', counts, `The server is down, restarting. ${customer}`)
  }
}

function showVerdict(verdict, title, text) {
  const card = $('verdict')
  card.dataset.verdict = verdict
  show(card.querySelector('b'), title)
  show(card.querySelector('p'), text)
}

/** A screen reader would read it again if it were set again. */
function show(element, text) {
  if (element.textContent !== text) element.textContent = text
}

function asked({ id, pawl, body }) {
  return el(
    'div',
    {},
    el('b', {}, `POST ${pawl ? '' : '/naive'}/orders`),
    el('span', {}, `Idempotency-Key: ${id}${pawl ? '' : ' (ignored)'}`),
    el('span', {}, JSON.stringify(body)),
  )
}

function tried({ atMs, label, status, ms, replayed, attempt, problem, error, retryInMs }) {
  const waiting = status === null && error === null
  const outcome = waiting ? 'sent' : (error ?? `${status} ${names[status] ?? ''}`)
  return el(
    'li',
    {},
    el('time', {}, seconds(atMs)),
    el('b', { className: 'label' }, label),
    el('b', { className: `outcome ${waiting ? 'waiting' : tone(status)}` }, outcome),
    replayed &&
      el('span', { className: 'tag replayed', title: 'Idempotent-Replayed: true' }, 'replayed'),
    attempt && el('span', { className: attempt > 1 ? 'tag good' : 'tag' }, `attempt ${attempt}`),
    retryInMs && el('span', { className: 'later' }, `tries again in ${seconds(retryInMs)} s`),
    el('span', { className: 'ms' }, ms === undefined ? '' : `${ms} ms`),
    problem && el('p', {}, el('b', {}, `${problem.title}. `), problem.detail),
  )
}

const names = {
  200: 'OK',
  201: 'Created',
  400: 'Bad Request',
  409: 'Conflict',
  422: 'Unprocessable Content',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
}

function tone(status) {
  if (status === null || status >= 500) return 'bad'
  return status < 400 ? 'good' : 'refused'
}

const killedWhen = {
  'kill-charging': 'charged, and the answer not there yet',
  'kill-charged': 'after the charge, before the order',
  'walk-away': 'after the charge, before the order',
}

function happened(event, scenario) {
  const { kind, atMs, pid, attempt } = event
  const [label, text] = {
    killed: ['Shop killed', `kill -9 ${pid}: ${killedWhen[scenario] ?? 'from outside'}`],
    restarted: ['Shop is back', `restarted as pid ${pid}`],
    left: ['Walks away', 'the customer is gone, and will not retry'],
    finished: ['Shop finishes', `the order, in attempt ${attempt}; nobody had asked`],
  }[kind]
  return el(
    'li',
    { className: kind },
    el('time', {}, seconds(atMs)),
    el('b', { className: 'label' }, label),
    el('span', {}, text),
  )
}

const seconds = (ms) => (ms / 1000).toFixed(2)
