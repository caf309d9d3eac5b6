/* SPDX-License-Identifier: MIT
 *
 * strangers.c - peers that must not be let in, and one that is and reaches for more than its lanes: forged,
 * repeated and stale tickets, a wrong key, random bytes, frames over their size, handshakes that never
 * end, many half-open connections; one-sided writes beyond the lane. Each while a guest of good standing
 * works on, and with what fabricd counts of it.
 *
 * STRANGERS: how many half-open connections (2000; needs as many file descriptors).
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fabric.h"
#include "core/keyfile.h"
#include "tests/common/fabricd.h"
#include "transport/control.h"
#include "transport/lane.h"

#define SECOND  1000000000ll
#define EVENTS  16
#define CELLS   8u
#define CELL    32768u
#define TIMEOUT 3 /* auth.handshake_timeout, s */
/* The thread sanitizer keeps several times the program's own memory beside it. */
#ifdef __SANITIZE_THREAD__
#define COST_KIB (128 * 1024)
#else
#define COST_KIB (8 * 1024)
#endif

static struct fixture fx;
static int port;

/* ---- the guest: a producer and a worker, both over tcp ---- */

static struct guest {
    pthread_t thread[2];
    atomic_bool over, idle; /* no more is asked; nothing asked is open */
    atomic_ulong done;
    uint64_t worst_ns;
    _Atomic(char *) wrong; /* NULL: all is well; else the first thing that was not */
} guest;

static void spoilt(const char *why)
{
    char *none = NULL;
    atomic_compare_exchange_strong(&guest.wrong, &none, strdup(why));
}

static fab_t *open_as(uint32_t roles)
{
    struct fab_options o = {.roles = roles, .key_file = fx.key, .name = "guest"};
    fab_t *f;
    return fab_open(&f, fx.remote, &o) == 0 ? f : NULL;
}

static void *work(void *arg)
{
    fab_t *f = open_as(FAB_WORKER);
    (void)arg;
    if (!f)
        spoilt("the worker is not let in");
    while (f && !guest.idle) {
        struct fab_lease l[16];
        long n = fab_claim(f, 0, l, 16, SECOND / 20);
        for (long i = 0; i < n; i++)
            if (fab_complete(f, &l[i], fab_arg(&l[i]), l[i].len) < 0)
                spoilt("a lease was lost");
        if (n < 0 && n != -ETIMEDOUT) {
            spoilt(fab_errmsg());
            break;
        }
    }
    fab_close(f);
    return NULL;
}

static void *ask(void *arg)
{
    fab_t *f = open_as(FAB_PRODUCER);
    (void)arg;
    if (!f)
        spoilt("the producer is not let in");
    for (uint64_t i = 0; f && !guest.over && !guest.wrong; i++) {
        uint64_t arg8[4] = {i, i + 1, i + 2, i + 3}, start = clock_ns();
        struct fab_task t = {.kernel = 1, .arg = arg8, .len = sizeof arg8};
        struct fab_outcome o;
        fab_id id;
        if (fab_submit(f, &t, 1, &id, 10 * SECOND) != 1 || fab_wait(f, id, &o, 10 * SECOND) < 0)
            spoilt(fab_errmsg());
        else if (o.status != FAB_COMPLETED || memcmp(fab_data(&o), arg8, sizeof arg8) != 0)
            spoilt("a task was not answered rightly");
        uint64_t took = clock_ns() - start;
        if (took > guest.worst_ns)
            guest.worst_ns = took;
        guest.done++;
    }
    fab_close(f);
    return NULL;
}

static void await_guest(unsigned long more)
{
    unsigned long until = guest.done + more;
    for (uint64_t end = clock_ns() + 30 * (uint64_t)SECOND; guest.done < until && !guest.wrong;) {
        cr_assert_lt(clock_ns(), end, "the guest's work stands still");
        poll(NULL, 0, 1);
    }
    cr_assert_null(guest.wrong, "%s", guest.wrong);
}

static void begin(const char *lane)
{
    char tables[200];
    snprintf(tables, sizeof tables,
             "[fabric]\nprovider = \"tcp\"\nlane = \"%s\"\n[auth]\nhandshake_timeout = \"%ds\"\n", lane, TIMEOUT);
    fabricd_up(&fx, tables);
    cr_assert_geq(sodium_init(), 0);
    port = atoi(strrchr(fx.remote, ':') + 1);
    cr_assert_eq(pthread_create(&guest.thread[0], NULL, work, NULL), 0);
    cr_assert_eq(pthread_create(&guest.thread[1], NULL, ask, NULL), 0);
    await_guest(10);
}

static void end(void)
{
    await_guest(50);
    guest.over = true;
    pthread_join(guest.thread[1], NULL);
    guest.idle = true;
    pthread_join(guest.thread[0], NULL);
    cr_assert_null(guest.wrong, "%s", guest.wrong);
    fabricd_down(&fx);
}

/* How often fabricd has refused somebody for this reason. */
static long refused(const char *why)
{
    struct fab_options o = {.roles = FAB_TOOL, .name = "look"};
    char *json, key[32];
    fab_t *f;
    cr_assert_eq(fab_open(&f, fx.local, &o), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_status_json(f, &json, 5 * SECOND), 0, "%s", fab_errmsg());
    fab_close(f);
    snprintf(key, sizeof key, "\"%s\": ", why);
    const char *at = strstr(json, "\"refused\": {");
    at = at ? strstr(at, key) : NULL;
    cr_assert_not_null(at);
    long n = atol(at + strlen(key));
    free(json);
    return n;
}

static void await_refused(const char *why, long n)
{
    for (uint64_t until = clock_ns() + 20 * (uint64_t)SECOND; refused(why) < n; poll(NULL, 0, 5))
        cr_assert_lt(clock_ns(), until, "%s: %ld, not %ld", why, refused(why), n);
}

/* ---- a client made by hand ---- */

struct client {
    int fd;
    struct ctl_reader in;
    struct ctl_frame frame;
    struct ctl_handshake hs;
    struct ctl_welcome welcome;
};

static int dial_port(int to)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)to),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0, "%s", strerror(errno));
    return fd;
}

static int dial(void)
{
    return dial_port(port);
}

/* Until it is closed by the other side; false: not within ms. */
static bool hung_up(int fd, int ms)
{
    char bytes[4096];
    for (uint64_t until = clock_ns() + (uint64_t)ms * 1000000u; clock_ns() < until;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, ms) == 1 && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
            return true;
    }
    return false;
}

static void say(struct client *c, enum ctl_type type, const uint8_t *body, uint32_t len)
{
    uint8_t out[CTL_HEAD + 1024];
    uint32_t n = ctl_frame_put(out, type, body, len);
    cr_assert_eq(send(c->fd, out, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* The next frame's type; 0: it hung up. */
static int hear(struct client *c)
{
    int rc;
    while ((rc = ctl_reader_next(&c->in, &c->frame)) == 0) {
        uint32_t room;
        uint8_t *to = ctl_reader_room(&c->in, &room);
        ssize_t n = recv(c->fd, to, room, 0);
        if (n <= 0)
            return 0;
        ctl_reader_add(&c->in, (uint32_t)n);
    }
    cr_assert_eq(rc, 1);
    return c->frame.type;
}

/* HELLO to PROOF. What fabricd answers to it. */
static int shake(struct client *c, const uint8_t key[32])
{
    struct ctl_hello h = {.version_min = CTL_VERSION,
                          .version_max = CTL_VERSION,
                          .roles = FAB_PRODUCER,
                          .name = "by hand",
                          .provider = "tcp",
                          .instance = {7}};
    uint8_t body[512], mac[CTL_MAC];
    c->fd = dial();
    c->in.have = 0;
    hs_init(&c->hs, key);
    randombytes_buf(h.nonce, sizeof h.nonce);
    randombytes_buf(h.instance, sizeof h.instance);
    uint32_t len = ctl_put_hello(body, &h);
    cr_assert_eq(hs_note_hello(&c->hs, body, len), 0);
    say(c, CTL_HELLO, body, len);
    cr_assert_eq(hear(c), CTL_CHALLENGE);
    cr_assert_eq(hs_note_challenge(&c->hs, c->frame.body, c->frame.len), 0);
    hs_client_proof(&c->hs, mac);
    say(c, CTL_PROOF, mac, sizeof mac);
    return hear(c);
}

/* A peer with the key, up to where it would connect its data endpoint; where it may write is in *to. */
static void join(struct client *c, struct tr_remote *to)
{
    uint8_t key[32], body[64];
    struct tr_remote none = {.len = CELL * CELLS};
    cr_assert_eq(key_load(fx.key, key), 0);
    cr_assert_eq(shake(c, key), CTL_WELCOME);
    cr_assert_eq(ctl_get_welcome(c->frame.body + CTL_MAC, c->frame.len - CTL_MAC, &c->welcome), 0);
    say(c, CTL_LANE_OFFER, body, ctl_put_remote(body, &none));
    cr_assert_eq(hear(c), CTL_LANE_READY);
    cr_assert_eq(ctl_get_remote(&c->frame, to), 0);
}

/* ---- a data endpoint made by hand ---- */

struct data {
    struct tr_domain *dom;
    struct tr_ep *ep;
    bool up;
    int closed, sent; /* errors; sent: 1 while nothing is known */
};

static void data_open(struct data *d)
{
    struct tr_opts o = {
        .provider = "tcp", .host = "127.0.0.1", .eps_max = 4, .ops_per_ep = lane_ops(CELLS)};
    memset(d, 0, sizeof *d);
    cr_assert_eq(tr_ofi.domain_open(&d->dom, &o), 0, "%s", fab_errmsg());
}

static void data_poll(struct data *d)
{
    struct tr_event ev[EVENTS];
    int n = tr_ofi.poll(d->dom, ev, EVENTS);
    for (int i = 0; i < n; i++) {
        if (ev[i].kind == TR_CONNECTED)
            d->up = true;
        else if (ev[i].kind == TR_CLOSED)
            d->closed = ev[i].error ? ev[i].error : -ECONNRESET;
        else if (ev[i].kind == TR_SENT)
            d->sent = ev[i].error;
    }
}

/* Connects with this ticket. Was it let in? */
static bool data_connect(struct data *d, const struct client *c, const void *ticket, uint32_t len)
{
    d->up = false;
    d->closed = 0;
    cr_assert_eq(tr_ofi.connect(d->dom, &d->ep, c->welcome.addr, c->welcome.addr_len, ticket, len), 0);
    for (uint64_t until = clock_ns() + 10 * (uint64_t)SECOND; !d->up && !d->closed;) {
        cr_assert_lt(clock_ns(), until, "neither let in nor refused");
        data_poll(d);
    }
    return d->up;
}

static void data_close(struct data *d)
{
    if (d->ep) {
        tr_ofi.ep_shutdown(d->ep);
        tr_ofi.ep_free(d->ep);
    }
    d->ep = NULL;
}

/* ---- tickets ---- */

Test(tickets, forged_repeated_and_stale_ones_are_refused, .timeout = 60)
{
    static struct client a, b;
    struct tr_remote to;
    struct data first, d;
    uint8_t forged[TR_PRIVATE_MAX];
    begin("send");
    join(&a, &to);
    data_open(&first);
    data_open(&d);
    randombytes_buf(forged, sizeof forged);
    cr_assert(!data_connect(&d, &a, forged, CTL_TICKET), "forged");
    data_close(&d);
    cr_assert(!data_connect(&d, &a, forged, 1), "one byte");
    data_close(&d);
    memcpy(forged, a.welcome.ticket, CTL_TICKET);
    forged[CTL_TICKET - 1] ^= 1;
    cr_assert(!data_connect(&d, &a, forged, CTL_TICKET), "one bit beside");
    data_close(&d);
    memset(forged, 0, sizeof forged);
    cr_assert(!data_connect(&d, &a, forged, CTL_TICKET), "zero, as of one who is in already");
    data_close(&d);
    cr_assert(data_connect(&first, &a, a.welcome.ticket, CTL_TICKET), "the real one");
    cr_assert(!data_connect(&d, &a, a.welcome.ticket, CTL_TICKET), "once more");
    data_close(&d);
    cr_assert_eq(refused("ticket"), 5);
    data_poll(&first);
    cr_assert_eq(first.closed, 0, "whose ticket it was has nothing to suffer");
    /* its connection is gone: so is its ticket */
    join(&b, &to);
    close(b.fd);
    for (uint64_t until = clock_ns() + 5 * (uint64_t)SECOND;;) {
        cr_assert(!data_connect(&d, &b, b.welcome.ticket, CTL_TICKET) || clock_ns() < until, "stale");
        bool in = d.up;
        data_close(&d);
        if (!in)
            break;
    }
    /* nobody came for it in time */
    join(&b, &to);
    cr_assert(hung_up(b.fd, (TIMEOUT + 4) * 1000));
    cr_assert(!data_connect(&d, &b, b.welcome.ticket, CTL_TICKET), "too late");
    data_close(&d);
    cr_assert_eq(refused("ticket"), 7);
    data_close(&first);
    tr_ofi.domain_close(first.dom);
    tr_ofi.domain_close(d.dom);
    close(a.fd);
    close(b.fd);
    end();
}

/* ---- strangers ---- */

Test(strangers, a_wrong_key_is_refused, .timeout = 60)
{
    static struct client c;
    uint8_t key[32];
    begin("send");
    for (int i = 1; i <= 20; i++) {
        randombytes_buf(key, sizeof key);
        cr_assert_eq(shake(&c, key), CTL_REFUSE);
        cr_assert(hung_up(c.fd, 5000));
        close(c.fd);
    }
    await_refused("key", 20);
    end();
}

Test(strangers, noise_and_oversize_frames_are_refused, .timeout = 60)
{
    uint8_t bytes[4096];
    begin("send");
    for (int i = 1; i <= 100; i++) {
        int fd = dial();
        randombytes_buf(bytes, sizeof bytes);
        if (i % 2) { /* a frame that promises more than there may be */
            ctl_frame_put(bytes, CTL_HELLO, NULL, 0);
            bytes[8 + i % 4] = 0xff;
            bytes[11] |= 1;
        }
        cr_assert_eq(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL), (ssize_t)sizeof bytes);
        cr_assert(hung_up(fd, 5000), "case %d", i);
        close(fd);
    }
    await_refused("protocol", 100);
    end();
}

/* A byte now and then keeps nobody in: the time is that of the whole handshake. */
Test(strangers, a_handshake_byte_by_byte_ends_in_time, .timeout = 60)
{
    struct ctl_hello h = {.version_min = CTL_VERSION, .version_max = CTL_VERSION};
    uint8_t body[512], out[CTL_HEAD + 512];
    uint64_t start = clock_ns();
    uint32_t at = 0;
    begin("send");
    uint32_t n = ctl_frame_put(out, CTL_HELLO, body, ctl_put_hello(body, &h));
    int fd = dial();
    while (!hung_up(fd, 50)) {
        cr_assert_lt(at, n);
        (void)!send(fd, out + at++, 1, MSG_NOSIGNAL);
        cr_assert_lt(clock_ns() - start, (TIMEOUT + 20) * (uint64_t)SECOND);
    }
    cr_assert_gt(at, 5, "it was cut off at once");
    await_refused("slow", 1);
    close(fd);
    end();
}

static long resident_kib(void)
{
    char path[64], line[200];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", fx.pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        (void)!sscanf(line, "VmRSS: %ld", &kib);
    if (f)
        fclose(f);
    return kib;
}

static unsigned descriptors(void)
{
    char path[64];
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", fx.pid);
    DIR *d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* At the data port, which is libfabric's, and has no time limit of its own. */
Test(strangers, who_says_nothing_at_the_data_port_is_sent_away, .timeout = 60)
{
    enum { N = 500 };
    static struct client c;
    struct tr_remote to;
    struct sockaddr_in a;
    struct data d;
    int fd[N];
    begin("send");
    join(&c, &to);
    memcpy(&a, c.welcome.addr, sizeof a);
    unsigned before = descriptors();
    for (int i = 0; i < N; i++) {
        fd[i] = dial_port(ntohs(a.sin_port));
        /* some are old enough before others: their descriptors leave a hole below the rest's */
        if (i == N / 10)
            poll(NULL, 0, TIMEOUT * 500);
    }
    data_open(&d);
    cr_assert(data_connect(&d, &c, c.welcome.ticket, CTL_TICKET), "between them one with a ticket");
    for (int i = 0; i < N; i++) {
        cr_assert(hung_up(fd[i], (TIMEOUT + 10) * 1000), "connection %d", i);
        close(fd[i]);
    }
    await_refused("slow", N);
    for (uint64_t until = clock_ns() + 10 * (uint64_t)SECOND; descriptors() > before + 8; poll(NULL, 0, 5))
        cr_assert_lt(clock_ns(), until, "%u descriptors, %u before", descriptors(), before);
    data_poll(&d);
    cr_assert_eq(d.closed, 0, "the one with the ticket stays");
    data_close(&d);
    tr_ofi.domain_close(d.dom);
    close(c.fd);
    end();
}

Test(strangers, thousands_of_half_open_connections_shut_nobody_out, .timeout = 100)
{
    const char *text = getenv("STRANGERS");
    long n = text ? atol(text) : 2000;
    struct rlimit l;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
    if ((rlim_t)n + 100 > l.rlim_cur)
        n = (long)l.rlim_cur - 100;
    int *fd = calloc((size_t)n, sizeof *fd);
    begin("send");
    long before = resident_kib();
    for (long i = 0; i < n; i++) {
        fd[i] = dial();
        if (i % 2)
            (void)!send(fd[i], "TFAB", 4, MSG_NOSIGNAL); /* half of them begin to speak */
        if (i % 500 == 499) { /* in the middle of it one more guest comes in, and works */
            struct fab_options o = {.roles = FAB_PRODUCER, .key_file = fx.key, .timeout_ns = 20 * SECOND};
            struct fab_task t = {.kernel = 1, .arg = "x", .len = 1};
            struct fab_outcome out;
            fab_t *f;
            fab_id id;
            cr_assert_eq(fab_open(&f, fx.remote, &o), 0, "%s", fab_errmsg());
            cr_assert_eq(fab_submit(f, &t, 1, &id, 10 * SECOND), 1);
            cr_assert_eq(fab_wait(f, id, &out, 10 * SECOND), 0, "%s", fab_errmsg());
            fab_close(f);
        }
    }
    cr_assert_leq(resident_kib() - before, COST_KIB, "the strangers cost %ld KiB",
                  resident_kib() - before);
    /* 64 at most have a place; the others had to make room, and the last ones leave with their time */
    await_refused("crowd", n - 64 - 200);
    for (uint64_t until = clock_ns() + 30 * (uint64_t)SECOND;
         refused("crowd") + refused("slow") < n; poll(NULL, 0, 20))
        cr_assert_lt(clock_ns(), until, "crowd %ld, slow %ld of %ld", refused("crowd"), refused("slow"), n);
    for (long i = 0; i < n; i++) {
        cr_assert(hung_up(fd[i], 5000), "connection %ld", i);
        close(fd[i]);
    }
    free(fd);
    end();
}

/* ---- a peer that reaches for more than its lanes ---- */

/* One write, or read, with this key, this far behind the start of what was exported. Returns what became of it: 0
 * when the peer took it. */
static int reach(bool by_read, int64_t offset, uint64_t key_xor, uint32_t len)
{
    static struct client c;
    static uint8_t bytes[CELL];
    struct tr_remote to;
    struct tr_mr *mr;
    struct data d;
    uint64_t until;
    join(&c, &to);
    cr_assert_gt(to.len, 0, "lanes are for one-sided writes here");
    data_open(&d);
    cr_assert(data_connect(&d, &c, c.welcome.ticket, CTL_TICKET));
    memset(bytes, 0xee, sizeof bytes);
    cr_assert_eq(tr_ofi.mr_reg(d.dom, bytes, sizeof bytes, TR_LOCAL, &mr, NULL), 0);
    to.key ^= key_xor;
    to.addr += (uint64_t)offset;
    to.len = UINT64_MAX; /* what this side would check itself */
    d.sent = 1;
    int rc = by_read ? tr_ofi.post_read(d.ep, bytes, len, mr, &to, 0, NULL)
                     : tr_ofi.post_write(d.ep, bytes, len, mr, &to, 0, NULL);
    for (until = clock_ns() + 3 * (uint64_t)SECOND; rc == 0 && d.sent == 1 && !d.closed && clock_ns() < until;)
        data_poll(&d);
    /* an answer to the write is not promised; that the link has ended is */
    for (; rc == 0 && !d.closed && clock_ns() < until; )
        data_poll(&d);
    if (rc == 0)
        rc = d.closed ? d.closed : d.sent;
    data_close(&d);
    tr_ofi.mr_close(mr);
    tr_ofi.domain_close(d.dom);
    close(c.fd);
    return rc;
}

Test(reaching, a_peer_writes_to_its_lane_and_nowhere_else, .timeout = 100)
{
    const struct {
        const char *what;
        int64_t offset;
        uint64_t key;
        uint32_t len;
    } bad[] = {{"behind it", (int64_t)CELL * CELLS, 0, 64},
               {"over its end", (int64_t)CELL * CELLS - 32, 0, 64},
               {"far behind it", 1ll << 30, 0, 64},
               {"before it", -64, 0, 64},
               {"before it, so that the end is in it", -32, 0, 64},
               {"with another key", 0, 1, 64},
               {"with a key far away", 0, 0x5555555555555555, 64}};
    begin("write");
    cr_assert_eq(reach(false, 0, 0, CELL), 0, "its own cells are its own");
    cr_assert_eq(reach(false, (int64_t)CELL * CELLS - 64, 0, 64), 0, "up to the last byte");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_lt(reach(false, bad[i].offset, bad[i].key, bad[i].len), 0, "%s", bad[i].what);
        await_guest(5);
    }
    end();
}

/* fabricd reads what peers offer; nobody reads what is fabricd's, the own lane included. */
Test(reaching, a_peer_reads_nothing, .timeout = 100)
{
    const int64_t at[] = {0, (int64_t)CELL * CELLS, -64, 1ll << 30};
    begin("write");
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        cr_assert_lt(reach(true, at[i], 0, 64), 0, "at %lld", (long long)at[i]);
        await_guest(5);
    }
    end();
}
