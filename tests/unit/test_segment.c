/* SPDX-License-Identifier: MIT
 *
 * test_segment.c - making and mapping a segment, and refusing every unsound one.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "unit.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct segment_params params(void)
{
    static const char *const names[] = {"default", "second"};
    return (struct segment_params){.name = "unit",
                                   .version = "1.2.3",
                                   .slots = 100,
                                   .participants = 9,
                                   .arena_bytes = 4 * ARENA_CHUNK,
                                   .queues = 2,
                                   .queue_names = names,
                                   .huge = SEGMENT_HUGE_NEVER,
                                   .numa_node = -1};
}

Test(segment, create_fills_it)
{
    struct segment s;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&s, &p), 0);
    cr_assert_eq(s.slots, 128, "rounded up");
    cr_assert_eq(s.slot_mask, 127);
    cr_assert_eq(s.ring_cells, 256);
    cr_assert_eq(1u << s.ring_shift, s.ring_cells);
    cr_assert_eq(s.queues, 2);
    cr_assert_eq(s.participants, 9);
    cr_assert_eq(s.chunks, 4);
    cr_assert_eq(s.arena_bytes, 4 * ARENA_CHUNK);
    cr_assert_eq(s.head->magic, SEG_MAGIC);
    cr_assert_eq(at_load(&s.head->state), SEG_RUNNING);
    cr_assert_str_eq(s.head->name, "unit");
    cr_assert_str_eq(s.head->version, "1.2.3");
    cr_assert_str_eq(s.queue[1].name, "second");
    cr_assert_eq(ring_depth(s.free_ring), 128);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), 128);
    cr_assert_eq(arena_bytes_free(&s), s.arena_bytes);
    for (uint32_t q = 0; q < 2; q++)
        for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
            cr_assert_eq(ring_depth(segment_ready_ring(&s, q, pr)), 0);
    segment_unmap(&s);
    cr_assert_null(s.base);
    cr_assert_eq(s.fd, -1);
}

Test(segment, parts_lie_inside_and_apart)
{
    struct segment s;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&s, &p), 0);
    const struct {
        const void *at;
        size_t len;
    } part[] = {{s.head, sizeof *s.head},
                {s.queue, s.queues * sizeof *s.queue},
                {s.participant, s.participants * sizeof *s.participant},
                {s.free_ring, sizeof *s.free_ring + s.ring_cells * 8u},
                {s.ready_rings, s.ring_stride * s.queues * SEG_PRIORITIES},
                {s.slot, s.slots * sizeof *s.slot},
                {s.wide, s.slots * sizeof *s.wide},
                {s.chunk_word, s.chunks * 8u},
                {s.block_word, s.chunks * ARENA_CHUNK_BLOCKS * 8u},
                {s.arena, s.arena_bytes}};
    const uint8_t *end = s.base;
    cr_assert_geq(s.ring_stride, sizeof *s.free_ring + s.ring_cells * 8u);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        cr_assert_geq((const uint8_t *)part[i].at, end, "part %zu", i);
        cr_assert_eq((uintptr_t)part[i].at % HOT_LINE, 0, "part %zu", i);
        end = (const uint8_t *)part[i].at + part[i].len;
    }
    cr_assert_leq(end, s.base + s.bytes);
    segment_unmap(&s);
}

Test(segment, is_sealed_and_two_are_not_the_same)
{
    struct segment a, b;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&a, &p), 0);
    cr_assert_eq(segment_create(&b, &p), 0);
    cr_assert_eq(fcntl(a.fd, F_GET_SEALS) & SEALS, SEALS);
    cr_assert_eq(ftruncate(a.fd, 4096), -1);
    cr_assert_eq(ftruncate(a.fd, (off_t)a.bytes + 4096), -1);
    cr_assert_eq(fcntl(a.fd, F_ADD_SEALS, F_SEAL_WRITE), -1, "nobody can seal us out");
    cr_assert_neq(a.id, b.id);
    cr_assert(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
    segment_unmap(&a);
    segment_unmap(&b);
}

Test(segment, counts_out_of_range_are_refused)
{
    struct segment s;
    struct segment_params p = params();
    p.slots = SEG_SLOTS_MAX + 1;
    cr_assert_lt(segment_create(&s, &p), 0);
    p = params();
    p.queues = 0;
    cr_assert_lt(segment_create(&s, &p), 0);
    p.queues = SEG_QUEUES_MAX + 1;
    cr_assert_lt(segment_create(&s, &p), 0);
    p = params();
    p.participants = 0;
    cr_assert_lt(segment_create(&s, &p), 0);
    p.participants = SEG_PARTICIPANTS_MAX + 1;
    cr_assert_lt(segment_create(&s, &p), 0);
    p = params();
    p.slots = 1;
    p.arena_bytes = 0;
    cr_assert_eq(segment_create(&s, &p), 0);
    cr_assert_eq(s.slots, SEG_SLOTS_MIN);
    cr_assert_eq(s.chunks, 0);
    segment_unmap(&s);
}

Test(segment, mapped_again_it_is_the_same_memory)
{
    struct segment a, b;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&a, &p), 0);
    int fd = dup(a.fd);
    cr_assert_eq(segment_map(&b, fd), 0);
    cr_assert_eq(b.fd, fd, "the descriptor is the mapping's now");
    cr_assert_neq(a.base, b.base);
    cr_assert_eq(a.id, b.id);
    cr_assert_eq(a.bytes, b.bytes);
    cr_assert_eq(a.slots, b.slots);
    cr_assert_eq(a.ns_per_tick, b.ns_per_tick);
    cr_assert_eq((uint8_t *)a.slot - a.base, (uint8_t *)b.slot - b.base);
    cr_assert_eq(a.arena - a.base, b.arena - b.base);
    a.arena[1234] = 77;
    cr_assert_eq(b.arena[1234], 77);
    segment_unmap(&a);
    b.arena[5] = 1; /* lives on without the first */
    segment_unmap(&b);
    cr_assert_eq(fcntl(fd, F_GETFD), -1, "closed");
}

/* A forked child must not keep a mapping that outlives its parent's death. */
Test(segment, a_child_does_not_inherit_it)
{
    struct segment s;
    struct segment_params p = params();
    int status;
    cr_assert_eq(segment_create(&s, &p), 0);
    pid_t pid = fork();
    if (pid == 0) {
        unsigned char in_core;
        _exit(mincore(s.base, 4096, &in_core) < 0 && errno == ENOMEM ? 0 : 1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    segment_unmap(&s);
}

/* ---- what is not mapped ---- */

static void refused(int fd, const char *what)
{
    struct segment s;
    int rc = segment_map(&s, fd);
    cr_assert_eq(rc, -EPROTO, "%s: %d", what, rc);
    cr_assert(strncmp(err_text(rc), "segment: ", 9) == 0, "%s: %s", what, err_text(rc));
    cr_assert_neq(fcntl(fd, F_GETFD), -1, "%s: the descriptor stays the caller's", what);
}

Test(segment, unsealed_and_foreign_descriptors_are_refused)
{
    struct segment s;
    struct segment_params p = params();
    char name[] = "/tmp/unit-segment-XXXXXX";
    int pipes[2], fd;

    /* a true copy, but not sealed */
    cr_assert_eq(segment_create(&s, &p), 0);
    fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, (off_t)s.bytes), 0);
    cr_assert_eq(pwrite(fd, s.base, s.bytes, 0), (ssize_t)s.bytes);
    refused(fd, "unsealed");
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SEAL), 0);
    refused(fd, "can be shrunk");
    close(fd);
    segment_unmap(&s);

    fd = mkstemp(name);
    cr_assert_geq(fd, 0);
    unlink(name);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    refused(fd, "a file");
    close(fd);

    cr_assert_eq(pipe(pipes), 0);
    refused(pipes[0], "a pipe");
    close(pipes[0]);
    close(pipes[1]);

    fd = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    refused(fd, "empty");
    close(fd);

    fd = memfd_create("zero", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, 1 << 21), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    refused(fd, "zeroes");
    close(fd);
}

Test(segment, truncated_and_stretched_copies_are_refused)
{
    struct segment s;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&s, &p), 0);
    const size_t sizes[] = {4096, s.bytes - 4096, s.bytes + 4096, s.bytes * 2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        cr_assert_eq(ftruncate(fd, (off_t)sizes[i]), 0);
        cr_assert_eq(pwrite(fd, s.base, 4096, 0), 4096);
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, SEALS), 0);
        refused(fd, "a copy of another size");
        close(fd);
    }
    segment_unmap(&s);
}

static void can_be_mapped(const struct segment *s, bool can, const char *field, uint64_t value)
{
    struct segment other;
    int fd = dup(s->fd);
    int rc = segment_map(&other, fd);
    if (can) {
        cr_assert_eq(rc, 0, "%s = %llu: %s", field, (unsigned long long)value, err_text(rc));
        segment_unmap(&other);
        return;
    }
    cr_assert_eq(rc, -EPROTO, "%s = %llu: %d", field, (unsigned long long)value, rc);
    close(fd);
}

/* Every number of the header that anything depends on, damaged in every way that could matter. */
#define DAMAGE(s, field)                                                                           \
    do {                                                                                           \
        const uint64_t was = (s)->head->field;                                                     \
        const uint64_t bad[] = {0,                                                                 \
                                1,                                                                 \
                                was - 1,                                                           \
                                was + 1,                                                           \
                                was * 2,                                                           \
                                was / 2,                                                           \
                                was ^ 0x80000000u,                                                 \
                                UINT32_MAX,                                                        \
                                UINT64_MAX,                                                        \
                                (uint64_t)1 << 63};                                                \
        for (size_t i_ = 0; i_ < sizeof bad / sizeof *bad; i_++) {                                 \
            (s)->head->field = (__typeof__((s)->head->field))bad[i_];                              \
            if ((s)->head->field != was)                                                           \
                can_be_mapped(s, false, #field, bad[i_]);                                          \
        }                                                                                          \
        (s)->head->field = (__typeof__((s)->head->field))was;                                      \
        can_be_mapped(s, true, #field, was);                                                       \
    } while (0)

Test(segment, every_damaged_header_field_is_refused)
{
    struct segment s;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&s, &p), 0);
    DAMAGE(&s, magic);
    DAMAGE(&s, layout);
    DAMAGE(&s, header_bytes);
    DAMAGE(&s, total_bytes);
    DAMAGE(&s, slots);
    DAMAGE(&s, ring_cells);
    DAMAGE(&s, off_queues);
    DAMAGE(&s, off_participants);
    DAMAGE(&s, off_free_ring);
    DAMAGE(&s, off_ready_rings);
    DAMAGE(&s, off_slots);
    DAMAGE(&s, off_wides);
    DAMAGE(&s, off_chunk_words);
    DAMAGE(&s, off_block_words);
    DAMAGE(&s, off_arena);
    segment_unmap(&s);
}

/* A count may differ a little and yet give the same offsets (they are rounded to pages): then it is
 * sound. What must not be is a view that reaches outside the file. */
Test(segment, damaged_counts_never_make_a_view_that_reaches_outside)
{
    struct segment s, t;
    struct segment_params p = params();
    cr_assert_eq(segment_create(&s, &p), 0);
    uint32_t *const count[] = {&s.head->queues, &s.head->participants, &s.head->chunks,
                               &s.head->slots, &s.head->ring_cells};
    for (size_t c = 0; c < sizeof count / sizeof *count; c++) {
        const uint32_t was = *count[c];
        const uint32_t bad[] = {0,       1,           was - 1,   was + 1,    was + 100, was * 2,
                                1 << 20, 1048576 + 1, INT32_MAX, UINT32_MAX, 0x80000000};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            int fd = dup(s.fd);
            *count[c] = bad[i];
            if (segment_map(&t, fd) < 0) {
                close(fd);
                continue;
            }
            const uint8_t *end = t.base + t.bytes;
            cr_assert_leq((uint8_t *)(t.queue + t.queues), (uint8_t *)t.participant);
            cr_assert_leq((uint8_t *)(t.participant + t.participants), (uint8_t *)t.free_ring);
            cr_assert_leq((uint8_t *)(t.slot + t.slots), (uint8_t *)t.wide);
            cr_assert_leq((uint8_t *)(t.wide + t.slots), (uint8_t *)t.chunk_word);
            cr_assert_leq((uint8_t *)(t.chunk_word + t.chunks), (uint8_t *)t.block_word);
            cr_assert_leq(t.arena + t.arena_bytes, end);
            segment_unmap(&t);
        }
        *count[c] = was;
    }
    s.head->ticks_hz = 0;
    can_be_mapped(&s, false, "ticks_hz", 0);
    segment_unmap(&s);
}

/* The view keeps its own copies: damage after mapping changes nothing. */
Test(segment, a_view_does_not_look_at_the_header_again)
{
    struct segment s;
    struct segment_params p = params();
    uint32_t slot;
    cr_assert_eq(segment_create(&s, &p), 0);
    memset(s.base, 0xff, offsetof(struct seg_header, state));
    cr_assert_eq(s.slots, 128);
    cr_assert_eq(ring_take(&s, s.free_ring, &slot, 1), 1);
    cr_assert_eq(slot, 0);
    cr_assert_eq(arena_bytes_free(&s), s.arena_bytes);
    segment_unmap(&s);
}

Test(segment, required_huge_pages_name_the_remedy)
{
    struct segment s;
    struct segment_params p = params();
    p.huge = SEGMENT_HUGE_REQUIRE;
    int rc = segment_create(&s, &p);
    if (rc == 0) { /* this machine has some */
        cr_assert(s.huge);
        segment_unmap(&s);
        return;
    }
    cr_assert_eq(rc, -ENOMEM);
    cr_assert(strstr(err_text(rc), "vm.nr_hugepages"), "%s", err_text(rc));
    p.huge = SEGMENT_HUGE_AUTO;
    cr_assert_eq(segment_create(&s, &p), 0);
    segment_unmap(&s);
}

Test(segment, a_numa_node_that_is_not_there_is_refused)
{
    struct segment s;
    struct segment_params p = params();
    p.numa_node = 1000;
    int rc = segment_create(&s, &p);
    cr_assert_eq(rc, -EINVAL);
    cr_assert(strstr(err_text(rc), "1000"), "%s", err_text(rc));
}
