// Fastify 4 and its plugins, under the types of Fastify 5: the parts that the tests use are the same.
declare module 'fastify4' {
  import fastify from 'fastify'
  export default fastify
}

declare module 'fastify4-compress' {
  import compress from '@fastify/compress'
  export default compress
}

declare module 'fastify4-cors' {
  import cors from '@fastify/cors'
  export default cors
}

declare module 'fastify4-multipart' {
  import multipart from '@fastify/multipart'
  export default multipart
}
