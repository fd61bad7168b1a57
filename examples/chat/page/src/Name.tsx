/**
 * Who are you? There are no passwords: a name is whoever takes it, in this tab.
 *
 * @module
 */
import { Schema } from "effect"
import { useState } from "preact/hooks"
import { limits, User } from "../../src/Protocol.ts"

const isUser = Schema.is(User)

export const Name = ({ choose }: { readonly choose: (name: string) => void }) => {
  const [name, setName] = useState("")
  const [refused, setRefused] = useState<string>()
  return (
    <main class="welcome">
      <form
        onSubmit={(event) => {
          event.preventDefault()
          const wanted = name.trim().toLowerCase()
          if (isUser(wanted)) choose(wanted)
          else setRefused(wanted)
        }}
      >
        <h1>
          <img src="./icon.svg" alt="" width="36" height="36" /> Chat
        </h1>
        <label>
          Your name
          <input
            autofocus
            autocomplete="nickname"
            autocapitalize="none"
            placeholder="ada"
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        {refused !== undefined && (
          <p class="trouble" role="alert">
            “{refused}” cannot be a name: 1 to {limits.name} of a-z, 0-9, _ and -, the first a letter or digit.
          </p>
        )}
        <button class="main">Join</button>
      </form>
    </main>
  )
}
