/**
 * `waybill dashboard`: the web page, on this machine only unless asked otherwise, and only for looking unless asked
 * otherwise.
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
      Flag.withDescription("Where to listen, 127.0.0.1 by default. Elsewhere the page needs its token to look, too"),
      Flag.withDefault("127.0.0.1")
    ),
    port: Flag.Int("port").pipe(
      Flag.withDescription("4747 by default; 0 for any"),
      Flag.withDefault(4747),
      Flag.filter(
        (port) => port >= 0 && port <= 65_535,
        () => "from 0 to 65535"
      )
    ),
    publicUrl: Flag.String("public-url").pipe(
      Flag.withDescription(
        "Where a proxy shows the page to others, such as https://waybill.example.com. It needs its token to look"
      ),
      Flag.withSchema(PublicUrl),
      Flag.optional
    ),
    allowWrites: Flag.Boolean("allow-writes").pipe(
      Flag.withDescription("Let the page redrive, discard, pause and resume, with the token that is printed"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* (options) {
    // The other commands start sooner without a web server.
    const { serve } = yield* Effect.promise(() => import("../dashboard/Site.ts"))
    return yield* serve({ ...options, publicUrl: Option.getOrUndefined(options.publicUrl) })
  })
).pipe(
  Command.withDescription("A web page with topics, groups, dead letters and consumers"),
  Command.withExamples([
    { command: "waybill dashboard", description: "Look at everything on http://127.0.0.1:4747" },
    { command: "waybill dashboard --allow-writes --port 0", description: "With buttons to redrive and to pause" },
    {
      command: "waybill dashboard --public-url https://waybill.example.com",
      description: "Behind a proxy that speaks HTTPS"
    }
  ])
)
