import 'reflect-metadata'

type Class = abstract new (...args: never[]) => unknown

/** Applies decorators as TypeScript's experimental ones are applied, without the compiler's option. */
export function decorate(
  target: Class,
  decorators: ClassDecorator[],
  methods: Record<string, { on: MethodDecorator[]; parameters?: ParameterDecorator[] }> = {},
): void {
  for (const [name, { on, parameters = [] }] of Object.entries(methods)) {
    parameters.forEach((parameter, at) => void parameter(target.prototype, name, at))
    const descriptor = Object.getOwnPropertyDescriptor(target.prototype, name)
    for (const decorator of on.toReversed()) decorator(target.prototype, name, descriptor as never)
  }
  for (const decorator of decorators.toReversed()) decorator(target as never)
}
