/* SPDX-License-Identifier: MIT
 *
 * plain_runner.c - runs Criterion's tests without Criterion's library, which does not start under
 * the thread sanitizer: it wants memory at addresses that the sanitizer has taken. The tests are
 * compiled with Criterion's own headers, which put them into the sections cr_tst and cr_sts and
 * call what is defined here.
 *
 * Each test is run in a forked child, one after another; it passes if that exits with 0 (with
 * SKIPPED: skipped) in its time. A report of the sanitizer ends the child with another status.
 *
 * Usage: TEST [--filter SUITE/TEST] (a shell pattern; Criterion's other options are ignored)
 * Environment: PATIENCE, a factor for the tests' time limits.
 */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED    77
#define TIME_LIMIT 60.0 /* of a test that names none */

extern struct criterion_test *const __start_cr_tst[], *const __stop_cr_tst[];
/* weak: not every program has suites with a setup of their own */
extern struct criterion_suite *const __start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *const __stop_cr_sts[] __attribute__((weak));

struct criterion_options criterion_options;

static struct {
    const struct criterion_test *test;
    const struct criterion_test_extra_data *suite; /* NULL: none */
    jmp_buf end;
    pid_t thread;   /* the one that may jump to end */
    int status;     /* what the child exits with */
    FILE *captured; /* what was written to stderr; see cr_redirect_stderr() */
} child;

/* ---- what the tests call ---- */

static void say(const char *what, const char *format, va_list ap)
{
    fprintf(stdout, "%s/%s: %s", child.test->category, child.test->name, what);
    vfprintf(stdout, format, ap);
    fputc('\n', stdout);
    fflush(stdout);
}

static CR_NORETURN void end_test(int status)
{
    child.status = status;
    if (gettid() == child.thread)
        longjmp(child.end, 1);
    /* another thread, or a process that the test has forked */
    _exit(status);
}

void criterion_abort_test(void)
{
    end_test(1);
}

void criterion_skip_test(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    say("skipped: ", format, ap);
    va_end(ap);
    end_test(SKIPPED);
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    printf("%s/%s: %s:%u: %s\n", child.test->category, child.test->name, stats->file, stats->line,
           stats->message ? stats->message : "");
    fflush(stdout);
}

void cri_asserts_passed_incr(void)
{
}

/* All messages have the expression, or something else to read, as their first argument. */
char *cr_translate_assert_msg(int msg_index, ...)
{
    va_list ap;
    va_start(ap, msg_index);
    char *text = strdup(va_arg(ap, const char *));
    va_end(ap);
    return text;
}

int cr_asprintf(char **strp, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vasprintf(strp, format, ap);
    va_end(ap);
    if (n < 0)
        *strp = NULL;
    return n;
}

void cr_asprintf_free(char *buf)
{
    free(buf);
}

void cr_log(enum criterion_severity severity, const char *format, ...)
{
    va_list ap;
    (void)severity;
    va_start(ap, format);
    say("", format, ap);
    va_end(ap);
}

void cr_redirect_stderr(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ||
        dup2(ends[1], STDERR_FILENO) < 0 || !(child.captured = fdopen(ends[0], "r"))) {
        perror("cr_redirect_stderr");
        _exit(1);
    }
    close(ends[1]);
}

FILE *cr_get_redirected_stderr(void)
{
    return child.captured;
}

void criterion_internal_test_setup(void)
{
    if (child.suite && child.suite->init)
        child.suite->init();
    if (child.test->data->init)
        child.test->data->init();
}

void criterion_internal_test_main(void (*run)(void))
{
    if (!setjmp(child.end))
        run();
}

void criterion_internal_test_teardown(void)
{
    if (child.test->data->fini)
        child.test->data->fini();
    if (child.suite && child.suite->fini)
        child.suite->fini();
}

/* ---- the runner ---- */

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *t)
{
    for (struct criterion_suite *const *s = __start_cr_sts; s != __stop_cr_sts; s++)
        if (!strcmp((*s)->name, t->category))
            return (*s)->data;
    return NULL;
}

static CR_NORETURN void run_here(const struct criterion_test *t)
{
    child.test = t;
    child.suite = suite_of(t);
    child.thread = gettid();
    t->test();
    exit(child.status);
}

static double patience(void)
{
    const char *text = getenv("PATIENCE");
    double factor = text ? atof(text) : 1;
    return factor >= 1 && factor <= 100 ? factor : 1;
}

/* The child's exit status; above 128: of a signal; -1: its time was over. */
static int run_test(const struct criterion_test *t)
{
    double limit = (t->data->timeout > 0 ? t->data->timeout : TIME_LIMIT) * patience();
    bool late = false;
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_here(t);
    int fd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        perror("plain_runner");
        exit(2);
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, (int)(limit * 1000)) == 0) {
        late = true;
        kill(pid, SIGKILL);
    }
    close(fd);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) {
            perror("plain_runner: waitpid");
            exit(2);
        }
    if (late)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"filter", required_argument, NULL, 'f'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"verbose", optional_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    const char *filter = "*";
    unsigned passed = 0, failed = 0, skipped = 0;
    int c;
    while ((c = getopt_long(argc, argv, "j:", options, NULL)) != -1) {
        if (c == 'f')
            filter = optarg;
        else if (c == '?')
            return 2;
    }
    for (struct criterion_test *const *i = __start_cr_tst; i != __stop_cr_tst; i++) {
        const struct criterion_test *t = *i;
        char name[256];
        snprintf(name, sizeof name, "%s/%s", t->category, t->name);
        if (fnmatch(filter, name, 0) != 0)
            continue;
        int status = run_test(t);
        if (status == SKIPPED) {
            skipped++;
        } else if (status == 0) {
            passed++;
        } else {
            failed++;
            if (status < 0)
                printf("FAILED %s: its time was over\n", name);
            else
                printf("FAILED %s: exit status %d\n", name, status);
        }
    }
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed || passed + skipped == 0;
}
