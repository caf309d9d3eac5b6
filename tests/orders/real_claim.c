/* SPDX-License-Identifier: MIT
 *
 * real_claim.c - core/claim.c with doors to what is static in it; see world.h.
 */
#include "core/claim.c"
#include "tests/orders/world.h"

uint32_t real_claim_rings(struct local *l, struct fab_lease *lease, uint32_t max)
{
    return claim_rings(l, 0, lease, max);
}

bool real_claim_hot(struct local *l, struct fab_lease *lease)
{
    return claim_hot(l, 0, lease);
}

int real_park(struct local *l, uint32_t *patience)
{
    return park(l, &l->seg->queue[0], 0, WAKE_NET_NS, patience);
}
