/* SPDX-License-Identifier: MIT
 *
 * fuzz_segment.c - a hostile segment at rest: what a fabricd that adopts it, a program that attaches to
 * it, and a tool that looks at it do with it.
 *
 * A small fabric with tasks in every state is made once (image()). An input writes over it, and a new
 * memfd with the result goes through the real code: segment_map(), the adoption (apps/fabricd/adopt.c
 * with undertaker and check below it), timers, status, a producer and a worker of its own, burials,
 * audit. No crash, no hang, nothing read or written outside (inaccessible pages surround it); and when
 * all is put right, the check must find nothing more.
 *
 * Input: one byte of flags (WRONG_*), then patches: part (enum part), index (2 bytes, little endian),
 * offset in that part's element, length - 1 (low 4 bits), bytes. What is cut off is ignored.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "apps/fabricd/adopt.h"
#include "apps/fabricd/doorman.h"
#include "apps/fabricd/keep.h"
#include "apps/fabricd/notify.h"
#include "core/check.h"
#include "core/error.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/status.h"
#include "core/undertaker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define GUARD    (1u << 20)
#define LARGE    70000u
#define WRONG_SEALS  1u
#define WRONG_SIZE   2u /* one page more */
#define NOT_ADOPTED  4u /* a program attaches; no fabricd looks */
#define NOBODY_WORKS 8u

enum part { HEADER, LIVE_WORDS, QUEUES, PARTICIPANTS, FREE_RING, TIMER_RING, READY_RINGS, SLOTS, WIDES, KEYS, REFS, CHUNKS, BLOCKS, ARENA, GRAVES, PARTS };

/* ---- what adopt.c calls of fabricd, and what is not of the segment ---- */

int doorman_watch(struct doorman *dm, uint32_t participant, uint32_t pid, int pidfd)
{
    (void)dm;
    (void)participant;
    (void)pid;
    return close(pidfd);
}

static void stop(const char *what, const char *which)
{
    fprintf(stderr, "fuzz_segment: %s: %s\n", what, which);
    abort();
}

void daemon_check(struct daemon *d)
{
    struct check_report r;
    (void)segment_check(&d->seg, &d->out, d->me, &r);
}

void daemon_report(const char *who, const char *how, const void *undertaker_report)
{
    (void)who;
    (void)how;
    (void)undertaker_report;
}

int notify_stored(const char *name)
{
    (void)name;
    return -1;
}

void notify_store(const char *name, int fd)
{
    (void)name;
    (void)fd;
}

void notify_forget(const char *name)
{
    (void)name;
}

int keeper_start(struct keeper *k, const char *path, const struct segment *s, int bell, uint64_t ns)
{
    (void)k;
    (void)path;
    (void)s;
    (void)bell;
    (void)ns;
    return 0;
}

int keeper_ask(struct keeper *k, const char *path, struct segment *s, int *bell)
{
    (void)k;
    (void)path;
    (void)s;
    (void)bell;
    return 0;
}

void keeper_done(struct keeper *k)
{
    (void)k;
}

/* ---- the image ---- */

static uint8_t *image;
static size_t image_bytes;
static struct segment made; /* where its parts are */

static fab_t *handle(const struct segment *s, uint32_t roles, const char *client)
{
    struct identity who = {{0}, {0}, ""};
    struct participant_info info = {.pid = INT32_MAX, .roles = roles, .name = "at rest", .identity = client ? &who : NULL};
    uint32_t generation;
    struct local *l = NULL;
    if (client) {
        memcpy(who.client, "0123456789abcdef", 16);
        snprintf(who.text, sizeof who.text, "%s", client);
    }
    int id = participant_add(s, &info, &generation);
    return id >= 0 && local_open(&l, s, (uint32_t)id, generation, -1, -1, -1) == 0 ? &l->base : NULL;
}

static void submit(fab_t *f, uint32_t len, const struct fab_terms *terms, uint32_t priority)
{
    static uint8_t arg[LARGE];
    struct fab_task t = {.kernel = 1, .arg = arg, .len = len, .terms = terms, .priority = (uint8_t)priority, .queue = len > 64, .flags = len == 5};
    fab_id id;
    if (fab_submit(f, &t, 1, &id, 0) != 1)
        stop("the image's task", fab_errmsg());
}

/* Two producers, one of them KEPT, and a worker, all long dead; tasks ready, leased, delayed, done. */
static void populate(const struct segment *s)
{
    static const uint32_t sizes[] = {0, 5, 8, 40, 64, 65, 3000, LARGE};
    struct fab_lease l[8];
    static fab_t *one, *two, *worker; /* never closed: that would take their tasks along */
    struct undertaker_report rep;
    struct wake_out out = {.daemon_fd = -1};
    one = handle(s, FAB_PRODUCER, NULL);
    two = handle(s, FAB_PRODUCER, "kept");
    worker = handle(s, FAB_WORKER, NULL);
    if (!one || !two || !worker)
        stop("the image's participants", fab_errmsg());
    for (unsigned i = 0; i < 8; i++) {
        struct fab_terms terms = {.key = 7 + i, .dedup_ns = 3600000000000u, .limit_ns = 1000000000, .expire_ns = 10000000000000u,
                                  .delay_ns = i % 2 ? 3600000000000u : 0, .retries = 2};
        submit(i % 2 ? one : two, sizes[i], NULL, i % 4);
        submit(i % 2 ? two : one, sizes[i % 7], i % 3 ? NULL : &terms, i % 4);
    }
    for (uint32_t q = 0; q < 2; q++) {
        long n = fab_claim(worker, q, l, 4, 0);
        for (long i = 0; i < n; i++) {
            static uint8_t res[200];
            int rc = i == 0 ? fab_complete(worker, &l[i], res, 200) : i == 1 ? fab_complete(worker, &l[i], res, 30) : i == 2 ? fab_fail(worker, &l[i], "an error of some length") : 0;
            if (rc < 0)
                stop("the image's lease", fab_errmsg());
        }
    }
    at_store(&s->participant[((struct local *)two)->me].identity.keep_until_ns, clock_ns() + 3600000000000u);
    undertaker_keep(s, &out, 0, ((struct local *)two)->me, true, clock_ns() + 3600000000000u, &rep);
    at_store(&s->head->daemon_pid, (uint32_t)INT32_MAX - 1);
}

static void make_image(void)
{
    const char *queues[] = {"one", "two"};
    struct segment_params p = {.name = "at rest", .version = "0", .slots = 64, .participants = 8, .arena_bytes = 8 * ARENA_CHUNK,
                               .dedup_keys = 64, .producer_share = 48, .dead_letters = 8, .queues = 2, .queue_names = queues, .huge = SEGMENT_HUGE_NEVER,
                               .numa_node = -1};
    struct participant_info self = {.pid = INT32_MAX - 1, .roles = FAB_TOOL, .name = "fabricd"};
    uint32_t generation;
    if (segment_create(&made, &p) < 0 || participant_add(&made, &self, &generation) != 0)
        stop("the image", fab_errmsg());
    populate(&made);
    image_bytes = made.bytes;
    image = malloc(image_bytes);
    if (!image)
        stop("the image", "no memory");
    memcpy(image, made.base, image_bytes);
}

/* ---- the input ---- */

static uint64_t place(enum part part, uint32_t index, uint32_t offset)
{
    const struct segment *s = &made;
    const struct {
        const void *at;
        size_t stride, n;
    } parts[PARTS] = {
        [HEADER] = {s->base, 8, 256 / 8},
        [LIVE_WORDS] = {(const void *)&s->head->state, 128, 8},
        [QUEUES] = {s->queue, sizeof *s->queue, s->queues},
        [PARTICIPANTS] = {s->participant, sizeof *s->participant, s->participants},
        [FREE_RING] = {s->free_ring, 8, s->ring_stride / 8},
        [TIMER_RING] = {s->timer_ring, 8, s->ring_stride / 8},
        [READY_RINGS] = {s->ready_rings, 8, s->ring_stride / 8 * s->queues * SEG_PRIORITIES},
        [SLOTS] = {s->slot, sizeof *s->slot, s->slots},
        [WIDES] = {s->wide, sizeof *s->wide, s->slots},
        [KEYS] = {s->key, sizeof *s->key, s->dedup_keys},
        [REFS] = {s->ref, 8, s->slots},
        [CHUNKS] = {(const void *)s->chunk_word, 8, s->chunks},
        [BLOCKS] = {(const void *)s->block_word, 8, s->chunks * ARENA_CHUNK_BLOCKS},
        [ARENA] = {s->arena, 64, s->arena_bytes / 64},
        [GRAVES] = {s->grave, sizeof *s->grave, s->slots},
    };
    return (uint64_t)((const uint8_t *)parts[part].at - s->base) + index % parts[part].n * parts[part].stride + offset % parts[part].stride;
}

/* Only what is not zero is written: most of it is. */
static void put_image(uint8_t *to)
{
    static const uint8_t zero[4096];
    for (size_t at = 0; at + 4096 <= image_bytes; at += 4096)
        if (memcmp(image + at, zero, 4096) != 0)
            memcpy(to + at, image + at, 4096);
}

static int hostile(const uint8_t *data, size_t size)
{
    size_t bytes = image_bytes + (data[0] & WRONG_SIZE ? 4096 : 0);
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        stop("the memfd", "can't be made");
    uint8_t *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (to == MAP_FAILED)
        stop("the memfd", "can't be mapped");
    put_image(to);
    for (size_t i = 1; i + 5 < size;) {
        uint64_t at = place((enum part)(data[i] % PARTS), data[i + 1] | (uint32_t)data[i + 2] << 8, data[i + 3] * (data[i] >= 128 ? 64u : 1u));
        size_t n = (data[i + 4] & 15) + 1u;
        for (i += 5; n > 0 && i < size; n--)
            to[at++] = data[i++];
    }
    munmap(to, bytes);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | (data[0] & WRONG_SEALS ? 0 : F_SEAL_SEAL)) < 0)
        stop("the memfd", "can't be sealed");
    return fd;
}

/* ---- what is done with it ---- */

static void guard(struct segment *s, void *at[2])
{
    at[0] = mmap(s->base - GUARD, GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    at[1] = mmap(s->base + s->bytes, GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void look_in(const struct segment *s)
{
    char *text = NULL;
    if (status_json(s, &text) == 0)
        free(text);
}

static void read_all(const void *p, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        (void)((const volatile uint8_t *)p)[i];
}

static void use(fab_t *f)
{
    static uint8_t arg[LARGE];
    static const uint32_t sizes[] = {8, 60, 2000, LARGE};
    struct fab_lease l[8];
    struct fab_outcome o[8];
    struct fab_terms terms = {.key = 7, .dedup_ns = 1000};
    long n;
    for (uint32_t i = 0; i < 4; i++) {
        struct fab_task t = {.kernel = 1, .arg = arg, .len = sizes[i], .priority = (uint8_t)i, .queue = i % 2, .terms = i == 1 ? &terms : NULL};
        fab_id id = 0;
        if (fab_submit(f, &t, 1, &id, 0) == 1 && i == 2)
            (void)!fab_cancel(f, id);
    }
    for (uint32_t q = 0; q < 2; q++)
        for (int round = 0; round < 4 && (n = fab_claim(f, q, l, 8, 0)) > 0; round++)
            for (long i = 0; i < n; i++) {
                read_all(fab_arg(&l[i]), l[i].len);
                if (i % 4 == 3)
                    (void)!fab_release(f, &l[i]);
                else if (i % 4 == 2)
                    (void)!fab_fail(f, &l[i], "an error of some length");
                else
                    (void)!fab_complete(f, &l[i], arg, sizes[i % 4]);
            }
    for (int round = 0; round < 4 && (n = fab_wait_any(f, o, 8, 0)) > 0; round++)
        for (long i = 0; i < n; i++)
            read_all(fab_data(&o[i]), o[i].len);
}

/* The entry that the image has KEPT, taken up, and a new one. */
static void work(struct daemon *d)
{
    struct participant_info info = {.pid = (uint32_t)getpid(), .roles = FAB_PRODUCER | FAB_WORKER, .name = "new"};
    uint32_t generation;
    struct local *l;
    int kept = kept_first(&d->seg);
    int id = kept >= 0 ? kept : participant_add(&d->seg, &info, &generation);
    if (kept >= 0)
        participant_take_up(&d->seg, (uint32_t)kept, &info, &generation);
    if (id < 0 || local_open(&l, &d->seg, (uint32_t)id, generation, d->out.daemon_fd, -1, -1) < 0)
        return;
    if (kept >= 0)
        (void)!local_take_up(l);
    use(&l->base);
    timers_scan(&d->timers, &d->seg);
    (void)timers_run(&d->timers, &d->seg, &d->out, d->me);
    fab_close(&l->base);
    if (participant_life(at_load(&d->seg.participant[id].life)) != LIFE_FREE) {
        struct undertaker_report rep;
        undertaker_recover(&d->seg, &d->out, d->me, (uint32_t)id, true, &rep);
    }
}

/* Everybody is buried; what is wrong then is put right for good. */
static void bury_all(struct daemon *d)
{
    struct undertaker_report rep;
    struct check_report r;
    for (uint32_t i = 0; i < d->seg.participants; i++)
        if (i != d->me && d->seg.living[i] != LIVING_NOT)
            undertaker_recover(&d->seg, &d->out, d->me, i, true, &rep);
    memset(&rep, 0, sizeof rep);
    undertaker_audit(&d->seg, &d->out, &rep);
    (void)segment_check(&d->seg, &d->out, d->me, &r);
    (void)segment_check(&d->seg, &d->out, d->me, &r);
    if (segment_check(&d->seg, &d->out, d->me, &r) > 0)
        stop("after all repairs there still is", r.first);
}

static void attach(const struct segment *s)
{
    struct local *l;
    look_in(s);
    if (local_open(&l, s, 1, 1, -1, -1, -1) == 0) {
        (void)!local_take_up(l);
        use(&l->base);
        fab_close(&l->base);
    }
}

static void adopt(struct daemon *d)
{
    int rc = segment_host(&d->seg);
    if (rc == 0)
        rc = adopt_participants(d);
    if (rc < 0)
        return; /* a full table, no memory: fabricd says so and ends */
    look_in(&d->seg);
    timers_scan(&d->timers, &d->seg);
    (void)timers_run(&d->timers, &d->seg, &d->out, d->me);
    keep_tick(d, clock_ns());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct conf conf = {.slots = 64, .participants = 8, .queues = 2, .keep_results_ns = 1000000000};
    struct daemon d = {.conf = &conf, .adopted = true};
    void *at[2];
    if (size == 0 || size > 1 << 16)
        return 0;
    if (!image) {
        log_open("fuzz_segment", LOG_ERR);
        make_image();
    }
    int fd = hostile(data, size);
    if (segment_map(&d.seg, fd) < 0) {
        close(fd);
        return 0;
    }
    guard(&d.seg, at);
    d.out.daemon_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (data[0] & NOT_ADOPTED) {
        attach(&d.seg);
    } else {
        adopt(&d);
        if (d.seg.living && !(data[0] & NOBODY_WORKS))
            work(&d);
        if (d.seg.living)
            bury_all(&d);
    }
    timers_free(&d.timers);
    close(d.out.daemon_fd);
    segment_unmap(&d.seg);
    for (int i = 0; i < 2; i++)
        if (at[i] != MAP_FAILED)
            munmap(at[i], GUARD);
    return 0;
}
