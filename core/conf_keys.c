/* SPDX-License-Identifier: MIT
 *
 * conf_keys.c - every configuration key: where it goes, what it may be, and what is said about it.
 *
 * Threads: constants and functions without state. Nothing here fails but by its return value.
 * Invariant: a fallback is a value that the table itself permits (conf_defaults reads it like a
 * file's), and says so in its documentation.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "core/conf.h"
#include "core/conf_keys.h"
#include "core/log.h"

#define SECOND 1000000000ll

_Static_assert(LOG_ERR == 0 && LOG_WARN == 1 && LOG_INFO == 2 && LOG_DEBUG == 3,
               "levels[] has their order");
static const char *const levels[] = {"error", "warning", "info", "debug", NULL};
static const char *const huges[] = {"auto", "never", "require", NULL};
static const char *const providers[] = {"auto", "tcp", "verbs", NULL};
static const char *const securities[] = {"authenticated", "encrypted", NULL};
static const char *const lanes[] = {"auto", "write", "send", NULL};
static const char *const polls[] = {"adaptive", "busy", "event", NULL};

#define AT(f)                   .offset = offsetof(struct conf, f)
#define TEXT(f)                 AT(f), .cap = sizeof(((struct conf *)0)->f)
#define STRING(f)               T_STRING, TEXT(f)
#define ENUM(f, w)              T_ENUM, AT(f), .words = w
#define NUMBER(type, f, lo, hi) type, AT(f), .min = lo, .max = hi
#define DEFAULT(text, about)    .fallback = text, .doc = about

const struct conf_key conf_keys[] = {
    {"node", "name", STRING(name),
     DEFAULT("\"\"", "The fabric's name, for people. \"\": the host's name.")},
    {"node", "runtime_dir", STRING(runtime_dir),
     DEFAULT(
         "\"\"",
         "Where the socket is made. \"\": $FABRIC_RUNTIME_DIR, else $RUNTIME_DIRECTORY, else\n"
         "/run/taskfabric for root, else $XDG_RUNTIME_DIR/taskfabric, else /tmp/taskfabric-UID.")},
    {"node", "state_dir", STRING(state_dir),
     DEFAULT("\"\"",
             "Where the authkey is kept. \"\": $FABRIC_STATE_DIR, else $STATE_DIRECTORY, else\n"
             "/var/lib/taskfabric for root, else $XDG_STATE_HOME/taskfabric, else\n"
             "$HOME/.local/state/taskfabric.")},
    {"node", "log_level", ENUM(log_level, levels),
     DEFAULT("\"info\"", "What is said on stderr: \"error\", \"warning\", \"info\" or \"debug\".")},

    {"segment", "slots", NUMBER(T_POW2, slots, 64, 16777216),
     DEFAULT("65536",
             "Tasks that the fabric can hold at once (64 to 16777216, rounded up to a power of\n"
             "two). A full fabric makes producers wait.")},
    {"segment", "arena", NUMBER(T_SIZE, arena_bytes, 0, 64ll << 30), .step = 64 << 10,
     DEFAULT(
         "\"64MiB\"",
         "Memory for arguments and results too large for a slot (0 to \"64GiB\", a multiple of\n"
         "\"64KiB\"). 0: small tasks only.")},
    {"segment", "participants", NUMBER(T_U32, participants, 8, 16384),
     DEFAULT("256", "Handles that can be open at once, remote ones included (8 to 16384).")},
    {"segment", "huge_pages", ENUM(huge_pages, huges),
     DEFAULT(
         "\"auto\"",
         "\"auto\" takes huge pages where there are any (vm.nr_hugepages), \"never\" takes none,\n"
         "\"require\" does not start without them.")},
    {"segment", "numa_node", NUMBER(T_INT, numa_node, -1, 1023),
     DEFAULT("-1", "The NUMA node that holds the segment (0 to 1023). -1: any.")},
    {"segment", "keep", NUMBER(T_DURATION, keep_ns, 0, 86400 * SECOND),
     DEFAULT(
         "\"60s\"",
         "How long the segment, with all tasks, waits for a new fabricd when this one is killed\n"
         "(\"0s\" to \"86400s\"); local work goes on meanwhile. \"0s\": it does not wait.")},
    {"segment", "keep_results", NUMBER(T_DURATION, keep_results_ns, 0, 86400 * SECOND),
     DEFAULT(
         "\"60s\"",
         "How long the tasks and results of a producer that has vanished are kept for one with "
         "the\n"
         "same client id, and those of a remote producer for its new link (\"0s\" to \"86400s\").\n"
         "\"0s\": they are not.")},

    {"segment", "producer_share", NUMBER(T_SHARE, producer_share, 1, 16777216),
     DEFAULT(
         "\"75%\"",
         "The part of the slots (\"1%\" to \"100%\", or a number of slots) that one producer's "
         "tasks\n"
         "may take, from submit until their outcomes are taken, and the part of the arena that\n"
         "their arguments may. So one that floods the fabric leaves the others room.")},
    {"segment", "dedup_keys", NUMBER(T_U32, dedup_keys, 0, 16777216),
     DEFAULT("65536",
             "Deduplication keys that can be remembered at once (64 to 16777216, rounded up to a\n"
             "power of two; 24 bytes each). 0: tasks with a key are refused.")},
    {"segment", "dead_letters", NUMBER(T_U32, dead_letters, 0, 8388607),
     DEFAULT(
         "1024",
         "Tasks that ended badly and that nobody saw to are kept in their slots, to be looked at\n"
         "and started again (fabctl dead): at most so many (0 to 8388607, and always less than\n"
         "half of the slots). 0: none are kept.")},

    {"listen", "socket", STRING(socket),
     DEFAULT("\"\"",
             "The UNIX socket for local programs. \"\": fabricd.sock in node.runtime_dir.")},
    {"listen", "socket_mode", T_MODE, AT(socket_mode), .max = 0777,
     DEFAULT("\"0600\"",
             "Its permissions, octal. Who may write to it may submit, run and see every task.")},
    {"listen", "address", T_ADDRESS, AT(address), .cap = sizeof(((struct conf *)0)->address[0]),
     DEFAULT(
         "\"127.0.0.1:50000\"",
         "Where remote peers connect: \"HOST:PORT\", or \"[ADDRESS]:PORT\" for IPv6; "
         "\"0.0.0.0:50000\"\n"
         "is every IPv4 address of this host, \"[::]:50000\" every address of both families, and "
         "port\n"
         "0 any free port. A name is all addresses that it has. Several addresses, up to 8, are a\n"
         "list: [\"10.0.0.1:50000\", \"[fd00::1]:50000\"]. \"\": no remote peers.")},
    {"listen", "data_port", NUMBER(T_U32, data_port, 0, 65535),
     DEFAULT("0", "The port of their data connections, for firewalls (1 to 65535), at each of the "
                  "addresses.\n"
                  "0: any free port, one an address.")},

    {"auth", "key_file", STRING(key_file),
     DEFAULT("\"\"",
             "The key that remote peers must know; made on the first start. \"\": authkey in\n"
             "node.state_dir. Copy it to the hosts that may join.")},
    {"auth", "security", ENUM(security, securities),
     DEFAULT(
         "\"authenticated\"",
         "What remote peers must do beyond proving the key: \"authenticated\" (nothing: who can\n"
         "listen on the wire reads tasks and results, who can change what is on it can change\n"
         "them) or \"encrypted\" (all that follows the proof, both ways; fabric.lane must not be\n"
         "\"write\"). A client may ask for it in either case: FABRIC_SECURITY=encrypted.")},
    {"auth", "handshake_timeout",
     NUMBER(T_DURATION, handshake_timeout_ns, SECOND / 10, 60 * SECOND),
     DEFAULT("\"5s\"",
             "How long a peer may take to prove that it knows the key (\"100ms\" to \"60s\").")},

    {"fabric", "provider", ENUM(provider, providers),
     DEFAULT("\"auto\"", "libfabric's provider for data connections: \"tcp\", \"verbs\", or "
                         "\"auto\": tcp, and verbs\n"
                         "where there is a device.")},
    {"fabric", "domain", STRING(domain),
     DEFAULT("\"\"", "libfabric's domain, as fi_info shows it: the RDMA device (\"mlx5_0\", "
                     "\"rxe0\"); with provider\n"
                     "\"tcp\" the network interface. \"\": the one that has listen.address, which "
                     "is also what\n"
                     "chooses a device's port and GID.")},
    {"fabric", "inline", NUMBER(T_SIZE, inline_bytes, 0, 4096),
     DEFAULT(
         "0",
         "Bytes of a batch that verbs may copy into the request itself (16 to 4096; for peers:\n"
         "$FI_VERBS_INLINE_SIZE). Such batches need no completion. 0: libfabric's choice, 256, or\n"
         "what the device can.")},
    {"fabric", "lane", ENUM(lane, lanes),
     DEFAULT(
         "\"auto\"",
         "How batches of tasks move: \"write\" (one-sided), \"send\" (into posted buffers), or\n"
         "\"auto\": what is faster with the provider.")},
    {"fabric", "lane_cell", NUMBER(T_SIZE, lane_cell, 1 << 10, 1 << 20), .step = 64,
     DEFAULT("\"32KiB\"", "The largest batch (\"1KiB\" to \"1MiB\", a multiple of 64 bytes).")},
    {"fabric", "lane_cells", NUMBER(T_POW2, lane_cells, 2, 256),
     DEFAULT("8",
             "Batches on their way at once in each direction (2 to 256, rounded up to a power of\n"
             "two).")},
    {"fabric", "lease_window", NUMBER(T_U32, lease_window, 1, 65536),
     DEFAULT("4096", "Most tasks that a thread of a remote worker may hold (1 to 65536).")},
    {"fabric", "submit_window", NUMBER(T_U32, submit_window, 16, 1048576),
     DEFAULT("4096", "Most tasks that a remote producer may have outstanding (16 to 1048576).")},
    {"fabric", "links", NUMBER(T_U32, links, 1, 16384),
     DEFAULT("1024", "Most remote links at once (1 to 16384); each needs a participant, too.")},

    {"fabric", "heartbeat", NUMBER(T_DURATION, heartbeat_ns, SECOND / 100, 3600 * SECOND),
     DEFAULT("\"2s\"",
             "A peer that was silent for so long is asked whether it is there (\"10ms\" to\n"
             "\"3600s\"). One that misses the answer gets no more tasks, and those it has not\n"
             "started go to others. A long task is no reason to miss it.")},
    {"fabric", "dead_after", NUMBER(T_DURATION, dead_after_ns, SECOND / 50, 86400 * SECOND),
     DEFAULT("\"10s\"",
             "A peer that was silent for so long is dead: its link ends (\"20ms\" to \"86400s\";\n"
             "at least twice the heartbeat counts).")},

    {"poll", "mode", ENUM(poll_mode, polls),
     DEFAULT(
         "\"adaptive\"",
         "How fabricd waits while links are up: \"adaptive\" spins while that pays, then sleeps;\n"
         "\"busy\" never sleeps; \"event\" never spins. Workers have the same by fabworker "
         "--poll.")},
    {"poll", "spin", NUMBER(T_DURATION, spin_ns, 0, SECOND / 100),
     DEFAULT("\"50us\"", "The longest spin (\"0us\" to \"10ms\").")},

    {"limits", "handshakes", NUMBER(T_U32, handshakes, 1, 4096),
     DEFAULT("64", "Most connections at once that have not proved the key yet (1 to 4096). One "
                   "more takes the\n"
                   "place of the oldest of them from its own host, or else of the oldest of all.")},
};
const size_t conf_keys_n = sizeof conf_keys / sizeof *conf_keys;

const char *const conf_tables[] = {"node", "segment", "queue", "listen",
                                   "auth", "fabric",  "poll",  "limits"};
const size_t conf_tables_n = sizeof conf_tables / sizeof *conf_tables;

/* ---- units ---- */

static const struct unit {
    enum key_type type;
    const char *name;
    int64_t factor;
} units[] = {
    /* of each type the largest first: conf_written takes the first that divides */
    {T_SIZE, "GiB", 1 << 30}, {T_SIZE, "MiB", 1 << 20},  {T_SIZE, "KiB", 1 << 10},
    {T_SIZE, "B", 1},         {T_DURATION, "s", SECOND}, {T_DURATION, "ms", 1000000},
    {T_DURATION, "us", 1000}, {T_DURATION, "ns", 1},
};
#define UNITS (sizeof units / sizeof *units)

int64_t conf_with_unit(const char *text, enum key_type type)
{
    char *end;
    int64_t v;
    if (!isdigit((unsigned char)text[0]))
        return -1;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    while (*end == ' ')
        end++;
    for (size_t i = 0; errno == 0 && i < UNITS; i++)
        if (units[i].type == type && strcmp(end, units[i].name) == 0)
            return __builtin_mul_overflow(n, units[i].factor, &v) ? -1 : v;
    return -1;
}

const char *conf_written(char buf[32], const struct conf_key *k, int64_t v)
{
    for (size_t i = 0; i < UNITS; i++) {
        if (units[i].type == k->type && v != 0 && v % units[i].factor == 0) {
            snprintf(buf, 32, "\"%" PRId64 "%s\"", v / units[i].factor, units[i].name);
            return buf;
        }
    }
    if (k->type == T_DURATION)
        snprintf(buf, 32, "\"0s\"");
    else
        snprintf(buf, 32, "%" PRId64, v);
    return buf;
}

/* ---- the documented file ---- */

static void print_key(const struct conf_key *k, FILE *to)
{
    for (const char *p = k->doc; *p; p += *p == '\n') {
        size_t n = strcspn(p, "\n");
        fprintf(to, "# %.*s\n", (int)n, p);
        p += n;
    }
    fprintf(to, "# %s = %s\n", k->name, k->fallback);
}

void conf_print_documented(FILE *to)
{
    fputs("# fabricd's configuration. Every key stands here, with its default in a comment; the "
          "file\n"
          "# works as it is. Sizes are bytes or have a unit (\"16KiB\", \"64MiB\", \"1GiB\"), "
          "durations always\n"
          "# have one (\"50us\", \"100ms\", \"5s\").\n",
          to);
    for (size_t t = 0; t < conf_tables_n; t++) {
        if (strcmp(conf_tables[t], "queue") == 0) {
            fputs("\n# A place that tasks are submitted to; up to 64 of them, each a [[queue]] "
                  "with a name of 1\n"
                  "# to 31 letters, digits, '.', '_' and '-'. Tasks that name no queue go to the "
                  "first.\n"
                  "[[queue]]\nname = \"default\"\n",
                  to);
            continue;
        }
        fprintf(to, "\n[%s]\n", conf_tables[t]);
        for (size_t i = 0, first = 1; i < conf_keys_n; i++) {
            if (strcmp(conf_keys[i].table, conf_tables[t]) != 0)
                continue;
            fputs(first ? "" : "\n", to);
            first = 0;
            print_key(&conf_keys[i], to);
        }
    }
}
