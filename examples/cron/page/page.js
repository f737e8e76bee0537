import { el, showList } from './dom.js'
import { follow } from './live.js'

const time = (text) => new Date(text).toLocaleString()

follow('/live', ({ schedules, reports }) => {
  const named = schedules.map((schedule) => ({ ...schedule, id: schedule.name }))
  showList(document.querySelector('#schedules'), named, showSchedule)
  showList(document.querySelector('#reports'), reports, showReport)
})

function showSchedule({ name, cron, timezone, missed, next }) {
  return el(
    'li',
    { className: 'card' },
    el(
      'header',
      {},
      el('b', { textContent: name }),
      el('code', { textContent: cron }),
      el('small', { textContent: `${timezone}, missed: ${missed}` }),
      el('small', { className: 'push', textContent: next ? `next ${time(next)}` : 'runs now' }),
    ),
  )
}

function showReport({ tick, visits, pid }) {
  return el(
    'li',
    { className: 'card' },
    el(
      'header',
      {},
      el('b', { textContent: time(tick) }),
      el('span', { textContent: `${visits} visits` }),
      el('small', { className: 'push', textContent: `process ${pid}` }),
    ),
  )
}
