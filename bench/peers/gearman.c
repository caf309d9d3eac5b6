/* SPDX-License-Identifier: MIT
 *
 * gearman.c - Gearman: foreground jobs by libgearman. A batch is a set of tasks that the client
 * runs together; the next one follows when all are answered, as the library has it.
 */
#include <libgearman/gearman.h>
#include <stdlib.h>
#include <string.h>
#include "bench/peers/peer.h"

struct gearman {
    gearman_client_st *client;
    gearman_worker_st *worker;
    int64_t arg[PEER_BATCH_MAX];
    uint64_t answer[PEER_BATCH_MAX];
    unsigned n;
    char function[64];
};

/* A task's context is where its answer goes. */
static gearman_return_t completed(gearman_task_st *t)
{
    if (gearman_task_data_size(t) != 8)
        peer_die("gearman: an answer of %zu bytes", gearman_task_data_size(t));
    memcpy(gearman_task_context(t), gearman_task_data(t), 8);
    return GEARMAN_SUCCESS;
}

/* The library frees the answer. */
static void *run_job(gearman_job_st *job, void *context, size_t *size, gearman_return_t *rc)
{
    int64_t arg;
    uint64_t *answer = malloc(sizeof *answer);
    (void)context;
    if (!answer || gearman_job_workload_size(job) != sizeof arg)
        peer_die("gearman: a task of %zu bytes", gearman_job_workload_size(job));
    memcpy(&arg, gearman_job_workload(job), sizeof arg);
    *answer = peer_feb(arg);
    *size = sizeof *answer;
    *rc = GEARMAN_SUCCESS;
    return answer;
}

static void *g_open(struct peer_run *r, bool worker)
{
    struct gearman *g = calloc(1, sizeof *g);
    const char *port = strrchr(r->address, ':');
    in_port_t number = (in_port_t)(port ? atoi(port + 1) : 0);
    gearman_return_t rc;
    if (!g)
        peer_die("no memory");
    strcpy(g->function, "feb-");
    strcat(g->function, r->name);
    if (worker) {
        g->worker = gearman_worker_create(NULL);
        rc = gearman_worker_add_server(g->worker, "127.0.0.1", number);
        if (rc == GEARMAN_SUCCESS)
            rc = gearman_worker_add_function(g->worker, g->function, 0, run_job, NULL);
    } else {
        g->client = gearman_client_create(NULL);
        rc = gearman_client_add_server(g->client, "127.0.0.1", number);
        gearman_client_set_complete_fn(g->client, completed);
    }
    if (rc != GEARMAN_SUCCESS)
        peer_die("gearman: %s", gearman_strerror(rc));
    return g;
}

static void g_close(void *p)
{
    struct gearman *g = p;
    gearman_client_free(g->client);
    free(g);
}

static void g_send(void *p, const int64_t *arg, unsigned n)
{
    struct gearman *g = p;
    for (unsigned i = 0; i < n; i++) {
        gearman_return_t rc;
        unsigned k = g->n++;
        g->arg[k] = arg[i];
        g->answer[k] = UINT64_MAX;
        gearman_client_add_task(g->client, NULL, &g->answer[k], g->function, NULL, &g->arg[k], 8,
                                &rc);
        if (rc != GEARMAN_SUCCESS)
            peer_die("gearman: %s", gearman_client_error(g->client));
    }
}

static unsigned g_take(void *p, uint64_t *answer, unsigned max)
{
    struct gearman *g = p;
    unsigned n = g->n;
    if (n > max)
        peer_die("gearman: all answers come together");
    if (gearman_client_run_tasks(g->client) != GEARMAN_SUCCESS)
        peer_die("gearman: %s", gearman_client_error(g->client));
    gearman_client_task_free_all(g->client);
    memcpy(answer, g->answer, n * sizeof *answer);
    g->n = 0;
    return n;
}

static void g_work(void *p)
{
    struct gearman *g = p;
    for (;;)
        if (gearman_worker_work(g->worker) != GEARMAN_SUCCESS)
            peer_die("gearman: the worker: %s", gearman_worker_error(g->worker));
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_step steps[] = {{8, 8}, {64, 64}, {256, 256}, {0, 0}};
    static const struct peer_ops ops = {.open = g_open,
                                        .close = g_close,
                                        .send = g_send,
                                        .take = g_take,
                                        .work = g_work,
                                        .step = steps};
    return strcmp(mode, "jobs") == 0 ? &ops : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
