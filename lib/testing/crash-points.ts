/** Numbers the crash points that a process reaches, and tells it at which one to die. */

/** A moment at which a process can die. */
export interface CrashPoint {
  /** Identifies the same moment in every run: `step 2 before`. */
  id: string
  /** The moment in words, to follow the word "crash": `before step "charge" is recorded`. */
  describe(): string
}

/** The crash points that one process reaches, and the one at which it dies. */
export class CrashPoints {
  readonly reached: CrashPoint[] = []
  /** The crash point at which the process died. */
  hit: CrashPoint | null = null
  readonly #target: string | undefined
  readonly #counts = new Map<string, number>()

  /** @param target the id of the point at which the process is to die; undefined: it does not die */
  constructor(target?: string) {
    this.#target = target
  }

  /**
   * Returns an id for the next operation of a kind: the kind and a number. It does not use the app's
   * names, since these may contain values that differ between two requests.
   */
  nextId(kind: string): string {
    const n = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, n)
    return `${kind} ${n}`
  }

  /**
   * Records that the process has reached a crash point.
   * @returns whether the process dies there
   */
  reach(id: string, describe: () => string): boolean {
    const point = { id, describe }
    this.reached.push(point)
    if (id !== this.#target || this.hit) return false
    this.hit = point
    return true
  }
}
