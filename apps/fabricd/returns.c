/* SPDX-License-Identifier: MIT
 *
 * returns.c - see returns.h.
 */
#include "apps/fabricd/returns.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "apps/fabricd/refuse.h"
#include "core/error.h"

int returns_open(struct returns *r, uint32_t n)
{
    r->at = calloc(n, sizeof *r->at);
    r->n = n;
    r->next = 0;
    return r->at ? 0 : err_set(-ENOMEM, "no memory for fabric.links = %u", n);
}

void returns_close(struct returns *r)
{
    free(r->at);
    *r = (struct returns){0};
}

/* FNV-1a, with the terminator. */
static uint64_t add(uint64_t hash, const char *s)
{
    do
        hash = (hash ^ (uint8_t)*s) * 0x100000001b3ull;
    while (*s++);
    return hash;
}

static uint64_t who(const char *peer, const char *name)
{
    char host[REFUSE_HOST], short_name[SEG_NAME]; /* as the segment has it */
    refuse_host(host, peer);
    snprintf(short_name, sizeof short_name, "%s", name);
    return add(add(0xcbf29ce484222325ull, host), short_name) | 1;
}

void returns_broken(struct returns *r, const char *peer, const char *name, uint32_t reconnects)
{
    if (!r->n)
        return;
    r->at[r->next] = (struct returning){.who = who(peer, name), .reconnects = reconnects};
    r->next = (r->next + 1) % r->n;
}

uint32_t returns_came(struct returns *r, const char *peer, const char *name)
{
    uint64_t w = who(peer, name);
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->at[i].who != w)
            continue;
        r->at[i].who = 0;
        return r->at[i].reconnects + 1;
    }
    return 0;
}
