/** A moment at which a process can die. */
export interface CrashPoint {
  /** The same moment in every run: `step 2 before`. */
  id: string
  /** The moment in words that follow on "crash". */
  describe(): string
}

/** The crash points that one process reaches, and the one at which it dies. */
export class CrashPoints {
  readonly reached: CrashPoint[] = []
  /** Where the process died. */
  hit: CrashPoint | null = null
  readonly #target: string | undefined
  readonly #counts = new Map<string, number>()

  /** @param target the id of the point at which the process is to die; undefined: at none */
  constructor(target?: string) {
    this.#target = target
  }

  /**
   * Names the next operation of a kind by its number: the names that an app gives may hold what differs
   * between two requests.
   */
  next(kind: string): string {
    const n = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, n)
    return `${kind} ${n}`
  }

  /** @returns whether the process dies here */
  reach(id: string, describe: () => string): boolean {
    const point = { id, describe }
    this.reached.push(point)
    if (id !== this.#target || this.hit) return false
    this.hit = point
    return true
  }
}
