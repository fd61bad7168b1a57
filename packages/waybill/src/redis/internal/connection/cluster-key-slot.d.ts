declare module "cluster-key-slot" {
  /** The slot of a key: of what stands between its first braces, if there is something. */
  const slotOf: (key: string | Uint8Array) => number
  export default slotOf
}
