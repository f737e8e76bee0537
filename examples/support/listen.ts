import { StartError, startCommand } from './start-error.ts'

/** Turns an error of `listen` into one that says what to do about the port. */
export function listenError(error: unknown, port: number): unknown {
  const other = port < 1024 ? 3000 : port + 1
  const another = `Choose another one: PORT=${other} ${startCommand()}`
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE':
      return new StartError(`Port ${port} is in use. ${another}`)
    case 'EACCES':
      return new StartError(`Port ${port} is one that this user may not listen on. ${another}`)
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new StartError('HOST is no address of this machine. Unset it to listen on localhost.')
  }
  return error
}

/** Reads the port to listen on from `PORT`. */
export function portFromEnv(fallback: number): number {
  const port = Number(process.env.PORT || fallback)
  if (Number.isInteger(port) && port >= 0 && port < 65_536) return port
  throw new StartError(
    `PORT is ${process.env.PORT}. It must be a number from 0 to 65535; 0 is any free port.`,
  )
}
