/* SPDX-License-Identifier: MIT
 *
 * queue.c - see queue.h. Any thread of any process.
 *
 * Failure: a death between the store of the word and the wake leaves sleepers that look again within
 * WAKE_NET_NS; with a fabricd there, its undertaker wakes them at once.
 */
#include <errno.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/queue.h"
#include "core/slot.h"

const char *queue_control_name(uint32_t control)
{
    static const char *const names[] = {"running", "paused", "draining"};
    return control < sizeof names / sizeof *names ? names[control] : "(damaged)";
}

static int check(const struct segment *s, uint32_t queue)
{
    return queue < s->queues
               ? 0
               : err_set(-EINVAL, "queue %u: the fabric has %u", queue, s->queues);
}

int queue_refuses(const struct segment *s, uint32_t queue)
{
    return err_set(-ESHUTDOWN,
                   "queue %s is draining and takes no tasks (fabctl queue resume %s ends that)",
                   s->queue_name[queue], s->queue_name[queue]);
}

int queue_set(const struct segment *s, const struct wake_out *out, uint32_t queue,
              uint64_t control)
{
    int rc = check(s, queue);
    if (rc < 0)
        return rc;
    if (control > QUEUE_DRAINING)
        return err_set(-EINVAL, "a queue is running, paused or draining (0 to 2), not %llu",
                       (unsigned long long)control);
    struct seg_queue *q = &s->queue[queue];
    at_store(&q->control, (uint32_t)control); /* W1 */
    CRASH_POINT("queue.control");
    if (control == QUEUE_PAUSED)
        return 0;
    queue_wake_all(q);
    daemon_ring(s, out); /* queue_wake_all() takes its mark away, too */
    return 0;
}

int queue_count(const struct segment *s, uint32_t queue, uint64_t number[ADMIN_NUMBERS])
{
    int rc = check(s, queue);
    if (rc < 0)
        return rc;
    number[0] = at_load(&s->queue[queue].control);
    if (number[0] > QUEUE_DRAINING)
        number[0] = QUEUE_RUNNING;
    number[1] = number[2] = number[3] = 0;
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load(&s->slot[i].state), m = at_load(&s->slot[i].meta);
        uint32_t st = slot_state(w);
        if (meta_queue(m) != queue)
            continue;
        number[1] += st == SLOT_READY;
        number[2] += st == SLOT_DELAYED;
        number[3] += st == SLOT_LEASED || st == SLOT_ZOMBIE ||
                     (st == SLOT_OVERRUN && slot_owner(w) != meta_producer(m));
    }
    return 0;
}
