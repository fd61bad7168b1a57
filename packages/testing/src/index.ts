export * as FaultProxy from "./FaultProxy.ts"
export * as History from "./History.ts"
export * as RedisServer from "./RedisServer.ts"
export * as TransportSuite from "./TransportSuite.ts"
