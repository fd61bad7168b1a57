export * as IoRedis from "./IoRedis.ts"
export * as RedisLists from "./RedisLists.ts"
export * as RedisStreams from "./RedisStreams.ts"
