import { el } from './dom.js'

const TONES = { done: 'good', failed: 'bad', cancelled: 'bad', parked: 'bad', interrupted: 'bad' }

/** What has begun and is not over. */
const WAITS = { sleep: 'asleep', signal: 'awaited', result: 'awaited' }

/** Each row, with the execution whose key is the row's id as its `journal`. */
export function withJournals(rows, journals) {
  const byKey = new Map(journals.map((journal) => [journal.key, journal]))
  return rows.map((row) => ({ ...row, journal: byKey.get(row.id) }))
}

/** A status, as a tag. */
export const tag = (status) =>
  el('span', { className: `tag ${TONES[status] ?? ''}`, textContent: status })

/** The recorded steps of an execution, and when it goes on. */
export function journal({ steps, due_at, status, error }) {
  const rows = steps.map((step) =>
    el(
      'li',
      {},
      el('span', { className: 'kind', textContent: step.kind }),
      el('span', { textContent: step.name }),
      step.status !== 'done' &&
        el('span', { className: 'tag', textContent: WAITS[step.kind] ?? step.status }),
      step.attempt > 1 && el('small', { textContent: `attempt ${step.attempt}` }),
      el('span', {
        className: 'output',
        textContent: outputOf(step),
      }),
    ),
  )
  const due = due_at && new Date(due_at).toLocaleString()
  if (status === 'released') rows.push(note(`is tried again at ${due}`))
  if (status === 'waiting') rows.push(note(due ? `sleeps until ${due}` : 'waits for a signal'))
  if (error?.message) rows.push(note(error.message))
  return el('ol', { className: 'steps' }, ...rows)
}

const note = (text) => el('li', {}, el('small', { textContent: text }))

const outputOf = ({ status, output }) =>
  status === 'begun' || output == null ? '' : JSON.stringify(output)
