import { render } from "preact"
import { Dashboard } from "./Dashboard.tsx"
import "./page.css"

render(<Dashboard />, document.getElementById("page")!)
