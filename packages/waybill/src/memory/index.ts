export * as MemoryStreams from "./MemoryStreams.ts"
