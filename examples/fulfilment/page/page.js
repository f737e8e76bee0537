import { el, price, showList } from './dom.js'
import { journal, tag, withJournals } from './journal.js'
import { follow, post } from './live.js'

const form = document.querySelector('#order')

form.addEventListener('submit', (event) => {
  event.preventDefault()
  post('/orders', { ...Object.fromEntries(new FormData(form)), amount: 3400 })
})

follow('/live', ({ pid, orders, journals }) => {
  document.querySelector('#pid').textContent = pid
  showList(document.querySelector('#orders'), withJournals(orders, journals), show)
})

function show({ id, item, amount, address, state, refunded, journal: execution }) {
  const ended = ['done', 'failed', 'cancelled'].includes(execution?.status)
  const cancel = el('button', { textContent: 'Cancel', className: 'push' })
  cancel.onclick = () => post(`/orders/${id}/cancel`)
  return el(
    'li',
    { className: 'card' },
    el(
      'header',
      {},
      el('b', { textContent: `${item} to ${address}` }),
      el('span', { textContent: price(amount) }),
      el('span', { className: 'tag', textContent: refunded ? `${state}, refunded` : state }),
      execution && tag(execution.status),
      !ended && cancel,
    ),
    execution && journal(execution),
  )
}
