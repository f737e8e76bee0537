import {
  type CallHandler,
  createParamDecorator,
  type DynamicModule,
  type ExecutionContext,
  Module,
  type ModuleMetadata,
  type NestInterceptor,
  type Provider,
  SetMetadata,
} from '@nestjs/common'
import { APP_INTERCEPTOR, Reflector } from '@nestjs/core'
import type { Execution } from '../../engine/execution.ts'
import { type IdempotencyOptions, routeOptions } from '../../http/route-options.ts'
import { type PawlLike, runtimeOf } from '../../http/runtime.ts'
import { IdempotencyInterceptor, type NestRequest, OPTIONS } from './interceptor.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'
export type { NestRequest } from './interceptor.ts'

/** A `Pawl` that the module starts and stops with the app. */
interface StartablePawl extends PawlLike {
  start(): Promise<void>
  stop(): Promise<void>
}

/** Options of {@link IdempotencyModule}: those of all routes, and the Pawl to use. */
export interface NestIdempotencyOptions<Request = NestRequest> extends IdempotencyOptions<Request> {
  /** The app's instance. */
  pawl: StartablePawl
  /** Start Pawl with the app, and stop it after the server. Default `true`. */
  lifecycle?: boolean
}

/** The same, made by a factory. */
export interface NestIdempotencyAsyncOptions<Request = NestRequest>
  extends Pick<ModuleMetadata, 'imports'> {
  inject?: (string | symbol | (new (...args: never[]) => unknown))[]
  useFactory: (
    ...args: never[]
  ) => NestIdempotencyOptions<Request> | Promise<NestIdempotencyOptions<Request>>
}

const SETTINGS = Symbol('pawl.settings')
const LIFE = Symbol('pawl.life')

/**
 * NestJS, on Express and on Fastify: a request with an idempotency key runs once, and its retries get
 * the stored response.
 *
 * ```ts
 * @Module({ imports: [IdempotencyModule.forRoot({ pawl, scope: (req: Signed) => req.user.id })] })
 * class AppModule {}
 *
 * @Controller('orders')
 * class OrdersController {
 *   @Post()
 *   @Idempotent({ resumable: true })
 *   create(@Body() order: Order, @CurrentExecution() execution: Execution) { … }
 * }
 * ```
 *
 * A request is claimed behind guards, before pipes and the handler: what a guard refuses is not stored,
 * and what a pipe refuses is. The response is held below Nest, at Node's own response, so that filters,
 * interceptors, `@Res()` and streams all count.
 */
// biome-ignore lint/complexity/noStaticOnlyClass: a module of Nest is a class
export class IdempotencyModule {
  /** @throws PawlError `invalid-option` */
  static forRoot<Request = NestRequest>(settings: NestIdempotencyOptions<Request>): DynamicModule {
    check(settings)
    return moduleOf({ provide: SETTINGS, useValue: settings })
  }

  static forRootAsync<Request = NestRequest>({
    imports = [],
    inject = [],
    useFactory,
  }: NestIdempotencyAsyncOptions<Request>): DynamicModule {
    const factory = async (...args: never[]) => check(await useFactory(...args))
    return { ...moduleOf({ provide: SETTINGS, useFactory: factory, inject }), imports }
  }
}
Module({})(IdempotencyModule)

/**
 * Options of a route, or of all routes of a controller, on top of the module's; `false`: not protected.
 * @throws PawlError `invalid-option`
 */
export function Idempotent<Request = NestRequest>(
  options: IdempotencyOptions<Request> | false,
): MethodDecorator & ClassDecorator {
  if (options) routeOptions(options)
  return SetMetadata(OPTIONS, options)
}

/** A parameter of a handler: its execution; undefined if the request is not protected. */
export const CurrentExecution: () => ParameterDecorator = createParamDecorator(
  (_: unknown, context: ExecutionContext): Execution | undefined =>
    context.switchToHttp().getRequest<NestRequest>().execution,
)

type Settings = NestIdempotencyOptions<never>

function moduleOf(settings: Provider): DynamicModule {
  return {
    module: IdempotencyModule,
    providers: [
      settings,
      {
        provide: APP_INTERCEPTOR,
        useFactory: (
          { pawl, lifecycle: _, ...options }: Settings,
          reflector: Reflector,
        ): NestInterceptor => {
          const interceptor = new IdempotencyInterceptor(runtimeOf(pawl), options, reflector)
          return {
            intercept: (context: ExecutionContext, next: CallHandler) =>
              interceptor.intercept(context, next),
          }
        },
        inject: [SETTINGS, Reflector],
      },
      {
        provide: LIFE,
        useFactory: ({ pawl, lifecycle }: Settings) =>
          lifecycle === false
            ? {}
            : {
                onModuleInit: () => pawl.start(),
                onApplicationShutdown: () => pawl.stop(),
              },
        inject: [SETTINGS],
      },
    ],
  }
}

function check<Request>(settings: NestIdempotencyOptions<Request>): typeof settings {
  const { pawl, lifecycle: _, ...options } = settings
  runtimeOf(pawl)
  routeOptions(options)
  return settings
}
