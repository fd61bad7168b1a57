export * as RedisServer from "./RedisServer.ts"
