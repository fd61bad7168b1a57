/**
 * `waybill dashboard`: the web page. By default it is served to this machine only, and is read-only.
 *
 * @module
 */
import { Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"

const PublicUrl = Schema.URLFromString.check(
  Schema.makeFilter(({ hash, password, protocol, search, username }) =>
    /^https?:$/.test(protocol) && username + password + search + hash === ""
      ? undefined
      : "use http:// or https:// and a host, without user, query and fragment"
  )
)

export const dashboard = Command.make(
  "dashboard",
  {
    host: Flag.String("host").pipe(
      Flag.withDescription("Address to listen on, 127.0.0.1 by default. On any other, reading needs the token, too"),
      Flag.withDefault("127.0.0.1")
    ),
    port: Flag.Int("port").pipe(
      Flag.withDescription("Port to listen on, 4747 by default; 0 picks a free one"),
      Flag.withDefault(4747),
      Flag.filter(
        (port) => port >= 0 && port <= 65_535,
        () => "use a port from 0 to 65535"
      )
    ),
    publicUrl: Flag.String("public-url").pipe(
      Flag.withDescription(
        "URL under which a proxy serves the page, such as https://waybill.example.com. Reading then needs the token"
      ),
      Flag.withSchema(PublicUrl),
      Flag.optional
    ),
    allowWrites: Flag.Boolean("allow-writes").pipe(
      Flag.withDescription("Allow redrive, discard, pause and resume from the page, with the printed token"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* (options) {
    // The other commands start faster without a web server.
    const { serve } = yield* Effect.promise(() => import("../dashboard/Site.ts"))
    return yield* serve({ ...options, publicUrl: Option.getOrUndefined(options.publicUrl) })
  })
).pipe(
  Command.withDescription("Serve a web page with topics, groups, dead letters and consumers"),
  Command.withExamples([
    { command: "waybill dashboard", description: "Serve a read-only page on http://127.0.0.1:4747" },
    { command: "waybill dashboard --allow-writes --port 0", description: "With buttons to redrive and pause" },
    {
      command: "waybill dashboard --public-url https://waybill.example.com",
      description: "Behind an HTTPS proxy"
    }
  ])
)
