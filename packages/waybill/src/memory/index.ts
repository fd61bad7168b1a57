export * as MemoryExactlyOnce from "./MemoryExactlyOnce.ts"
export * as MemoryKeyspace from "./MemoryKeyspace.ts"
export * as MemoryLists from "./MemoryLists.ts"
export * as MemoryStreams from "./MemoryStreams.ts"
