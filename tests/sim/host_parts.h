/* SPDX-License-Identifier: MIT
 *
 * host_parts.h - between the files of the simulated fabricd: host.c and host_find.c. Nobody else
 * includes it.
 */
#ifndef TESTS_SIM_HOST_PARTS_H
#define TESTS_SIM_HOST_PARTS_H

#include "apps/fabricd/pulse.h"
#include "tests/sim/world.h"

enum stage { STAGE_OFFER, STAGE_TICKET, STAGE_JOINING, STAGE_UP };

struct peer {
    struct peer *next;
    struct line *line;
    enum stage stage;
    uint64_t since, ticket;
    struct lane_params lane_params;
    struct link *link;
    struct lane *lane;
    struct tr_ep *ep;
    struct pulse pulse;
    uint32_t roles;
    uint8_t instance[CTL_INSTANCE];
};

/* Its data connection is no more. */
void host_hang_up(struct peer *p);
void host_peer_close(struct peer *p, bool bye);

/* ---- host_find.c ---- */

/* The session of a handle that is or was a producer's, into lp; *who is what lp->identity points
 * to. */
int host_find_session(const struct session_self *self, const char *client, struct link_params *lp,
                      struct identity *who);
/* The link of a handle that has come back before it was missed goes over to p, and lp->session is what
 * the handle is told. False: there is none. */
bool host_take_link(struct peer *p, const struct session_self *self, struct link_params *lp);

#endif
