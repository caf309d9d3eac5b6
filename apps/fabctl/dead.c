/* SPDX-License-Identifier: MIT
 *
 * dead.c - `fabctl dead`: tasks that ended badly and were kept: the list, one of them, starting them
 * again, throwing them away.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "apps/common/opts.h"
#include "apps/fabctl/fabctl.h"
#include "apps/fabctl/table.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/kernel.h"

#define ANSWER_NS 30000000000
#define ERROR_MAX 60 /* characters of it in the list */
#define LINE      16 /* bytes of an argument in a line of hexadecimal */

enum { SERVER = 1, KEY_FILE, QUEUE, ALL, JSON, HELP };

static const struct opt options[] = {
    {"server", 's', OPT_VALUE, SERVER}, {"key-file", 0, OPT_VALUE, KEY_FILE},
    {"queue", 0, OPT_VALUE, QUEUE},     {"all", 0, OPT_BARE, ALL},
    {"json", 0, OPT_BARE, JSON},        {"help", 'h', OPT_BARE, HELP},
    {0}};

struct order {
    const char *server, *key_file, *verb, *queue;
    bool all, json;
    char *const *id;
    int ids;
};

void dead_help(FILE *to)
{
    fputs("Usage: fabctl dead list [--queue NAME] [OPTION]...\n"
          "       fabctl dead show ID [OPTION]...\n"
          "       fabctl dead kick|purge ID...|--all [--queue NAME] [OPTION]...\n"
          "Dead letters: tasks whose workers died of them too often, and tasks nobody waited for that\n"
          "failed for good or took too long. They are kept with their arguments, up to\n"
          "segment.dead_letters of them.\n"
          "\n"
          "  list    all of them, or a queue's\n"
          "  show    one with its argument\n"
          "  kick    start them again: attempts and crashes are counted anew, nobody waits for them\n"
          "  purge   throw them away\n"
          "\n"
          "Options:\n"
          "      --queue NAME     of this queue only\n"
          "      --all            all of them\n"
          "      --json           as JSON\n"
          "  -s, --server ADDR    unix:PATH, tcp://HOST[:PORT] or verbs://HOST[:PORT]; default\n"
          "                       $FABRIC_SERVER, else the local fabricd\n"
          "      --key-file FILE  key of a remote fabric; default $FABRIC_KEY_FILE, else the\n"
          "                       local fabricd's\n"
          "  -h, --help           show this help\n"
          "\n"
          "Exit status: 0 done, 1 something was not (each is told on stderr), 2 usage.\n"
          "\n"
          "Examples:\n"
          "  fabctl dead list\n"
          "  fabctl dead show 3-17\n"
          "  fabctl dead kick 3-17 3-18\n"
          "  fabctl dead purge --all --queue default\n",
          to);
}

static int fail(void)
{
    struct text line = {0};
    text_puts(&line, "fabctl: ");
    text_safe(&line, fab_errmsg(), strlen(fab_errmsg()));
    fprintf(stderr, "%s\n", text_str(&line));
    text_free(&line);
    return EXIT_FAILED;
}

/* "EPOCH-SLOT". */
static int id_parse(const char *text, fab_id *id)
{
    unsigned long long epoch, slot;
    int end = 0;
    if (strspn(text, "0123456789-") != strlen(text) ||
        sscanf(text, "%10llu-%10llu%n", &epoch, &slot, &end) != 2 || text[end] || epoch == 0 ||
        epoch > UINT32_MAX || slot > UINT32_MAX)
        return err_set(-EINVAL, "'%s' is no dead letter's id; they look like 3-17 (fabctl dead list)",
                       text);
    *id = (fab_id)epoch << 32 | slot;
    return 0;
}

/* ---- cells ---- */

static const char *string_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s && *s ? s : "-";
}

static const char *whole_of(const json_t *o, const char *key, char buf[24])
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v))
        return "-";
    snprintf(buf, 24, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    return buf;
}

static const struct kernel *kernel_of(const json_t *o)
{
    return kernel_by_id(strtoull(string_of(o, "kernel"), NULL, 16));
}

/* Its name where this program knows it. */
static const char *kernel_name(const json_t *o)
{
    const struct kernel *k = kernel_of(o);
    return k ? k->name : string_of(o, "kernel");
}

static const char *time_of(const json_t *o, const char *key, char buf[40])
{
    json_int_t ns = json_integer_value(json_object_get(o, key));
    time_t t = (time_t)(ns / 1000000000);
    struct tm tm;
    if (ns <= 0 || !localtime_r(&t, &tm) || !strftime(buf, 40, "%F %T", &tm))
        return "-";
    return buf;
}

static const char *worker_of(const json_t *o, char buf[160])
{
    char pid[24];
    bool remote = json_is_string(json_object_get(o, "peer"));
    if (!json_is_string(json_object_get(o, "worker")))
        return "-";
    snprintf(buf, 160, "%s %s%s", string_of(o, "worker"), remote ? "from " : "pid ",
             remote ? string_of(o, "peer") : whole_of(o, "pid", pid));
    return buf;
}

/* ---- list and show ---- */

static void print_list(const json_t *top)
{
    char head[] = "<id|<queue|<kernel|<cause|attempts|<when|<worker|<error";
    char buf[160], more[40];
    struct table t;
    struct text to = {0};
    size_t i;
    json_t *o;
    table_open(&t, "Dead letters", head);
    json_array_foreach(json_object_get(top, "dead"), i, o)
    {
        table_cell(&t, string_of(o, "id"));
        table_cell(&t, string_of(o, "queue"));
        table_cell(&t, kernel_name(o));
        table_cell(&t, string_of(o, "cause"));
        table_cell(&t, whole_of(o, "attempts", buf));
        table_cell(&t, time_of(o, "died_unix_ns", more));
        table_cell(&t, worker_of(o, buf));
        snprintf(buf, sizeof buf, "%.*s%s", ERROR_MAX, string_of(o, "error"),
                 strlen(string_of(o, "error")) > ERROR_MAX ? "..." : "");
        table_cell(&t, buf);
    }
    table_print(&t, &to);
    if (json_integer_value(json_object_get(top, "unlisted")) > 0)
        text_printf(&to, "and %s others: kick or purge some of these to see them\n",
                    whole_of(top, "unlisted", buf));
    if (json_integer_value(json_object_get(top, "dropped")) > 0)
        text_printf(&to, "%s more were not kept: raise segment.dead_letters (%s now)\n",
                    whole_of(top, "dropped", buf), whole_of(top, "letters_max", more));
    fputs(text_str(&to), stdout);
    text_free(&to);
    table_close(&t);
}

static uint8_t *bytes_of(const char *hex, size_t *len)
{
    *len = strlen(hex) / 2;
    uint8_t *p = malloc(*len + 1);
    for (size_t i = 0; p && i < *len; i++) {
        unsigned v = 0;
        sscanf(hex + 2 * i, "%2x", &v);
        p[i] = (uint8_t)v;
    }
    return p;
}

static void put_hex(struct text *to, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i += LINE) {
        size_t n = len - i < LINE ? len - i : LINE;
        text_printf(to, "  %06zx ", i);
        for (size_t k = 0; k < LINE; k++)
            text_printf(to, k < n ? " %02x" : "   ", k < n ? p[i + k] : 0);
        text_puts(to, "  ");
        for (size_t k = 0; k < n; k++)
            text_putc(to, p[i + k] >= 0x20 && p[i + k] < 0x7f ? (char)p[i + k] : '.');
        text_putc(to, '\n');
    }
}

static bool is_text(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((p[i] < 0x20 && p[i] != '\t' && p[i] != '\n') || p[i] >= 0x7f)
            return false;
    return len > 0;
}

static void put_argument(struct text *to, const json_t *o)
{
    const char *hex = json_string_value(json_object_get(o, "argument_hex"));
    json_int_t whole = json_integer_value(json_object_get(o, "argument_len"));
    size_t len = 0;
    uint8_t *p = hex ? bytes_of(hex, &len) : NULL;
    int64_t number;
    text_printf(to, "argument   %" JSON_INTEGER_FORMAT " bytes", whole);
    if (!p)
        text_puts(to, ", which can't be had (damaged?)");
    else if ((json_int_t)len < whole)
        text_printf(to, ", the first %zu of them", len);
    text_puts(to, "\n");
    if (p && is_text(p, len)) {
        text_puts(to, "  ");
        text_safe(to, p, len);
        text_putc(to, '\n');
    } else if (p) {
        if (len == sizeof number) {
            memcpy(&number, p, sizeof number);
            text_printf(to, "  as a number: %" PRId64 "\n", number);
        }
        put_hex(to, p, len);
    }
    free(p);
}

static void print_letter(const json_t *o)
{
    char buf[160], time[40];
    struct text to = {0};
    const struct {
        const char *label, *value;
    } line[] = {{"id", string_of(o, "id")},
                {"queue", string_of(o, "queue")},
                {"kernel", kernel_name(o)},
                {"cause", string_of(o, "cause")},
                {"error", string_of(o, "error")},
                {"worker", worker_of(o, buf)}};
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        text_printf(&to, "%-10s ", line[i].label);
        text_safe(&to, line[i].value, strlen(line[i].value));
        text_putc(&to, '\n');
    }
    text_printf(&to, "%-10s %s\n", "died", time_of(o, "died_unix_ns", time));
    text_printf(&to, "%-10s %s\n", "submitted", time_of(o, "submitted_unix_ns", time));
    text_printf(&to, "%-10s %s\n", "attempts", whole_of(o, "attempts", buf));
    text_printf(&to, "%-10s %s\n", "crashes", whole_of(o, "crashes", buf));
    text_printf(&to, "%-10s %s\n", "priority", whole_of(o, "priority", buf));
    text_printf(&to, "%-10s %s\n", "tag", whole_of(o, "tag", buf));
    put_argument(&to, o);
    fputs(text_str(&to), stdout);
    text_free(&to);
}

static int look(fab_t *f, const struct order *o, uint32_t queue)
{
    json_error_t where;
    char *text;
    fab_id id = 0;
    bool list = strcmp(o->verb, "list") == 0;
    if (!list && id_parse(o->id[0], &id) < 0)
        return fail();
    if ((list ? fab_dead_list(f, queue, &text, ANSWER_NS)
              : fab_dead_show(f, id, &text, ANSWER_NS)) < 0)
        return fail();
    json_t *j = json_loads(text, 0, &where);
    free(text);
    if (!json_is_object(j)) {
        json_decref(j);
        (void)err_set(-EPROTO, "the fabric's answer can't be read: %s", where.text);
        return fail();
    }
    if (o->json) {
        json_dumpf(j, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (list) {
        print_list(j);
    } else {
        print_letter(j);
    }
    json_decref(j);
    return EXIT_OK;
}

/* ---- kick and purge ---- */

static int change(fab_t *f, const struct order *o, uint32_t queue)
{
    bool kick = strcmp(o->verb, "kick") == 0;
    long done = 0;
    int status = EXIT_OK;
    for (int i = 0; i < (o->all ? 1 : o->ids); i++) {
        fab_id id = 0;
        long n = o->all ? 0 : id_parse(o->id[i], &id);
        if (n == 0)
            n = kick ? fab_dead_kick(f, id, queue, ANSWER_NS)
                     : fab_dead_purge(f, id, queue, ANSWER_NS);
        if (n < 0)
            status = fail();
        else
            done += n;
    }
    if (o->json)
        printf("{\"%s\":%ld}\n", kick ? "kicked" : "purged", done);
    else
        printf("%ld %s\n", done, kick ? "kicked" : "purged");
    return status;
}

/* ---- the command line ---- */

static int take_option(struct order *o, int id, const char *value)
{
    switch (id) {
    case SERVER:
        o->server = value;
        break;
    case KEY_FILE:
        o->key_file = value;
        break;
    case QUEUE:
        o->queue = value;
        break;
    case ALL:
        o->all = true;
        break;
    case JSON:
        o->json = true;
        break;
    default: /* opts_next() has set the message */
        return -EINVAL;
    }
    return 0;
}

static int check(const struct order *o)
{
    bool list = o->verb && strcmp(o->verb, "list") == 0;
    bool show = o->verb && strcmp(o->verb, "show") == 0;
    if (!o->verb)
        return err_set(-EINVAL, "no word given: use list, show, kick or purge");
    if (!list && !show && strcmp(o->verb, "kick") != 0 && strcmp(o->verb, "purge") != 0)
        return err_set(-EINVAL, "unknown word '%s'; use list, show, kick or purge", o->verb);
    if (list && (o->ids || o->all))
        return err_set(-EINVAL, "list takes no ids");
    if (show && (o->ids != 1 || o->all))
        return err_set(-EINVAL, "show takes one id");
    if (!list && !show && (o->ids > 0) == o->all)
        return err_set(-EINVAL, "%s which? give ids, or --all", o->verb);
    if (o->queue && o->ids)
        return err_set(-EINVAL, "--queue has no meaning with ids");
    return 0;
}

int dead_main(int argc, char **argv)
{
    struct order o = {.id = argv};
    struct opts walk = {.table = options, .argv = argv, .argc = argc};
    uint32_t queue = FAB_ANY_QUEUE;
    fab_t *f;
    int id;
    while ((id = opts_next(&walk)) != OPTS_END) {
        if (id == HELP) {
            dead_help(stdout);
            return EXIT_OK;
        }
        /* Words move to the front of argv, where the walk has been already. */
        if (id == OPTS_WORD && !o.verb)
            o.verb = walk.value;
        else if (id == OPTS_WORD)
            argv[o.ids++] = (char *)walk.value;
        else if (take_option(&o, id, walk.value) < 0)
            return usage_error("fabctl dead", "%s", fab_errmsg());
    }
    if (check(&o) < 0)
        return usage_error("fabctl dead", "%s", fab_errmsg());
    if (fabctl_open(&f, o.server, o.key_file, FAB_TOOL, NULL) < 0)
        return EXIT_FAILED;
    int status;
    if (o.queue && fab_queue(f, o.queue, &queue) < 0)
        status = fail();
    else if (strcmp(o.verb, "list") == 0 || strcmp(o.verb, "show") == 0)
        status = look(f, &o, queue);
    else
        status = change(f, &o, queue);
    fab_close(f);
    return fflush(stdout) != 0 && status == EXIT_OK ? EXIT_FAILED : status;
}
