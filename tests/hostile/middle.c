/* SPDX-License-Identifier: MIT
 *
 * middle.c - somebody in the network between a client and fabricd (proxy.h): what it can read, and
 * what comes of it when it changes, repeats, cuts short or leaves out what goes by. Each is tried on
 * an encrypted link, and where it makes sense on a plain one, which shows that the trial is one.
 *
 * The test's process is the producer, through the middle; a thread of it is the worker, over the
 * UNIX socket, and answers with the argument. fabricd is a private one.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include "core/fabric.h"
#include "tests/common/fabricd.h"
#include "tests/hostile/proxy.h"
#include "transport/control.h"

#define SECOND 1000000000ll
#define WORDS  "what only the two of us may know"

static struct fixture fx;
static pthread_t echo_thread;
static atomic_bool over;
static bool insist; /* the client asks for encryption */

static void *echo(void *arg)
{
    struct fab_options o = {.roles = FAB_WORKER, .name = "echo"};
    fab_t *f;
    (void)arg;
    if (fab_open(&f, fx.local, &o) < 0)
        return (void *)1;
    while (!over) {
        struct fab_lease l;
        long n = fab_claim(f, 0, &l, 1, SECOND / 20);
        if (n == 1 && fab_complete(f, &l, fab_arg(&l), l.len) < 0)
            break;
    }
    fab_close(f);
    return NULL;
}

static void begin(const char *security)
{
    char tables[128];
    snprintf(tables, sizeof tables, "[fabric]\nprovider = \"tcp\"\n[auth]\nsecurity = \"%s\"\n", security);
    fabricd_up(&fx, tables);
    proxy_start(atoi(strrchr(fx.remote, ':') + 1));
    cr_assert_eq(pthread_create(&echo_thread, NULL, echo, NULL), 0);
}

static void end(void)
{
    void *rc;
    over = true;
    pthread_join(echo_thread, &rc);
    cr_assert_null(rc);
    fabricd_down(&fx);
    proxy_stop();
}

static int try_open(fab_t **f, uint32_t roles, const char *at)
{
    struct fab_options o = {.roles = roles, .key_file = fx.key, .name = "middle", .timeout_ns = 5 * SECOND, .encrypted = insist};
    return fab_open(f, at, &o);
}

static fab_t *open_at(uint32_t roles, const char *at)
{
    fab_t *f;
    cr_assert_eq(try_open(&f, roles, at), 0, "%s", fab_errmsg());
    return f;
}

/* One task. Is its answer what was sent? */
static bool answered_right(fab_t *f, const void *arg, uint32_t len)
{
    struct fab_task t = {.kernel = 1, .arg = arg, .len = len};
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(fab_submit(f, &t, 1, &id, 10 * SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_wait(f, id, &o, 20 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.status, FAB_COMPLETED);
    return o.len == len && memcmp(fab_data(&o), arg, len) == 0;
}

static bool seen(enum proxy_kind kind, const char *words)
{
    return proxy_saw(kind, PROXY_TO_FABRICD, words, strlen(words)) ||
           proxy_saw(kind, PROXY_TO_CLIENT, words, strlen(words));
}

/* ---- reading ---- */

/* Small and large tasks, their answers, and the status over the control connection. */
static void talk(const char *at)
{
    static char big[200000];
    char *json;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = WORDS[i % (sizeof WORDS - 1)];
    fab_t *f = open_at(FAB_PRODUCER, at);
    cr_assert(answered_right(f, WORDS, sizeof WORDS));
    cr_assert(answered_right(f, big, sizeof big));
    cr_assert(answered_right(f, WORDS, sizeof WORDS), "after a large one");
    fab_close(f);
    f = open_at(FAB_TOOL, at);
    cr_assert_eq(fab_status_json(f, &json, 5 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_not_null(strstr(json, "\"participants\""));
    free(json);
    fab_close(f);
}

static void check_unseen(void)
{
    cr_assert(!seen(PROXY_DATA, "only the two"));
    cr_assert(!seen(PROXY_CONTROL, "participants"));
    cr_assert(!seen(PROXY_CONTROL, "default"), "the queue's name in WELCOME");
    cr_assert_gt(proxy_seen(PROXY_DATA, PROXY_TO_FABRICD), 200000, "it did go by here");
    cr_assert_gt(proxy_seen(PROXY_DATA, PROXY_TO_CLIENT), 200000);
    cr_assert_gt(proxy_seen(PROXY_CONTROL, PROXY_TO_CLIENT), 1000);
}

Test(reading, a_plain_link_is_read)
{
    begin("authenticated");
    talk(fx.remote);
    cr_assert(proxy_saw(PROXY_DATA, PROXY_TO_FABRICD, WORDS, sizeof WORDS));
    cr_assert(proxy_saw(PROXY_DATA, PROXY_TO_CLIENT, WORDS, sizeof WORDS));
    cr_assert(seen(PROXY_CONTROL, "participants"));
    cr_assert(seen(PROXY_CONTROL, "default"));
    end();
}

Test(reading, an_encrypted_link_is_not)
{
    begin("encrypted");
    talk(fx.remote);
    check_unseen();
    end();
}

Test(reading, a_client_that_asks_for_it_is_encrypted_by_a_plain_fabricd)
{
    begin("authenticated");
    insist = true;
    talk(fx.remote);
    check_unseen();
    end();
}

/* ---- changing lane messages ---- */

/* A message that is left out is found out by the one after it, so there is one more task while no
 * answer comes. All answers must be right. */
static void ask_until_answered(fab_t *f, const void *arg, uint32_t len)
{
    struct fab_task t = {.kernel = 1, .arg = arg, .len = len};
    struct fab_outcome o;
    fab_id id;
    long n = 0;
    for (int i = 0; i < 40 && n != 1; i++) {
        cr_assert_eq(fab_submit(f, &t, 1, &id, 10 * SECOND), 1, "%s", fab_errmsg());
        n = fab_wait_any(f, &o, 1, SECOND / 2);
        cr_assert(n == 1 || n == -ETIMEDOUT, "%s", fab_errmsg());
    }
    while (n == 1) {
        cr_assert_eq(o.status, FAB_COMPLETED, "status %d: %.*s", o.status, (int)o.len, (const char *)fab_data(&o));
        cr_assert(o.len == len && memcmp(fab_data(&o), arg, len) == 0);
        n = fab_wait_any(f, &o, 1, 20 * SECOND);
    }
    cr_assert_eq(n, -ENOENT, "%s", fab_errmsg());
}

/* A message is tampered with while a task is on its way. The task is answered rightly, over a new
 * connection: the old one was given up. */
static void spoil(fab_t *f, const struct proxy_plan *plan)
{
    char arg[96];
    unsigned before = proxy_connections(PROXY_DATA);
    for (size_t i = 0; i < sizeof arg; i++)
        arg[i] = (char)(before * 31 + i);
    cr_assert(answered_right(f, WORDS, sizeof WORDS));
    cr_assert_eq(proxy_connections(PROXY_DATA), before, "nobody has touched it yet");
    proxy_tamper(plan);
    ask_until_answered(f, arg, sizeof arg);
    cr_assert(answered_right(f, arg, sizeof arg));
    cr_assert(proxy_tampered());
    cr_assert_gt(proxy_connections(PROXY_DATA), before, "what %d, direction %d: nobody noticed",
                 plan->what, plan->dir);
}

static void spoil_direction(enum proxy_dir dir)
{
    const struct proxy_plan plans[] = {
        {.what = PROXY_FLIP, .at = 40},   /* somewhere in the message */
        {.what = PROXY_FLIP, .at = 1},    /* in its tag */
        {.what = PROXY_REPEAT},           /* once more */
        {.what = PROXY_SHORTEN},          /* cut short */
        {.what = PROXY_DROP},             /* left out */
        {.what = PROXY_OLD},              /* the one left out, which is good, on the next link */
    };
    begin("encrypted");
    fab_t *f = open_at(FAB_PRODUCER, fx.remote);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct proxy_plan p = plans[i];
        p.kind = PROXY_DATA;
        p.dir = dir;
        spoil(f, &p);
    }
    fab_close(f);
    end();
}

Test(changing, what_goes_to_fabricd_is_found_out, .timeout = 60)
{
    spoil_direction(PROXY_TO_FABRICD);
}

Test(changing, what_comes_from_fabricd_is_found_out, .timeout = 60)
{
    spoil_direction(PROXY_TO_CLIENT);
}

Test(changing, a_plain_link_believes_what_it_is_told)
{
    const struct proxy_plan flip = {
        .kind = PROXY_DATA, .dir = PROXY_TO_FABRICD, .what = PROXY_FLIP, .at = 20};
    char arg[96] = "";
    begin("authenticated");
    fab_t *f = open_at(FAB_PRODUCER, fx.remote);
    cr_assert(answered_right(f, WORDS, sizeof WORDS));
    proxy_tamper(&flip);
    cr_assert(!answered_right(f, arg, sizeof arg), "the wrong answer to the changed question");
    cr_assert_eq(proxy_connections(PROXY_DATA), 1);
    fab_close(f);
    end();
}

/* ---- changing control frames ---- */

/* What comes of a status request that is spoilt: 0 or an error. */
static int status_spoilt(const char *at, const struct proxy_plan *plan)
{
    char *json = NULL;
    fab_t *f = open_at(FAB_TOOL, at);
    cr_assert_eq(fab_status_json(f, &json, 5 * SECOND), 0);
    free(json);
    json = NULL;
    proxy_tamper(plan);
    int rc = fab_status_json(f, &json, 5 * SECOND);
    cr_assert(proxy_tampered());
    free(json);
    json = NULL;
    if (rc == 0)
        rc = fab_status_json(f, &json, 5 * SECOND);
    free(json);
    fab_close(f);
    return rc;
}

Test(changing, control_frames_are_found_out, .timeout = 60)
{
    const struct proxy_plan plans[] = {
        {PROXY_CONTROL, PROXY_TO_FABRICD, PROXY_FLIP, 1, 0},
        {PROXY_CONTROL, PROXY_TO_FABRICD, PROXY_WRITE, 4, 0x800d0003}, /* the type, in the open */
        {PROXY_CONTROL, PROXY_TO_FABRICD, PROXY_REPEAT, 0, 0},
        {PROXY_CONTROL, PROXY_TO_FABRICD, PROXY_OLD, 0, 0},
        {PROXY_CONTROL, PROXY_TO_CLIENT, PROXY_FLIP, 1, 0},
        {PROXY_CONTROL, PROXY_TO_CLIENT, PROXY_REPEAT, 0, 0},
    };
    begin("encrypted");
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
        cr_assert_lt(status_spoilt(fx.remote, &plans[i]), 0, "case %zu", i);
    end();
}

Test(changing, plain_control_frames_are_believed)
{
    const struct proxy_plan repeat = {PROXY_CONTROL, PROXY_TO_FABRICD, PROXY_REPEAT, 0, 0};
    begin("authenticated");
    cr_assert_eq(status_spoilt(fx.remote, &repeat), 0);
    end();
}

/* ---- talking them out of it ---- */

/* Both end with it and a public key. */
#define HELLO_SECURITY     (CTL_HEAD + 212)
#define CHALLENGE_SECURITY (CTL_HEAD + CTL_NONCE + 4)

static void downgrade(enum proxy_dir dir, size_t where, const char *why)
{
    const struct proxy_plan p = {PROXY_CONTROL, dir, PROXY_WRITE, where, CTL_PLAIN};
    fab_t *f = NULL;
    proxy_await_quiet(); /* fabricd may still be answering the last one's */
    proxy_tamper(&p);
    cr_assert_eq(try_open(&f, FAB_PRODUCER, fx.remote), -EACCES, "%s", fab_errmsg());
    cr_assert_not_null(strstr(fab_errmsg(), why), "%s", fab_errmsg());
    cr_assert(proxy_tampered());
    cr_assert_eq(proxy_connections(PROXY_DATA), 0);
}

Test(downgrade, of_a_fabricd_that_insists_is_refused, .timeout = 60)
{
    begin("encrypted");
    downgrade(PROXY_TO_CLIENT, CHALLENGE_SECURITY, "key does not match");
    insist = true;
    downgrade(PROXY_TO_FABRICD, HELLO_SECURITY, "key does not match");
    downgrade(PROXY_TO_CLIENT, CHALLENGE_SECURITY, "does not encrypt");
    end();
}

Test(downgrade, of_a_client_that_insists_is_refused, .timeout = 60)
{
    begin("authenticated");
    insist = true;
    downgrade(PROXY_TO_FABRICD, HELLO_SECURITY, "does not encrypt");
    downgrade(PROXY_TO_CLIENT, CHALLENGE_SECURITY, "does not encrypt");
    end();
}
