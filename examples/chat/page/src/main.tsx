import { render } from "preact"
import { useState } from "preact/hooks"
import { Chat } from "./Chat.tsx"
import { Name } from "./Name.tsx"
import "./page.css"

const key = "chat-user"

const Page = () => {
  const [user, setUser] = useState(sessionStorage.getItem(key))
  const become = (name: string | null) => {
    if (name === null) sessionStorage.removeItem(key)
    else sessionStorage.setItem(key, name)
    setUser(name)
  }
  return user === null ? <Name choose={become} /> : <Chat key={user} user={user} forget={() => become(null)} />
}

render(<Page />, document.getElementById("page")!)
