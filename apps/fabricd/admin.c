/* SPDX-License-Identifier: MIT
 *
 * admin.c - an administrator's requests over a control connection: run on the segment, answered in
 * frames. Who has proved the key may ask for all of it, as who may open the UNIX socket.
 *
 * Threads: the loop's. Failure: what goes wrong with a request is its answer; what goes wrong with
 * the connection ends the peer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/peer.h"
#include "core/admin.h"
#include "core/error.h"
#include "core/queue.h"

static void note(const struct peer *p, const struct admin_request *q)
{
    const struct segment *s = &p->g->d->seg;
    if (q->op == ADMIN_QUEUE_SET)
        log_info("queue %s is %s now, by %s (%s)", s->queue_name[q->queue],
                 queue_control_name((uint32_t)q->arg), p->from, p->hello.name);
}

static int answer(struct peer *p, struct ctl_admin_reply *a, const char *text)
{
    uint8_t body[CTL_BODY_MAX];
    size_t len = text ? strlen(text) : 0, at = 0;
    int rc;
    do {
        a->text = (const uint8_t *)text + at;
        a->text_len = len - at < CTL_ADMIN_TEXT_MAX ? (uint32_t)(len - at) : CTL_ADMIN_TEXT_MAX;
        at += a->text_len;
        a->more = at < len;
        rc = peer_send(p, CTL_ADMIN_REPLY, body, ctl_put_admin_reply(body, a));
    } while (rc == 0 && a->more);
    return rc;
}

int peer_admin(struct peer *p, const struct ctl_frame *f)
{
    struct daemon *d = p->g->d;
    struct ctl_admin a;
    struct admin_reply r;
    int rc = ctl_get_admin(f, &a);
    if (rc < 0)
        return rc;
    rc = admin_run(&d->seg, &d->out, d->me, &a.request, &r);
    struct ctl_admin_reply reply = {.serial = a.serial, .error = rc < 0 ? -rc : 0};
    if (rc == 0) {
        memcpy(reply.number, r.number, sizeof reply.number);
        note(p, &a.request);
    }
    rc = answer(p, &reply, rc < 0 ? err_text(rc) : r.text);
    free(r.text);
    d->stirred = true;
    return rc;
}
