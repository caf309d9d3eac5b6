/* SPDX-License-Identifier: MIT
 *
 * test_topology.c - core lists, the affinity of threads, NUMA nodes as the kernel tells them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/error.h"
#include "core/topology.h"

/* ---- lists ---- */

static void reads(const char *text, const char *as)
{
    struct cores c;
    char buf[8192];
    int rc = topo_parse(text, &c);
    cr_assert_eq(rc, 0, "%s: %s", text, err_text(rc));
    cr_assert_str_eq(topo_format(&c, buf, sizeof buf), as, "%s was read as %s", text, buf);
    for (int i = 1; i < c.n; i++)
        cr_assert_gt(c.core[i], c.core[i - 1]);
}

Test(list, accepted)
{
    reads("3", "3");
    reads("0", "0");
    reads("0-7", "0-7");
    reads("0,2,4-6", "0,2,4-6");
    reads("6,4,5,2,0", "0,2,4-6");
    reads("1,1,1-1,0-2", "0-2");
    reads("0-3,2-5,4", "0-5");
    reads("5,4", "4-5");
    reads("1023", "1023");
    reads("0-1023", "0-1023");
    reads("007", "7");
}

Test(list, refused)
{
    static const struct {
        const char *text, *why;
    } bad[] = {{"", "missing"},
               {",", "expected"},
               {"1,", "missing"},
               {",1", "expected"},
               {"1,,2", "expected"},
               {"1-", "missing"},
               {"-1", "expected"},
               {"1-2-3", "comma"},
               {"1--2", "expected"},
               {"7-3", "backwards"},
               {"1024", "1023"},
               {"0-1024", "1023"},
               {"99999999999999999999", "1023"},
               {"4294967296", "1023"},
               {"x", "expected"},
               {"1x", "comma"},
               {"1 2", "comma"},
               {" 1", "expected"},
               {"1 ", "comma"},
               {"0, 1", "expected"},
               {"0x1", "comma"},
               {"1.5", "comma"},
               {"ALL", "expected"},
               {"all,1", "expected"},
               {"+1", "expected"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cores c;
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", bad[i].text);
        err_set(-EIO, "old");
        cr_assert_eq(topo_parse(bad[i].text, &c), -EINVAL, "%s was accepted", quoted);
        const char *message = err_text(-EINVAL);
        cr_assert_not_null(strstr(message, quoted), "%s: %s", quoted, message);
        cr_assert_not_null(strstr(message, bad[i].why), "%s: %s", quoted, message);
    }
}

static struct cores list(const char *text)
{
    struct cores c = {.n = 0};
    if (*text) {
        int rc = topo_parse(text, &c);
        cr_assert_eq(rc, 0, "%s", err_text(rc));
    }
    return c;
}

static void splits(const char *wanted, const char *allowed, const char *usable, const char *missing)
{
    struct cores w = list(wanted), a = list(allowed), u, m;
    char buf[128];
    topo_split(&w, &a, &u, &m);
    cr_assert_str_eq(topo_format(&u, buf, sizeof buf), usable, "usable of %s: %s", wanted, buf);
    cr_assert_str_eq(topo_format(&m, buf, sizeof buf), missing, "missing of %s: %s", wanted, buf);
}

Test(list, split)
{
    splits("0-3", "0-3", "0-3", "");
    splits("0-3", "1-2", "1-2", "0,3");
    splits("0-3", "", "", "0-3");
    splits("", "0-3", "", "");
    splits("0,2,4", "1,3,5", "", "0,2,4");
    splits("5-9,20", "0-6,9,30", "5-6,9", "7-8,20");
}

Test(list, formatted_into_little_room)
{
    struct cores c = list("0-3,10,12,100-200");
    char buf[64];
    for (size_t cap = 1; cap < sizeof buf; cap++) {
        memset(buf, '#', sizeof buf);
        cr_assert_eq(topo_format(&c, buf, cap), buf);
        size_t len = strlen(buf);
        cr_assert_lt(len, cap);
        cr_assert_eq(buf[cap], '#', "written past the end of %zu bytes", cap);
        if (cap > strlen("0-3,10,12,100-200"))
            cr_assert_str_eq(buf, "0-3,10,12,100-200");
        else if (cap > strlen("..."))
            cr_assert_str_eq(buf + len - 3, "...", "%zu: %s", cap, buf);
        else
            cr_assert_str_eq(buf, "");
    }
    buf[0] = '#';
    topo_format(&c, buf, 0);
    cr_assert_eq(buf[0], '#');
    topo_format(&c, buf, strlen("0-3,...") + 1);
    cr_assert_str_eq(buf, "0-3...", "numbers are left out whole");
}

/* ---- affinity ---- */

Test(affinity, allowed_is_the_kernels_mask)
{
    struct cores c, all;
    cpu_set_t set;
    cr_assert_eq(topo_allowed(&c), 0);
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_assert_eq(c.n, CPU_COUNT(&set));
    for (int i = 0; i < c.n; i++)
        cr_assert(CPU_ISSET((size_t)c.core[i], &set));
    cr_assert_eq(topo_parse("all", &all), 0);
    cr_assert_eq(all.n, c.n);
    cr_assert_eq(memcmp(all.core, c.core, sizeof c.core[0] * (size_t)c.n), 0);
}

static void *pin_to(void *arg)
{
    int core = *(int *)arg;
    struct cores now;
    int rc = topo_pin(core);
    if (rc == 0)
        rc = topo_allowed(&now);
    bool fine = rc == 0 && now.n == 1 && now.core[0] == core && sched_getcpu() == core;
    return fine ? arg : NULL;
}

Test(affinity, pins_the_calling_thread_alone)
{
    struct cores before, after;
    cr_assert_eq(topo_allowed(&before), 0);
    for (int i = 0; i < before.n; i++) {
        pthread_t t;
        void *fine;
        cr_assert_eq(pthread_create(&t, NULL, pin_to, &before.core[i]), 0);
        pthread_join(t, &fine);
        cr_assert_not_null(fine, "core %d", before.core[i]);
    }
    cr_assert_eq(topo_allowed(&after), 0);
    cr_assert_eq(after.n, before.n);
}

Test(affinity, cores_that_are_not_there)
{
    static const int bad[] = {-1, TOPO_CORES_MAX, 1 << 30};
    for (int i = 0; i < 3; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", bad[i]);
        cr_assert_eq(topo_pin(bad[i]), -EINVAL);
        cr_assert_not_null(strstr(err_text(-EINVAL), number), "%s", err_text(-EINVAL));
    }
    if (sysconf(_SC_NPROCESSORS_CONF) < TOPO_CORES_MAX) {
        cr_assert_eq(topo_pin(TOPO_CORES_MAX - 1), -EINVAL);
        cr_assert_not_null(strstr(err_text(-EINVAL), "core 1023"), "%s", err_text(-EINVAL));
    }
}

/* ---- nodes ---- */

/* The core's node by sysfs, 0 when it tells none. */
static int sysfs_node(int core)
{
    for (int node = 0; node < 1024; node++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/node%d", core, node);
        if (access(path, F_OK) == 0)
            return node;
    }
    return 0;
}

static void *ask_nodes(void *arg)
{
    const struct cores *c = arg;
    for (int i = 0; i < c->n; i++)
        if (topo_node_of(c->core[i]) != sysfs_node(c->core[i]))
            return NULL;
    return arg;
}

Test(nodes, as_the_kernel_tells_them_to_many_threads)
{
    struct cores c;
    pthread_t t[4];
    void *fine;
    cr_assert_eq(topo_allowed(&c), 0);
    cr_assert_geq(topo_nodes(), 1);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, ask_nodes, &c), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &fine);
        cr_assert_not_null(fine);
    }
    for (int i = 0; i < c.n; i++)
        cr_assert_lt(topo_node_of(c.core[i]), topo_nodes());
    cr_assert_eq(topo_node_of(-1), 0);
    cr_assert_eq(topo_node_of(1 << 30), 0);
}

Test(nodes, memory_of_a_cores_node)
{
    struct cores c;
    size_t len = 1 << 20;
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    cr_assert_eq(topo_allowed(&c), 0);
    int node = topo_node_of(c.core[0]);
    int rc = topo_bind(p, len, node);
    cr_assert_eq(rc, 0, "%s", err_text(rc));
    memset(p, 1, len);
    rc = topo_prefer(node);
    cr_assert_eq(rc, 0, "%s", err_text(rc));
    munmap(p, len);
}

Test(nodes, nodes_that_are_not_there)
{
    static char page[4096] __attribute__((aligned(4096)));
    int bad[] = {-1, topo_nodes(), 1 << 30};
    for (int i = 0; i < 3; i++) {
        char number[16];
        snprintf(number, sizeof number, "node %d", bad[i]);
        cr_assert_eq(topo_bind(page, sizeof page, bad[i]), -EINVAL);
        cr_assert_not_null(strstr(err_text(-EINVAL), number), "%s", err_text(-EINVAL));
        err_set(-EIO, "old");
        cr_assert_eq(topo_prefer(bad[i]), -EINVAL);
        cr_assert_not_null(strstr(err_text(-EINVAL), number), "%s", err_text(-EINVAL));
    }
}
