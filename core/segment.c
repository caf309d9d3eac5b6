/* SPDX-License-Identifier: MIT
 *
 * segment.c - the layout in numbers, a memfd for it, and the check of a foreign one.
 *
 * The same function (place) computes all offsets for the creator and for the
 * checker: a header is sound when its counts are in range and its offsets are
 * exactly those that follow from the counts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/dedup.h"
#include "core/error.h"
#include "core/ring.h"
#include "core/segment.h"
#include "core/slot.h"
#include "core/topology.h"

#define SEALS     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define HUGE_PAGE (2u << 20)

static uint64_t align_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

static uint32_t round_pow2(uint32_t v)
{
    uint32_t p = 1;
    while (p < v)
        p <<= 1;
    return p;
}

static uint64_t ring_bytes(uint32_t cells)
{
    return align_up(sizeof(struct seg_ring) + (uint64_t)cells * sizeof(uint64_t), HOT_LINE);
}

/* Fills in all offsets and the total from the counts in h. */
static void place(struct seg_header *h)
{
    uint64_t at = 4096;
    h->off_queues = at;
    at = align_up(at + (uint64_t)h->queues * sizeof(struct seg_queue), 4096);
    h->off_participants = at;
    at = align_up(at + (uint64_t)h->participants * sizeof(struct seg_participant), 4096);
    h->off_free_ring = at;
    at = align_up(at + ring_bytes(h->ring_cells), 4096);
    h->off_timer_ring = at;
    at = align_up(at + ring_bytes(h->ring_cells), 4096);
    h->off_ready_rings = at;
    at = align_up(at + ring_bytes(h->ring_cells) * h->queues * SEG_PRIORITIES, 4096);
    h->off_slots = at;
    at = align_up(at + (uint64_t)h->slots * sizeof(struct seg_slot), 4096);
    h->off_wides = at;
    at = align_up(at + (uint64_t)h->slots * sizeof(struct seg_wide), 4096);
    h->off_dedup = at;
    at = align_up(at + (uint64_t)h->dedup_keys * sizeof(struct seg_key), 4096);
    h->off_refs = at;
    at = align_up(at + (uint64_t)h->slots * sizeof(uint64_t), 4096);
    h->off_times = at;
    at = align_up(at + (uint64_t)h->slots * sizeof(struct seg_times), 4096);
    h->off_graves = at;
    at = align_up(at + (h->dead_letters_max ? (uint64_t)h->slots * sizeof(struct seg_grave) : 0), 4096);
    h->off_chunk_words = at;
    at = align_up(at + (uint64_t)h->chunks * sizeof(uint64_t), 4096);
    h->off_block_words = at;
    at = align_up(at + (uint64_t)h->chunks * ARENA_CHUNK_BLOCKS * sizeof(uint64_t), ARENA_CHUNK);
    h->off_arena = at;
    at += (uint64_t)h->chunks * ARENA_CHUNK;
    h->total_bytes = align_up(at, HUGE_PAGE);
}

/* The private view of a header whose numbers are known to be sound. */
static void view(struct segment *s, const struct seg_header *h)
{
    s->head = (struct seg_header *)s->base;
    s->id = h->segment_id;
    s->slots = h->slots;
    s->slot_mask = h->slots - 1;
    s->ring_cells = h->ring_cells;
    s->ring_shift = (uint32_t)__builtin_ctz(h->ring_cells);
    s->queues = h->queues;
    s->participants = h->participants;
    s->chunks = h->chunks;
    s->ticks_hz = h->ticks_hz;
    s->ns_per_tick = (uint64_t)(((unsigned __int128)1000000000u << 32) / h->ticks_hz);
    s->queue = (struct seg_queue *)(s->base + h->off_queues);
    s->participant = (struct seg_participant *)(s->base + h->off_participants);
    s->free_ring = (struct seg_ring *)(s->base + h->off_free_ring);
    s->timer_ring = (struct seg_ring *)(s->base + h->off_timer_ring);
    s->ready_rings = s->base + h->off_ready_rings;
    s->ring_stride = ring_bytes(h->ring_cells);
    s->slot = (struct seg_slot *)(s->base + h->off_slots);
    s->wide = (struct seg_wide *)(s->base + h->off_wides);
    s->key = (struct seg_key *)(s->base + h->off_dedup);
    s->dedup_keys = h->dedup_keys;
    s->producer_share = h->producer_share;
    s->ref = (uint64_t *)(s->base + h->off_refs);
    s->times = (struct seg_times *)(s->base + h->off_times);
    s->grave = (struct seg_grave *)(s->base + h->off_graves);
    s->dead_letters = h->dead_letters_max;
    s->chunk_word = (_Atomic uint64_t *)(s->base + h->off_chunk_words);
    s->block_word = (_Atomic uint64_t *)(s->base + h->off_block_words);
    s->arena = s->base + h->off_arena;
    s->arena_bytes = (uint64_t)h->chunks * ARENA_CHUNK;
    memcpy(s->original, h, sizeof s->original);
}

/* Names are read once, too. */
static void copy_names(struct segment *s)
{
    for (uint32_t q = 0; q < s->queues; q++) {
        memcpy(s->queue_name[q], s->queue[q].name, SEG_NAME);
        s->queue_name[q][SEG_NAME - 1] = 0;
    }
}

static int counts_sound(const struct seg_header *h)
{
    if (h->slots < SEG_SLOTS_MIN || h->slots > SEG_SLOTS_MAX || (h->slots & (h->slots - 1)))
        return err_set(-EPROTO, "segment: %u slots is not a sound number", h->slots);
    if (h->ring_cells != 2 * h->slots)
        return err_set(-EPROTO, "segment: %u ring cells do not fit %u slots", h->ring_cells,
                       h->slots);
    if (h->queues < 1 || h->queues > SEG_QUEUES_MAX)
        return err_set(-EPROTO, "segment: %u queues is not a sound number", h->queues);
    if (h->participants < 1 || h->participants > SEG_PARTICIPANTS_MAX)
        return err_set(-EPROTO, "segment: %u participants is not a sound number", h->participants);
    if (h->chunks > (64ull << 30) / ARENA_CHUNK)
        return err_set(-EPROTO, "segment: %u arena chunks is not a sound number", h->chunks);
    if (h->dedup_keys && (h->dedup_keys < DEDUP_KEYS_MIN || h->dedup_keys > DEDUP_KEYS_MAX ||
                          (h->dedup_keys & (h->dedup_keys - 1))))
        return err_set(-EPROTO, "segment: %u keys is not a sound number", h->dedup_keys);
    if (h->producer_share < 1 || h->producer_share > h->slots)
        return err_set(-EPROTO, "segment: %u of %u slots is not a sound share", h->producer_share,
                       h->slots);
    if (h->dead_letters_max >= h->slots / 2)
        return err_set(-EPROTO, "segment: %u dead letters is not a sound number for %u slots",
                       h->dead_letters_max, h->slots);
    if (h->ticks_hz == 0)
        return err_set(-EPROTO, "segment: no tick rate");
    return 0;
}

static int open_memfd(uint64_t bytes, enum segment_huge huge, bool *is_huge)
{
    int fd = -1;
    *is_huge = false;
    if (huge != SEGMENT_HUGE_NEVER) {
        fd = memfd_create("taskfabric", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
        /* The pages must exist now: hugetlb without reserve gives SIGBUS at first touch. */
        if (fd >= 0 && (ftruncate(fd, (off_t)bytes) < 0 || fallocate(fd, 0, 0, (off_t)bytes) < 0)) {
            close(fd);
            fd = -1;
        }
        if (fd >= 0) {
            *is_huge = true;
            return fd;
        }
        if (huge == SEGMENT_HUGE_REQUIRE)
            return err_set(-ENOMEM,
                           "segment: %llu MiB of huge pages are not to be had; raise "
                           "vm.nr_hugepages to %llu or set segment.huge_pages = \"auto\"",
                           (unsigned long long)(bytes >> 20),
                           (unsigned long long)(bytes / HUGE_PAGE));
    }
    fd = memfd_create("taskfabric", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set(-errno, "segment: memfd_create: %s", strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int e = errno;
        close(fd);
        return err_set(-e, "segment: %llu bytes: %s", (unsigned long long)bytes, strerror(e));
    }
    return fd;
}

static void fill(struct segment *s, const struct segment_params *p)
{
    for (uint32_t q = 0; q < s->queues; q++) {
        strncpy(s->queue[q].name, p->queue_names[q], SEG_NAME - 1);
        for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
            ring_init(segment_ready_ring(s, q, pr), s->ring_cells);
    }
    ring_init(s->free_ring, s->ring_cells);
    ring_init(s->timer_ring, s->ring_cells);
    slot_fill_free_ring(s);
}

int segment_create(struct segment *out, const struct segment_params *p)
{
    const uint64_t magic = SEG_MAGIC; /* the header's first word */
    struct seg_header h = {.layout = SEG_LAYOUT,
                           .header_bytes = sizeof h,
                           .slots = round_pow2(p->slots < SEG_SLOTS_MIN ? SEG_SLOTS_MIN : p->slots),
                           .queues = p->queues,
                           .participants = p->participants,
                           .dead_letters_max = p->dead_letters,
                           .chunks = (uint32_t)(p->arena_bytes / ARENA_CHUNK),
                           .ticks_hz = clock_ticks_hz()};
    int rc;
    memset(out, 0, sizeof *out);
    out->fd = -1;
    h.ring_cells = 2 * h.slots;
    h.producer_share = p->producer_share && p->producer_share < h.slots ? p->producer_share : h.slots;
    if (p->dedup_keys)
        h.dedup_keys = round_pow2(p->dedup_keys < DEDUP_KEYS_MIN ? DEDUP_KEYS_MIN : p->dedup_keys);
    rc = counts_sound(&h);
    if (rc < 0)
        return rc;
    place(&h);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h.created_unix_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (getrandom(&h.segment_id, sizeof h.segment_id, 0) != sizeof h.segment_id)
        return err_set(-EIO, "segment: no random bytes");
    snprintf(h.name, sizeof h.name, "%s", p->name);
    snprintf(h.version, sizeof h.version, "%s", p->version);

    int fd = open_memfd(h.total_bytes, p->huge, &out->huge);
    if (fd < 0)
        return fd;
    void *base = mmap(NULL, h.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        rc = err_set(-errno, "segment: mapping %llu bytes: %s", (unsigned long long)h.total_bytes,
                     strerror(errno));
        close(fd);
        return rc;
    }
    out->fd = fd;
    out->base = base;
    out->bytes = h.total_bytes;
    if (p->numa_node >= 0) {
        rc = topo_bind(base, out->bytes, p->numa_node);
        if (rc < 0)
            goto fail;
    }
    /* A child that outlives us must not be able to write into it (fork keeps mappings). */
    if (madvise(base, out->bytes, MADV_DONTFORK) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        rc = err_set(-errno, "segment: sealing: %s", strerror(errno));
        goto fail;
    }
    view(out, &h);
    memcpy(base, &h, offsetof(struct seg_header, state));
    rc = segment_host(out);
    if (rc < 0)
        goto fail;
    memcpy(out->original, &magic, sizeof magic);
    fill(out, p);
    copy_names(out);
    at_store(&out->head->state, SEG_RUNNING);
    /* last: a reader that sees the magic sees everything before it */
    __atomic_store_n(&out->head->magic, SEG_MAGIC, __ATOMIC_RELEASE);
    return 0;
fail:
    segment_unmap(out);
    return rc;
}

int segment_map(struct segment *out, int fd)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS), rc;
    memset(out, 0, sizeof *out);
    out->fd = -1;
    if (seals < 0 || (seals & SEALS) != SEALS)
        return err_set(-EPROTO, "segment: not a sealed memfd");
    if (fstat(fd, &st) < 0)
        return err_set(-errno, "segment: %s", strerror(errno));
    if (st.st_size < 4096)
        return err_set(-EPROTO, "segment: only %lld bytes", (long long)st.st_size);
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return err_set(-errno, "segment: mapping it: %s", strerror(errno));
    out->base = base;
    out->bytes = (size_t)st.st_size;

    struct seg_header h, want;
    uint64_t magic = __atomic_load_n(&((struct seg_header *)base)->magic, __ATOMIC_ACQUIRE);
    memcpy(&h, base, offsetof(struct seg_header, state));
    if (magic != SEG_MAGIC) {
        rc = err_set(-EPROTO, "segment: no taskfabric segment (magic %016llx)",
                     (unsigned long long)magic);
        goto fail;
    }
    if (h.layout != SEG_LAYOUT || h.header_bytes != sizeof(struct seg_header)) {
        rc = err_set(
            -EPROTO,
            "segment: layout version %u, this program knows %u: use programs and fabricd of the "
            "same release",
            h.layout, SEG_LAYOUT);
        goto fail;
    }
    rc = counts_sound(&h);
    if (rc < 0)
        goto fail;
    want = h;
    place(&want);
    if (memcmp(&want.off_queues, &h.off_queues,
               offsetof(struct seg_header, ticks_hz) - offsetof(struct seg_header, off_queues)) ||
        want.total_bytes != h.total_bytes || h.total_bytes != (uint64_t)st.st_size) {
        rc = err_set(-EPROTO, "segment: its offsets do not follow from its counts");
        goto fail;
    }
    if (madvise(base, out->bytes, MADV_DONTFORK) < 0) {
        rc = err_set(-errno, "segment: madvise: %s", strerror(errno));
        goto fail;
    }
    view(out, &h);
    copy_names(out);
    out->fd = fd;
    return 0;
fail:
    out->fd = -1;
    segment_unmap(out);
    return rc;
}

int segment_host(struct segment *s)
{
    s->living = calloc(1, s->participants);
    return s->living ? 0 : err_set(-ENOMEM, "no memory for %u participants", s->participants);
}

void segment_unmap(struct segment *s)
{
    free(s->living);
    if (s->base)
        munmap(s->base, s->bytes);
    if (s->fd >= 0)
        close(s->fd);
    memset(s, 0, sizeof *s);
    s->fd = -1;
}
