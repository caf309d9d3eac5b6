/* SPDX-License-Identifier: MIT
 *
 * proxy.c - see proxy.h.
 *
 * One thread, blocking writes: the traffic of a test is small. Failure: anything unexpected ends the
 * program.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tests/hostile/proxy.h"

#define CONNS 128
#define CHUNK 65536
#define SAW   (16u << 20)

struct conn {
    int fd[2]; /* by the direction that is read from it: client's, fabricd's */
    enum proxy_kind kind;
};

struct saw {
    uint8_t *bytes;
    size_t len;
    uint8_t old[CHUNK];
    size_t old_len;
};

static struct {
    pthread_t thread;
    int listener, port, control, stop[2];
    struct conn conn[CONNS];
    unsigned n;
    pthread_cond_t quiet; /* nothing is open any more */
    pthread_mutex_t lock; /* all that follows */
    struct {
        uint16_t from, to;
    } route[CONNS];
    unsigned routes, made[2], open;
    struct saw saw[2][2];
    struct proxy_plan plan;
    bool armed, done;
} px = {.lock = PTHREAD_MUTEX_INITIALIZER, .quiet = PTHREAD_COND_INITIALIZER, .port = 0};

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "proxy: %s: %s\n", what, strerror(errno));
    abort();
}

static int raw_connect(int fd, const void *addr, socklen_t len)
{
    return (int)syscall(SYS_connect, fd, addr, len);
}

/* Takes the place of libc's in this program and in the libraries it loads. */
__attribute__((visibility("default"))) int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_in to, from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t from_len = sizeof from;
    if (px.port == 0 || addr->sa_family != AF_INET || len < sizeof to)
        return raw_connect(fd, addr, len);
    memcpy(&to, addr, sizeof to);
    struct sockaddr_in now;
    socklen_t now_len = sizeof now;
    if (getsockname(fd, (struct sockaddr *)&now, &now_len) < 0 || now.sin_port == 0)
        check(bind(fd, (struct sockaddr *)&from, sizeof from) == 0, "bind");
    check(getsockname(fd, (struct sockaddr *)&from, &from_len) == 0, "getsockname");
    pthread_mutex_lock(&px.lock);
    check(px.routes < CONNS, "too many connections");
    px.route[px.routes].from = ntohs(from.sin_port);
    px.route[px.routes++].to = ntohs(to.sin_port);
    pthread_mutex_unlock(&px.lock);
    to.sin_port = htons((uint16_t)px.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return raw_connect(fd, &to, sizeof to);
}

static void write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* it hung up: reading says so */
        bytes += n;
        len -= (size_t)n;
    }
}

static void close_both(const struct conn *c)
{
    close(c->fd[0]);
    close(c->fd[1]);
    pthread_mutex_lock(&px.lock);
    if (--px.open == 0)
        pthread_cond_broadcast(&px.quiet);
    pthread_mutex_unlock(&px.lock);
}

static void take_connection(void)
{
    struct sockaddr_in a, to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int one = 1, fd = accept(px.listener, (struct sockaddr *)&a, &len), port = 0;
    if (fd < 0)
        return;
    pthread_mutex_lock(&px.lock);
    for (unsigned i = px.routes; i-- > 0 && !port;)
        if (px.route[i].from == ntohs(a.sin_port))
            port = px.route[i].to;
    struct conn *c = &px.conn[px.n];
    c->kind = port == px.control ? PROXY_CONTROL : PROXY_DATA;
    px.made[c->kind]++;
    px.open++;
    pthread_mutex_unlock(&px.lock);
    check(port && px.n < CONNS, "a connection of unknown origin");
    to.sin_port = htons((uint16_t)port);
    c->fd[0] = fd;
    c->fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(c->fd[1] >= 0, "socket");
    if (raw_connect(c->fd[1], &to, sizeof to) < 0) {
        close_both(c);
        return;
    }
    for (int i = 0; i < 2; i++)
        setsockopt(c->fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    px.n++;
}

static void note(struct saw *s, const uint8_t *bytes, size_t len)
{
    if (!s->bytes)
        s->bytes = malloc(SAW);
    check(s->bytes && s->len + len <= SAW, "too much traffic");
    memcpy(s->bytes + s->len, bytes, len);
    s->len += len;
}

/* libfabric's tcp provider: 16 bytes {version, op, flags:16, op data, id, header's size, -, size:64},
 * little-endian. */
static size_t shorten(uint8_t *bytes, size_t len)
{
    uint64_t size;
    check(len > 32, "a chunk too short to be shortened");
    memcpy(&size, bytes + 8, 8);
    check(le64toh(size) == len, "a chunk that is not one message");
    size = htole64(len - 8);
    memcpy(bytes + 8, &size, 8);
    return len - 8;
}

static void tamper(const struct proxy_plan *p, struct saw *s, int to, uint8_t *bytes, size_t len)
{
    if (p->what == PROXY_OLD) {
        check(s->old_len > 0, "there is no older one");
        write_all(to, s->old, s->old_len);
        return;
    }
    memcpy(s->old, bytes, len);
    s->old_len = len;
    switch (p->what) {
    case PROXY_FLIP:
        check(p->at >= 1 && p->at <= len, "nothing there to flip");
        bytes[len - p->at] ^= 4;
        break;
    case PROXY_REPEAT:
        write_all(to, bytes, len);
        break;
    case PROXY_SHORTEN:
        len = shorten(bytes, len);
        break;
    case PROXY_DROP:
        return;
    case PROXY_OLD:
        break;
    case PROXY_WRITE:
        check(p->at + 4 <= len, "nothing there to write over");
        memcpy(bytes + p->at, &p->value, 4);
        break;
    }
    write_all(to, bytes, len);
}

/* False: it has hung up. */
static bool carry(struct conn *c, int dir)
{
    static uint8_t bytes[CHUNK];
    ssize_t n = recv(c->fd[dir], bytes, sizeof bytes, 0);
    if (n <= 0)
        return false;
    pthread_mutex_lock(&px.lock);
    struct saw *s = &px.saw[c->kind][dir];
    bool now = px.armed && (int)px.plan.kind == (int)c->kind && (int)px.plan.dir == dir;
    note(s, bytes, (size_t)n);
    if (now) {
        px.armed = false;
        px.done = true;
    }
    pthread_mutex_unlock(&px.lock);
    if (now)
        tamper(&px.plan, s, c->fd[!dir], bytes, (size_t)n);
    else
        write_all(c->fd[!dir], bytes, (size_t)n);
    return true;
}

static void *run(void *arg)
{
    struct pollfd p[2 * CONNS + 2];
    (void)arg;
    for (;;) {
        p[0] = (struct pollfd){.fd = px.listener, .events = POLLIN};
        p[1] = (struct pollfd){.fd = px.stop[0], .events = POLLIN};
        unsigned n = px.n;
        for (unsigned i = 0; i < n; i++)
            for (int d = 0; d < 2; d++)
                p[2 + 2 * i + (unsigned)d] = (struct pollfd){.fd = px.conn[i].fd[d], .events = POLLIN};
        if (poll(p, 2 + 2 * n, -1) < 0)
            continue;
        if (p[1].revents)
            return NULL;
        for (unsigned i = n; i-- > 0;) {
            bool alive = true;
            for (int d = 0; d < 2 && alive; d++)
                alive = !p[2 + 2 * i + (unsigned)d].revents || carry(&px.conn[i], d);
            if (!alive) {
                close_both(&px.conn[i]);
                px.conn[i] = px.conn[--px.n];
            }
        }
        if (p[0].revents)
            take_connection();
    }
}

void proxy_start(int control)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    px.control = control;
    px.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(px.listener >= 0 && bind(px.listener, (struct sockaddr *)&a, sizeof a) == 0 &&
              listen(px.listener, 64) == 0 &&
              getsockname(px.listener, (struct sockaddr *)&a, &len) == 0 && pipe(px.stop) == 0,
          "can't listen");
    px.port = ntohs(a.sin_port);
    check(pthread_create(&px.thread, NULL, run, NULL) == 0, "no thread");
}

void proxy_stop(void)
{
    check(write(px.stop[1], "", 1) == 1, "pipe");
    pthread_join(px.thread, NULL);
    px.port = 0;
}

void proxy_tamper(const struct proxy_plan *plan)
{
    pthread_mutex_lock(&px.lock);
    px.plan = *plan;
    px.armed = true;
    px.done = false;
    pthread_mutex_unlock(&px.lock);
}

bool proxy_tampered(void)
{
    pthread_mutex_lock(&px.lock);
    bool done = px.done;
    pthread_mutex_unlock(&px.lock);
    return done;
}

void proxy_await_quiet(void)
{
    pthread_mutex_lock(&px.lock);
    while (px.open > 0)
        pthread_cond_wait(&px.quiet, &px.lock);
    pthread_mutex_unlock(&px.lock);
}

unsigned proxy_connections(enum proxy_kind kind)
{
    pthread_mutex_lock(&px.lock);
    unsigned n = px.made[kind];
    pthread_mutex_unlock(&px.lock);
    return n;
}

bool proxy_saw(enum proxy_kind kind, enum proxy_dir dir, const void *bytes, size_t len)
{
    pthread_mutex_lock(&px.lock);
    const struct saw *s = &px.saw[kind][dir];
    bool found = s->len && memmem(s->bytes, s->len, bytes, len);
    pthread_mutex_unlock(&px.lock);
    return found;
}

size_t proxy_seen(enum proxy_kind kind, enum proxy_dir dir)
{
    pthread_mutex_lock(&px.lock);
    size_t n = px.saw[kind][dir].len;
    pthread_mutex_unlock(&px.lock);
    return n;
}
