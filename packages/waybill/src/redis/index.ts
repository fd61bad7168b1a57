export * as IoRedis from "./IoRedis.ts"
export * as RedisStreams from "./RedisStreams.ts"
