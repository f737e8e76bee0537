/** The NestJS module: `IdempotencyModule`, `@Idempotent()` and `@CurrentExecution()`. */

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
import { IdempotencyInterceptor, type NestRequest, OPTIONS_METADATA } from './interceptor.ts'

export type { IdempotencyOptions } from '../../http/route-options.ts'
export type { NestRequest } from './interceptor.ts'

/** A `Pawl` that the module can start and stop with the app. */
interface StartablePawl extends PawlLike {
  start(): Promise<void>
  stop(): Promise<void>
}

/** Options of {@link IdempotencyModule}: the Pawl instance, and the options for all routes. */
export interface NestIdempotencyOptions<Request = NestRequest> extends IdempotencyOptions<Request> {
  /** The app's Pawl instance. */
  pawl: StartablePawl
  /** Start Pawl with the app, and stop it after the server. Default `true`. */
  lifecycle?: boolean
}

/** Options of {@link IdempotencyModule} that a factory returns. */
export interface NestIdempotencyAsyncOptions<Request = NestRequest>
  extends Pick<ModuleMetadata, 'imports'> {
  inject?: (string | symbol | (new (...args: never[]) => unknown))[]
  useFactory: (
    ...args: never[]
  ) => NestIdempotencyOptions<Request> | Promise<NestIdempotencyOptions<Request>>
}

const MODULE_OPTIONS = Symbol('pawl.options')
const LIFECYCLE_HOOKS = Symbol('pawl.lifecycle')

/**
 * NestJS module, for Express and Fastify: a request with an idempotency key runs once, and its retries get
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
 * A request is claimed after guards and before pipes and the handler: the response of a guard that refuses
 * is not stored, that of a pipe is. Pawl captures Node's response, below Nest, so that the stored response
 * includes the effects of filters, interceptors, `@Res()` and streams.
 */
// biome-ignore lint/complexity/noStaticOnlyClass: a module of Nest is a class
export class IdempotencyModule {
  /** @throws PawlError `invalid-option` */
  static forRoot<Request = NestRequest>(settings: NestIdempotencyOptions<Request>): DynamicModule {
    validate(settings)
    return moduleOf({ provide: MODULE_OPTIONS, useValue: settings })
  }

  static forRootAsync<Request = NestRequest>({
    imports = [],
    inject = [],
    useFactory,
  }: NestIdempotencyAsyncOptions<Request>): DynamicModule {
    const factory = async (...args: never[]) => validate(await useFactory(...args))
    return { ...moduleOf({ provide: MODULE_OPTIONS, useFactory: factory, inject }), imports }
  }
}
Module({})(IdempotencyModule)

/**
 * Decorator with the options of a route, or of all routes of a controller. They override the module's
 * options; `false`: not protected.
 * @throws PawlError `invalid-option`
 */
export function Idempotent<Request = NestRequest>(
  options: IdempotencyOptions<Request> | false,
): MethodDecorator & ClassDecorator {
  if (options) routeOptions(options)
  return SetMetadata(OPTIONS_METADATA, options)
}

/** Parameter decorator: the execution of the request; undefined if the request is not protected. */
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
        inject: [MODULE_OPTIONS, Reflector],
      },
      {
        provide: LIFECYCLE_HOOKS,
        useFactory: ({ pawl, lifecycle }: Settings) =>
          lifecycle === false
            ? {}
            : {
                onModuleInit: () => pawl.start(),
                onApplicationShutdown: () => pawl.stop(),
              },
        inject: [MODULE_OPTIONS],
      },
    ],
  }
}

function validate<Request>(settings: NestIdempotencyOptions<Request>): typeof settings {
  const { pawl, lifecycle: _, ...options } = settings
  runtimeOf(pawl)
  routeOptions(options)
  return settings
}
