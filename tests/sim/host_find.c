/* SPDX-License-Identifier: MIT
 *
 * host_find.c - what a handle that comes back finds in the simulated fabricd: its link, which
 * fabricd still has, what was kept of it, or nothing. As in peer.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "core/error.h"
#include "core/kept.h"
#include "tests/sim/host_parts.h"

/* As find_session() in peer.c; identities are not hashed here. */
int host_find_session(const struct session_self *self, const char *client, struct link_params *lp,
                      struct identity *who)
{
    *who = (struct identity){0};
    memcpy(who->instance, self->instance, sizeof who->instance);
    if (client)
        snprintf((char *)who->client, sizeof who->client, "%.15s", client);
    if (!(lp->roles & FAB_PRODUCER))
        return 0;
    lp->identity = who;
    lp->window = self->resume ? self->window : 0;
    int id = kept_find(&world.seg, who);
    bool same = id >= 0 && kept_same_instance(&world.seg, (uint32_t)id, who);
    if (id >= 0 && !kept_is(&world.seg, (uint32_t)id))
        return err_set(-EBUSY, "in use");
    if (id < 0)
        return 0;
    if (self->resume && !same)
        return err_set(-ESTALE, "taken over");
    lp->session = self->resume ? LINK_RESUMED : LINK_TAKEN_UP;
    lp->kept = (uint32_t)id;
    return 0;
}

/* As link_before() and take_link() in peer.c. */
bool host_take_link(struct peer *p, const struct session_self *self, struct link_params *lp)
{
    for (struct peer *q = self->resume ? world.peers : NULL; q; q = q->next) {
        if (!q->link || q->roles != lp->roles ||
            memcmp(q->instance, self->instance, sizeof q->instance) != 0)
            continue;
        sim_trace("link %u goes over to another connection", q->line->number);
        p->link = q->link;
        q->link = NULL;
        q->line->harmed = true; /* what was on its way is lost, as by a cut */
        host_hang_up(q);
        lp->session = link_move(p->link, lp);
        host_peer_close(q, false);
        world.moved[lp->roles & 3]++;
        return true;
    }
    return false;
}
