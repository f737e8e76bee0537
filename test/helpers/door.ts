/** A barrier that a handler waits at: `reached` resolves when it gets there, `open()` lets it pass. */
export function door() {
  let open: () => void = () => {}
  let arrive: () => void = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  const reached = new Promise<void>((resolve) => {
    arrive = resolve
  })
  const pass = () => {
    arrive()
    return opened
  }
  return { open: () => open(), reached, pass }
}
