import { el, price, showList } from './dom.js'
import { journal, tag, withJournals } from './journal.js'
import { follow, post } from './live.js'

const form = document.querySelector('#ask')

form.addEventListener('submit', (event) => {
  event.preventDefault()
  const { employee, what, amount } = Object.fromEntries(new FormData(form))
  post('/expenses', { employee, what, amount: Number(amount) * 100 })
})

follow('/live', ({ pid, expenses, mails, journals }) => {
  document.querySelector('#pid').textContent = pid
  showList(document.querySelector('#expenses'), withJournals(expenses, journals), show)
  showList(document.querySelector('#mails'), mails, ({ text }) =>
    el('li', { className: 'card', textContent: text }),
  )
})

function show({ id, employee, what, amount, verdict, journal: execution }) {
  const button = (text) => {
    const button = el('button', { textContent: text })
    button.onclick = () => post(`/expenses/${id}/${text}`)
    return button
  }
  return el(
    'li',
    { className: 'card' },
    el(
      'header',
      {},
      el('b', { textContent: `${what} for ${employee}` }),
      el('span', { textContent: price(amount) }),
      tag(verdict ?? 'undecided'),
      el('span', { className: 'push' }),
      !verdict && button('approve'),
      !verdict && button('reject'),
    ),
    execution && journal(execution),
  )
}
