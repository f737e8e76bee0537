import { el } from './dom.js'
import { follow, post } from './live.js'

const chat = document.querySelector('#chat')
const input = document.querySelector('#say input')

// The conversation is named in the address: a reload is the same one. replaceState fires no hashchange, which
// would reload the page, and with it what has been typed by then.
if (!location.hash) history.replaceState(null, '', `#${crypto.randomUUID()}`)
const conversation = `/conversations/${encodeURIComponent(location.hash.slice(1))}`
window.addEventListener('hashchange', () => location.reload())

document.querySelector('#say').addEventListener('submit', (event) => {
  event.preventDefault()
  say(input.value)
  input.value = ''
})
for (const button of document.querySelectorAll('#ideas button')) {
  button.onclick = () => say(button.textContent)
}

/** Messages that are on their way, by the key that they are sent under. */
const sending = new Map()

function say(text) {
  const key = crypto.randomUUID()
  sending.set(key, add('user sending', text))
  post(`${conversation}/messages`, { text }, key)
}

/** What the model is saying. */
let open = null

const show = {
  said({ text }, turn) {
    sending.get(turn)?.remove()
    sending.delete(turn)
    add('user', text)
  },
  text({ text }) {
    open ??= add('model open', '')
    open.append(text)
  },
  reply() {
    open?.classList.remove('open')
    open = null
  },
  called({ name, input }) {
    add('tool', `${name} ${JSON.stringify(input)}`)
  },
  'approval asked'({ call }, turn) {
    const ask = add('ask', 'May it do that? ')
    ask.dataset.call = call
    for (const verdict of ['approve', 'decline']) {
      const button = el('button', { textContent: verdict, type: 'button' })
      button.onclick = () => {
        const path = [turn, 'calls', call, verdict].map(encodeURIComponent).join('/')
        post(`${conversation}/turns/${path}`)
      }
      ask.append(button)
    }
  },
  'approval given'({ call, approved, inTime }) {
    const ask = chat.querySelector(`[data-call="${CSS.escape(call)}"]`)
    const verdict = approved ? 'approved' : 'declined'
    ask?.replaceChildren(inTime ? `A colleague has ${verdict} it.` : 'Nobody answered in time.')
  },
  result({ result }) {
    add('tool', result)
  },
  failed({ message }) {
    add('failed', message)
  },
  ended() {},
}

function add(className, text) {
  const row = el('li', { className, textContent: text })
  // What is on its way stays last.
  const first = chat.querySelector('.sending')
  if (first && !className.includes('sending')) first.before(row)
  else chat.append(row)
  return row
}

// After a connection that broke the browser says what it has seen, and gets what came since.
const events = follow(`${conversation}/events`, ({ kind, turn, data }) => {
  const atEnd = innerHeight + scrollY > document.body.scrollHeight - 120
  show[kind]?.(data, turn)
  if (atEnd) scrollTo(0, document.body.scrollHeight)
})
events.addEventListener('server', ({ data }) => {
  document.querySelector('#pid').textContent = data
})
