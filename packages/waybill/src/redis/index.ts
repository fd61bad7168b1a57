export * as IoRedis from "./IoRedis.ts"
