/**
 * Lets a test move the wall clock of a server: a library, preloaded before the C library of one process, that adds to its
 * time. The monotonic clock of the process is unaffected.
 *
 * `faketime` does the same for more programs, but crashes those that use jemalloc, as Redis does on Debian.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Duration, Effect, type Scope } from "effect"

/**
 * For `RedisServer.Options`.
 *
 * @category models
 */
export interface ServerClock {
  /** The environment variables that the process needs. */
  readonly env: Readonly<Record<string, string>>
  /** From now on the clock is ahead by this much, or behind: `Duration.negate`. */
  readonly shift: (by: Duration.Duration) => Effect.Effect<void>
}

// Asks the kernel itself: looking up the C library's own functions allocates, and the allocator asks for the time.
const source = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long long *millis;
__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("WAYBILL_CLOCK");
  int file = path ? open(path, O_RDONLY) : -1;
  if (file < 0) return;
  void *at = mmap(0, sizeof *millis, PROT_READ, MAP_SHARED, file, 0);
  if (at != MAP_FAILED) millis = at;
  close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (failed || clock != CLOCK_REALTIME || !millis) return failed;
  long long nanos = now->tv_nsec + *millis % 1000 * 1000000;
  now->tv_sec += *millis / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
  now->tv_nsec = (nanos + 1000000000) % 1000000000;
  return 0;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec at;
  if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
  now->tv_sec = at.tv_sec;
  now->tv_usec = at.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *now) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  if (now) *now = at.tv_sec;
  return at.tv_sec;
}
`

/**
 * Why this machine cannot make such clocks, if it cannot: they are compiled by `cc`, on Linux.
 *
 * @category constructors
 */
export const unavailable: string | undefined =
  process.platform !== "linux"
    ? "needs Linux"
    : spawnSync("cc", ["--version"], { stdio: "ignore" }).status === 0
      ? undefined
      : "needs cc: install a C compiler, for example with `apt-get install gcc libc6-dev`"

/**
 * A clock that is right until it is shifted. Dies where `unavailable` is set.
 *
 * @category constructors
 */
export const make: Effect.Effect<ServerClock, never, Scope.Scope> = Effect.gen(function* () {
  const dir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "waybill-clock-"))),
    (dir) => Effect.sync(() => rmSync(dir, { recursive: true, force: true }))
  )
  const [file, library] = [join(dir, "millis"), join(dir, "clock.so")]
  const write = (millis: number) => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(Math.round(millis)))
    // In place, because the process reads this file, not another one of the same name.
    writeFileSync(file, bytes, { flag: "r+" })
  }
  yield* Effect.sync(() => {
    writeFileSync(file, Buffer.alloc(8))
    const args = ["-shared", "-fPIC", "-O1", "-x", "c", "-o", library, "-"]
    const { status, stderr } = spawnSync("cc", args, { input: source })
    if (status !== 0) throw new Error(`cc could not make a clock: ${unavailable ?? String(stderr)}`)
  })
  return {
    env: { LD_PRELOAD: library, WAYBILL_CLOCK: file },
    shift: (by) => Effect.sync(() => write(Duration.toMillis(by)))
  }
})
