/** The journal of the last purchase: its steps, and which attempt has recorded each. */
import { el, showList } from './dom.js'

/** What placeOrder does (app.ts), in its order. */
const STEPS = ['reserve stock', 'charge card', 'record order', 'send receipt']

const list = document.getElementById('journal')
const caption = document.getElementById('journal-title')

export function showJournal(story, { journal, shop }) {
  caption.hidden = !story?.pawl
  list.hidden = story === null
  if (story === null) return
  const known = journal?.key === story.key ? journal : null
  list.classList.toggle('absent', !story.pawl)
  const steps = story.pawl ? stepsOf(known, shop) : [{ id: 'absent' }]
  showList(list, steps, (step) => (step.id === 'absent' ? absent() : cell(step)))
}

function stepsOf(journal, shop) {
  const recorded = new Map((journal?.steps ?? []).map((step) => [step.name, step]))
  const next = STEPS.find((name) => !recorded.has(name))
  const isRunning = journal !== null && journal.status !== 'done'
  return STEPS.map((name) => {
    const step = recorded.get(name)
    if (step)
      return {
        id: name,
        state: 'done',
        attempt: step.attempt,
        replayed: step.attempt < journal.attempt,
      }
    if (name !== next || !isRunning) return { id: name, state: 'ahead' }
    if (shop.state !== 'up' || journal.status !== 'running')
      return { id: name, state: 'interrupted' }
    return { id: name, state: 'running', attempt: journal.attempt }
  })
}

function cell({ id, state, attempt, replayed }) {
  return el(
    'li',
    { className: replayed ? 'replayed' : state },
    el('b', {}, id),
    replayed
      ? el('span', { className: 'tag replayed' }, `attempt ${attempt}, replayed`)
      : el('span', {}, said(state, attempt)),
  )
}

function said(state, attempt) {
  if (state === 'ahead') return 'not yet'
  if (state === 'interrupted') return 'interrupted'
  return state === 'running' ? `attempt ${attempt} …` : `attempt ${attempt}`
}

function absent() {
  return el('li', {}, el('b', {}, 'No journal'), 'Every try begins from the start.')
}
