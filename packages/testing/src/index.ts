export * as FaultProxy from "./FaultProxy.ts"
export * as RedisServer from "./RedisServer.ts"
