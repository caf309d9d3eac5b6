/* SPDX-License-Identifier: MIT
 *
 * session_admin.c - what is said on a session's control connection once it is up: heartbeats, status,
 * requests of administrators, the end.
 *
 * Threads: the handle's. Failure: -EPIPE when fabricd is gone, -ETIMEDOUT.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/session_parts.h"

#define ADMIN_TEXT_MAX (64u << 20)

static int add_status(struct session *s)
{
    const struct ctl_frame *f = &s->frame;
    char *more = realloc(s->status, s->status_len + f->len + 1);
    if (!more)
        return err_set(-ENOMEM, "no memory for the status");
    memcpy(more + s->status_len, f->body, f->len);
    s->status = more;
    s->status_len += f->len;
    s->status[s->status_len] = 0;
    s->status_done = f->len < CTL_BODY_MAX;
    return s->status_len > 64u << 20 ? err_set(-EPROTO, "a status without end") : 0;
}

/* The text grows by what frames bring; its end is a NUL. */
static int add_admin(struct session *s)
{
    struct ctl_admin_reply a;
    int rc = ctl_get_admin_reply(&s->frame, &a);
    if (rc < 0)
        return rc;
    if (a.serial != s->admin.serial || s->admin.done)
        return 0; /* nobody waits for it any more */
    if (s->admin.len + a.text_len > ADMIN_TEXT_MAX)
        return err_set(-EPROTO, "an answer without end");
    char *more = realloc(s->admin.reply.text, s->admin.len + a.text_len + 1);
    if (!more)
        return err_set(-ENOMEM, "no memory for the answer");
    if (a.text_len)
        memcpy(more + s->admin.len, a.text, a.text_len);
    s->admin.reply.text = more;
    s->admin.len += a.text_len;
    more[s->admin.len] = 0;
    memcpy(s->admin.reply.number, a.number, sizeof a.number);
    s->admin.error = a.error;
    s->admin.done = !a.more;
    return 0;
}

/* The kernel gives a daemon up that is cut off as soon as the daemon would give up us. */
static void heed_ping(struct session *s)
{
    struct ctl_ping p;
    if (ctl_get_ping(&s->frame, &p) < 0 || p.dead_after_ms == s->patience_ms || p.dead_after_ms == 0)
        return;
    s->patience_ms = p.dead_after_ms;
    uint32_t ms = p.dead_after_ms < 3600000 ? p.dead_after_ms : 3600000;
    uint32_t probe = ms / 4000 > 0 ? ms / 4000 : 1; /* in seconds: the kernel knows no less */
    const struct {
        int name;
        uint32_t value;
    } opts[] = {{TCP_KEEPIDLE, 2 * probe}, {TCP_KEEPINTVL, probe}, {TCP_KEEPCNT, 2}, {TCP_USER_TIMEOUT, ms}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        (void)setsockopt(s->fd, IPPROTO_TCP, opts[i].name, &opts[i].value, sizeof(uint32_t));
}

/* ---- questions of ours ---- */

int session_ping(struct session *s)
{
    uint8_t body[64];
    s->ponged = false;
    s->pong.serial++;
    s->deadline = clock_ns() + SESSION_TIMEOUT_NS;
    return session_send(s, CTL_PING, body, ctl_put_pong(body, &(struct ctl_pong){.serial = s->pong.serial}));
}

static void heed_pong(struct session *s)
{
    struct ctl_pong p;
    if (ctl_get_pong(&s->frame, &p) < 0 || p.serial != s->pong.serial)
        return; /* an answer to an older question says less */
    s->pong = p;
    s->ponged = true;
}

bool session_pong(struct session *s, struct ctl_pong *out)
{
    bool there = s->ponged;
    *out = s->pong;
    s->ponged = false;
    return there;
}

uint64_t session_patience(const struct session *s)
{
    return (uint64_t)s->patience_ms * 1000000;
}

static int take_frames(struct session *s)
{
    int rc;
    while ((rc = session_frame(s)) == 1) {
        switch (s->frame.type) {
        case CTL_PING:
            heed_ping(s);
            if (s->frame.len <= 64) {
                s->deadline = clock_ns() + SESSION_TIMEOUT_NS;
                rc = session_send(s, CTL_PONG, s->frame.body, s->frame.len);
            }
            break;
        case CTL_PONG:
            heed_pong(s);
            break;
        case CTL_STATUS_REPLY:
            rc = add_status(s);
            break;
        case CTL_ADMIN_REPLY:
            rc = add_admin(s);
            break;
        case CTL_BYE:
        case CTL_REFUSE:
            s->ended = true;
            rc = err_set(-EPIPE, "fabricd at %s:%s has ended the link", s->host, s->port);
            break;
        default: /* CTL_DRAIN: the lane tells, by giving no more work */
            break;
        }
        if (rc < 0)
            return rc;
    }
    return rc;
}

int session_progress(struct session *s)
{
    int rc, more;
    do {
        more = session_fill(s);
        rc = take_frames(s);
        if (rc < 0)
            return rc;
    } while (more > 0);
    return more;
}

bool session_ended(const struct session *s)
{
    return s->ended;
}

int session_status(struct session *s, char **text, int64_t timeout_ns)
{
    s->deadline = timeout_ns < 0 ? UINT64_MAX / 2 : clock_ns() + (uint64_t)timeout_ns;
    s->status_done = false;
    free(s->status);
    s->status = NULL;
    s->status_len = 0;
    int rc = session_send(s, CTL_STATUS, NULL, 0);
    while (rc == 0 && !s->status_done) {
        rc = session_progress(s);
        if (rc == 0 && !s->status_done)
            rc = session_await(s, POLLIN);
    }
    if (rc < 0)
        return rc;
    *text = s->status;
    s->status = NULL;
    return 0;
}

void session_drop_replies(struct session *s)
{
    free(s->admin.reply.text);
    s->admin.reply.text = NULL;
    s->admin.len = 0;
}

int session_admin(struct session *s, const struct admin_request *q, struct admin_reply *r,
                  int64_t timeout_ns)
{
    struct ctl_admin a = {.serial = s->admin.serial + 1, .request = *q};
    uint8_t body[64];
    s->deadline = timeout_ns < 0 ? UINT64_MAX / 2 : clock_ns() + (uint64_t)timeout_ns;
    session_drop_replies(s);
    s->admin.serial = a.serial;
    s->admin.done = false;
    int rc = session_send(s, CTL_ADMIN, body, ctl_put_admin(body, &a));
    while (rc == 0 && !s->admin.done) {
        rc = session_progress(s);
        if (rc == 0 && !s->admin.done)
            rc = session_await(s, POLLIN);
    }
    s->admin.done = true;
    if (rc == 0 && s->admin.error)
        rc = err_set(-s->admin.error, "%s", s->admin.reply.text);
    if (rc < 0) {
        session_drop_replies(s);
        return rc;
    }
    *r = s->admin.reply;
    if (s->admin.len == 0) {
        free(r->text);
        r->text = NULL;
    }
    s->admin.reply.text = NULL;
    s->admin.len = 0;
    return 0;
}
