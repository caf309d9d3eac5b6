/* SPDX-License-Identifier: MIT
 *
 * ofi_load.c - libfabric, loaded when it is first needed.
 *
 * Only five functions of libfabric are called by name, everything else goes through the tables in its
 * objects. The five are defined here and forwarded. Why not link with it: of the libraries that it
 * brings along, libinfinipath measures the processor's clock for 200 ms when it is loaded, and its
 * first fi_getinfo() reads /proc/kallsyms for 100 ms, in every program, whether it has a link or
 * not. `fabctl status` took 210 ms so, and takes 6 ms now; a new fabricd lets local participants in
 * before its remote side is ready.
 *
 * The versions asked for are those that the headers of libfabric 1.17 bind to: later libraries keep
 * them.
 *
 * Threads: any; the first loads, the others wait. Never unloaded: its threads and handlers would
 * remain. Failure: ofi_load() says what is missing; the forwarders fail as if there were no
 * provider.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "core/error.h"
#include "transport/ofi_load.h"

#define LIBRARY "libfabric.so.1"

typedef int getinfo_fn(uint32_t version, const char *node, const char *service, uint64_t flags,
                       const struct fi_info *hints, struct fi_info **info);

static struct {
    getinfo_fn *getinfo;
    void (*freeinfo)(struct fi_info *info);
    struct fi_info *(*dupinfo)(const struct fi_info *info);
    int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
    const char *(*strerror)(int errnum);
} lib;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char why[200]; /* "": loaded */

static void *find(void *handle, const char *name, const char *version)
{
    void *p = dlvsym(handle, name, version);
    if (!p && !why[0])
        snprintf(why, sizeof why, "%s has no %s@%s", LIBRARY, name, version);
    return p;
}

static void load(void)
{
    void *h = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!h) {
        snprintf(why, sizeof why, "%s", dlerror());
        return;
    }
    /* by way of unsigned long: ISO C has no conversion from data to functions */
    lib.getinfo = (getinfo_fn *)(unsigned long)find(h, "fi_getinfo", "FABRIC_1.3");
    lib.freeinfo = (void (*)(struct fi_info *))(unsigned long)find(h, "fi_freeinfo", "FABRIC_1.3");
    lib.dupinfo = (struct fi_info * (*)(const struct fi_info *))(unsigned long)
        find(h, "fi_dupinfo", "FABRIC_1.3");
    lib.fabric = (int (*)(struct fi_fabric_attr *, struct fid_fabric **, void *))(unsigned long)
        find(h, "fi_fabric", "FABRIC_1.1");
    lib.strerror = (const char *(*)(int))(unsigned long)find(h, "fi_strerror", "FABRIC_1.0");
}

static bool loaded(void)
{
    return pthread_once(&once, load) == 0 && !why[0];
}

int ofi_load(void)
{
    return loaded() ? 0
                    : err_set(-ENODEV, "remote links need libfabric (apt-get install libfabric1): %s",
                              why);
}

void ofi_warm(void)
{
    struct fi_info *info = NULL;
    if (loaded() && fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, NULL, &info) == 0)
        fi_freeinfo(info);
}

/* ---- the five ---- */

int fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
               const struct fi_info *hints, struct fi_info **info)
{
    return loaded() ? lib.getinfo(version, node, service, flags, hints, info) : -FI_ENOSYS;
}

void fi_freeinfo(struct fi_info *info)
{
    if (loaded())
        lib.freeinfo(info);
}

struct fi_info *fi_dupinfo(const struct fi_info *info)
{
    return loaded() ? lib.dupinfo(info) : NULL;
}

int fi_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context)
{
    return loaded() ? lib.fabric(attr, fabric, context) : -FI_ENOSYS;
}

const char *fi_strerror(int errnum)
{
    return loaded() ? lib.strerror(errnum) : strerror(errnum);
}
