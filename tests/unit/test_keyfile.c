/* SPDX-License-Identifier: MIT
 *
 * test_keyfile.c - key files: what is a key, whose file is refused, and that a new one is made
 * whole and once.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/error.h"
#include "core/keyfile.h"

#define HEX "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"

static char dir[64], path[96];
static uint8_t key[32];

static void make_dir(void)
{
    strcpy(dir, "/tmp/fabric-key-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/authkey", dir);
}

static size_t files_in_dir(void)
{
    DIR *d = opendir(dir);
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void remove_dir(void)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir);
}

static void put(const void *text, size_t n, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, n), (ssize_t)n);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
}

static bool is_zero(void)
{
    return sodium_is_zero(key, sizeof key);
}

static bool said(int rc, const char *what)
{
    return strstr(err_text(rc), what) != NULL;
}

TestSuite(key, .init = make_dir, .fini = remove_dir);

/* ---- loading ---- */

Test(key, of_hex_digits)
{
    static const char *const end[] = {"", "\n", "\r\n", "\n\n"};
    for (size_t i = 0; i < sizeof end / sizeof *end; i++) {
        char text[80];
        put(text, (size_t)sprintf(text, "%s%s", HEX, end[i]), 0600);
        memset(key, 0xff, sizeof key);
        cr_assert_eq(key_load(path, key), 0, "%s", err_text(-EINVAL));
        for (uint8_t b = 0; b < 32; b++)
            cr_assert_eq(key[b], b);
    }
}

static void loads_as_passphrase(const char *text, size_t n, size_t newlines)
{
    uint8_t want[32];
    put(text, n, 0400);
    crypto_generichash(want, sizeof want, (const uint8_t *)text, n - newlines, NULL, 0);
    cr_assert_eq(key_load(path, key), 0, "%zu bytes: %s", n, err_text(-EINVAL));
    cr_assert_eq(memcmp(key, want, sizeof want), 0, "%zu bytes", n);
}

Test(key, of_a_passphrase)
{
    char text[4097];
    memset(text, 'p', 4096);
    loads_as_passphrase(text, 16, 0);
    loads_as_passphrase(text, 4096, 0);
    text[4096] = '\n';
    loads_as_passphrase(text, 4097, 1);
    loads_as_passphrase(HEX "0", 65, 0);
    loads_as_passphrase(HEX, 63, 0);
    loads_as_passphrase(HEX " \n", 66, 1);
    memcpy(text, HEX, 64);
    text[63] = 'g'; /* 64 bytes, but not all are digits */
    loads_as_passphrase(text, 64, 0);
    memset(text, 0, 20);
    loads_as_passphrase(text, 20, 0);
}

Test(key, too_short_or_too_long_is_refused)
{
    static char text[8192];
    memset(text, 'p', sizeof text);
    put(text, 15, 0600);
    memset(key, 0xff, sizeof key);
    cr_assert_eq(key_load(path, key), -EINVAL);
    cr_assert(said(-EINVAL, path) && said(-EINVAL, "has 15 bytes, and a key at least 16"), "%s",
              err_text(-EINVAL));
    cr_assert(is_zero());
    put("123456789012345\n", 16, 0600);
    cr_assert_eq(key_load(path, key), -EINVAL);
    put("", 0, 0600);
    cr_assert_eq(key_load(path, key), -EINVAL);
    put(text, 4097, 0600);
    cr_assert_eq(key_load(path, key), -EINVAL);
    cr_assert(said(-EINVAL, "at most 4096 bytes"), "%s", err_text(-EINVAL));
    put(text, sizeof text, 0600);
    cr_assert_eq(key_load(path, key), -EINVAL);
    memset(text + 20, '\n', sizeof text - 20);
    put(text, sizeof text, 0600);
    cr_assert_eq(key_load(path, key), -EINVAL, "only so many newlines");
    cr_assert(is_zero());
}

Test(key, that_others_have_access_to_is_refused)
{
    char remedy[128];
    snprintf(remedy, sizeof remedy, "`chmod 600 %s`", path);
    for (unsigned bit = 0; bit < 6; bit++) {
        put(HEX, 64, 0600 | 1u << bit);
        memset(key, 0xff, sizeof key);
        cr_assert_eq(key_load(path, key), -EACCES, "mode %o", 0600 | 1u << bit);
        cr_assert(said(-EACCES, remedy), "%s", err_text(-EACCES));
        cr_assert(is_zero());
    }
    cr_assert_eq(chmod(path, 0600), 0);
    cr_assert_eq(key_load(path, key), 0);
}

/* Nothing hangs, either: a FIFO has no reader. */
Test(key, that_is_no_file_is_refused, .timeout = 10)
{
    cr_assert_eq(key_load(path, key), -ENOENT);
    cr_assert(said(-ENOENT, path) && said(-ENOENT, "--key-file"), "%s", err_text(-ENOENT));
    cr_assert_eq(key_load(dir, key), -EINVAL);
    cr_assert(said(-EINVAL, "no regular file"), "%s", err_text(-EINVAL));
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(key_load(path, key), -EINVAL);
    cr_assert(said(-EINVAL, "no regular file"), "%s", err_text(-EINVAL));
}

/* ---- making ---- */

Test(key, is_made)
{
    char text[80] = "";
    struct stat st;
    umask(0);
    cr_assert_eq(key_make(path), 0, "%s", err_text(-EACCES));
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600, "%o", st.st_mode);
    cr_assert_eq(st.st_nlink, 1);
    cr_assert_eq(files_in_dir(), 1, "a temporary file is left");
    FILE *f = fopen(path, "r");
    cr_assert_eq(fread(text, 1, sizeof text, f), 65);
    fclose(f);
    cr_assert_eq(strspn(text, "0123456789abcdef"), 64);
    cr_assert_eq(text[64], '\n');
    cr_assert_eq(key_load(path, key), 0);
    cr_assert(!is_zero());
}

Test(key, differs_each_time)
{
    uint8_t first[32];
    cr_assert_eq(key_make(path), 0);
    cr_assert_eq(key_load(path, first), 0);
    unlink(path);
    cr_assert_eq(key_make(path), 0);
    cr_assert_eq(key_load(path, key), 0);
    cr_assert_neq(memcmp(first, key, sizeof key), 0);
}

Test(key, that_exists_is_kept)
{
    put("a passphrase of one's own", 25, 0600);
    cr_assert_eq(key_make(path), 0);
    loads_as_passphrase("a passphrase of one's own", 25, 0);
    put("", 0, 0600); /* not even a bad one is replaced: it may be somebody's */
    cr_assert_eq(key_make(path), 0);
    cr_assert_eq(key_load(path, key), -EINVAL);
    cr_assert_eq(files_in_dir(), 1);
}

Test(key, cannot_be_made_without_its_directory)
{
    char nowhere[128];
    snprintf(nowhere, sizeof nowhere, "%s/none/authkey", dir);
    cr_assert_eq(key_make(nowhere), -ENOENT);
    cr_assert(said(-ENOENT, nowhere), "%s", err_text(-ENOENT));
}

/* Many at once: all succeed, all see the same whole key. */
Test(key, is_made_once, .timeout = 30)
{
    enum { ROUNDS = 20, PROCESSES = 8 };
    for (int round = 0; round < ROUNDS; round++) {
        int results[2], go[2];
        uint8_t seen[PROCESSES][33];
        cr_assert(pipe(results) == 0 && pipe(go) == 0);
        for (int i = 0; i < PROCESSES; i++) {
            if (fork() == 0) {
                char c;
                close(go[1]);
                ssize_t woken = read(go[0], &c, 1); /* ends when the parent closes it */
                uint8_t mine[33] = {0};
                mine[32] = woken == 0 && key_make(path) == 0 && key_load(path, mine) == 0;
                _exit(write(results[1], mine, sizeof mine) != sizeof mine);
            }
        }
        close(go[0]);
        close(go[1]);
        for (int i = 0; i < PROCESSES; i++)
            cr_assert_eq(read(results[0], seen[i], 33), 33);
        while (wait(NULL) > 0)
            ;
        for (int i = 0; i < PROCESSES; i++) {
            cr_assert_eq(seen[i][32], 1, "process %d failed", i);
            cr_assert_eq(memcmp(seen[0], seen[i], 32), 0, "two keys");
        }
        close(results[0]);
        close(results[1]);
        cr_assert_eq(files_in_dir(), 1);
        unlink(path);
    }
}

/* ---- which file ---- */

Test(key_path, order_of_the_rules)
{
    char buf[64];
    setenv("FABRIC_STATE_DIR", "/s", 1);
    unsetenv("FABRIC_KEY_FILE");
    cr_assert_eq(key_path_default(NULL, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/s/authkey");
    setenv("FABRIC_KEY_FILE", "", 1);
    cr_assert_eq(key_path_default("", buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/s/authkey");
    setenv("FABRIC_KEY_FILE", "/env", 1);
    cr_assert_eq(key_path_default(NULL, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/env");
    cr_assert_eq(key_path_default("/opt", buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/opt");
    cr_assert_eq(key_path_default("/opt", buf, 5), 0);
    cr_assert_eq(key_path_default("/opt", buf, 4), -ENAMETOOLONG);
}
