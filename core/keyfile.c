/* SPDX-License-Identifier: MIT
 *
 * keyfile.c - see keyfile.h. No state; descriptors and temporary files are gone on every way out,
 * but for a process killed while it makes a key, which may leave PATH.XXXXXX (mode 0600) behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/error.h"
#include "core/keyfile.h"
#include "core/paths.h"

#define KEY_BYTES 32
#define TEXT_MIN  16
#define TEXT_MAX  4096
#define NEWLINES  64 /* at the end, beyond TEXT_MAX */
#define PATH_CAP  4096

/* ---- loading ---- */

static int open_key(const char *path)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO at this place must not hang us before we see that it is one */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return err_set(-ENOENT,
                       "key file %s: is not there; copy the authkey of the fabricd you connect to, "
                       "and name it with --key-file or $FABRIC_KEY_FILE",
                       path);
    if (fd < 0)
        return err_set(-errno, "key file %s: %s", path, strerror(errno));
    int rc = 0;
    if (fstat(fd, &st) < 0)
        rc = err_set(-errno, "key file %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = err_set(-EINVAL, "key file %s: is no regular file; name one", path);
    else if (st.st_mode & 077)
        rc = err_set(-EACCES,
                     "key file %s: others than its owner have access to it (mode %03o); run "
                     "`chmod 600 %s`",
                     path, (unsigned)st.st_mode & 0777, path);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

/* Reads up to cap bytes. */
static ssize_t read_all(int fd, char *buf, size_t cap)
{
    size_t n = 0;
    while (n < cap) {
        ssize_t got = read(fd, buf + n, cap - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    return (ssize_t)n;
}

static int key_of(const char *text, size_t n, uint8_t key[KEY_BYTES])
{
    size_t bytes;
    const char *end;
    if (n == 2 * KEY_BYTES && sodium_hex2bin(key, KEY_BYTES, text, n, NULL, &bytes, &end) == 0 &&
        end == text + n)
        return 0;
    return crypto_generichash(key, KEY_BYTES, (const uint8_t *)text, n, NULL, 0);
}

int key_load(const char *path, uint8_t key[KEY_BYTES])
{
    char text[TEXT_MAX + NEWLINES];
    int rc = 0, fd = open_key(path);
    sodium_memzero(key, KEY_BYTES);
    if (fd < 0)
        return fd;
    ssize_t got = read_all(fd, text, sizeof text);
    close(fd);
    size_t n = got < 0 ? 0 : (size_t)got;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    if (got < 0)
        rc = err_set((int)got, "key file %s: %s", path, strerror((int)-got));
    else if (n > TEXT_MAX || got == sizeof text)
        rc = err_set(-EINVAL, "key file %s: is too long; a key has at most %d bytes", path,
                     TEXT_MAX);
    else if (n < TEXT_MIN)
        rc = err_set(-EINVAL,
                     "key file %s: has %zu bytes, and a key at least %d; remove it, and fabricd "
                     "makes a new one",
                     path, n, TEXT_MIN);
    else if (sodium_init() < 0 || key_of(text, n, key) < 0)
        rc = err_set(-EIO, "libsodium can't be used on this machine");
    sodium_memzero(text, sizeof text);
    return rc;
}

/* ---- making ---- */

static int write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, text, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        text += put;
        n -= (size_t)put;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int write_random_key(int fd)
{
    uint8_t key[KEY_BYTES];
    char hex[2 * KEY_BYTES + 2];
    if (sodium_init() < 0)
        return -EIO;
    randombytes_buf(key, sizeof key);
    sodium_bin2hex(hex, sizeof hex, key, sizeof key);
    memcpy(hex + 2 * KEY_BYTES, "\n", 2);
    int rc = write_all(fd, hex, 2 * KEY_BYTES + 1);
    sodium_memzero(key, sizeof key);
    sodium_memzero(hex, sizeof hex);
    return rc;
}

/* A name outlives a crash only when its directory has been written, too. */
static int sync_dir_of(const char *path)
{
    char dir[PATH_CAP];
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) : 0;
    snprintf(dir, sizeof dir, "%.*s", slash ? (n ? n : 1) : 1, slash ? path : ".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? 0 : -errno; /* one may be let write but not read: nothing to do */
    int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0; /* EINVAL: nothing to be synced there */
    close(fd);
    return rc;
}

int key_make(const char *path)
{
    char temp[PATH_CAP];
    struct stat st;
    if (lstat(path, &st) == 0)
        return 0;
    if ((size_t)snprintf(temp, sizeof temp, "%s.XXXXXX", path) >= sizeof temp)
        return err_set(-ENAMETOOLONG, "key file %.100s...: choose a path of at most %d bytes", path,
                       PATH_CAP - 8);
    int fd = mkostemp(temp, O_CLOEXEC); /* O_EXCL, and mode 0600 */
    if (fd < 0)
        return err_set(-errno, "making the key file %s: %s", path, strerror(errno));
    int rc = write_random_key(fd);
    close(fd);
    /* link, unlike rename, keeps what is there: of two that start at once both use one key */
    if (rc == 0 && link(temp, path) < 0 && errno != EEXIST)
        rc = -errno;
    unlink(temp);
    if (rc == 0)
        rc = sync_dir_of(path);
    return rc < 0 ? err_set(rc, "making the key file %s: %s", path, strerror(-rc)) : 0;
}

int key_path_default(const char *opt, char *buf, size_t cap)
{
    if (!opt || !opt[0])
        opt = getenv("FABRIC_KEY_FILE");
    if (!opt || !opt[0])
        return paths_default_key(buf, cap);
    if (strlen(opt) >= cap)
        return err_set(-ENAMETOOLONG, "key file %.100s...: choose a path of at most %zu bytes", opt,
                       cap - 1);
    strcpy(buf, opt);
    return 0;
}
