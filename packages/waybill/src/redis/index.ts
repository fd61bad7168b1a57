export * as IoRedis from "./IoRedis.ts"
export * as RedisInspector from "./RedisInspector.ts"
export * as RedisLists from "./RedisLists.ts"
export * as RedisStreams from "./RedisStreams.ts"
