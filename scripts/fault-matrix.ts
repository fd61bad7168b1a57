/** `pnpm fault-matrix`: writes docs/fault-matrix.md anew. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { page } from "../test/faults/Matrix.ts"

writeFileSync(join(import.meta.dirname, "../docs/fault-matrix.md"), page())
