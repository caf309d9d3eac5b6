/* SPDX-License-Identifier: MIT
 *
 * keyfile.c - see keyfile.h.
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

#define KEY_TEXT_MAX 4096

static int open_key(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT)
            return err_set(
                -ENOENT,
                "no key at %s: copy the authkey of the fabricd you connect to, and name it with "
                "--key-file or $FABRIC_KEY_FILE",
                path);
        return err_set(-errno, "key file %s: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & 077))
        return fd;
    close(fd);
    return err_set(-EACCES, "key file %s can be read by others: chmod 600 %s", path, path);
}

int key_load(const char *path, uint8_t key[32])
{
    char text[KEY_TEXT_MAX + 2];
    size_t n = 0, bin;
    int fd = open_key(path), rc = 0;
    if (fd < 0)
        return fd;
    for (ssize_t got; n < sizeof text - 1; n += (size_t)got) {
        got = read(fd, text + n, sizeof text - 1 - n);
        if (got < 0)
            rc = err_set(-errno, "key file %s: %s", path, strerror(errno));
        if (got <= 0)
            break;
    }
    close(fd);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    if (rc == 0 && (n < 16 || n > KEY_TEXT_MAX))
        rc = err_set(-EINVAL, "key file %s: a key has 16 to %d bytes, this one %zu", path,
                     KEY_TEXT_MAX, n);
    if (rc == 0 &&
        !(n == 64 && sodium_hex2bin(key, 32, text, n, NULL, &bin, NULL) == 0 && bin == 32))
        crypto_generichash(key, 32, (const uint8_t *)text, n, NULL, 0);
    sodium_memzero(text, sizeof text);
    return rc;
}

int key_make(const char *path)
{
    uint8_t key[32];
    char hex[66], temp[600];
    int rc = 0;
    if (access(path, F_OK) == 0)
        return 0;
    if (snprintf(temp, sizeof temp, "%s.%ld.new", path, (long)getpid()) >= (int)sizeof temp)
        return err_set(-ENAMETOOLONG, "%s: the path is too long", path);
    randombytes_buf(key, sizeof key);
    sodium_bin2hex(hex, sizeof hex, key, sizeof key);
    strcat(hex, "\n");
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(-errno, "making the key file %s: %s", path, strerror(errno));
    if (write(fd, hex, 65) != 65 || fsync(fd) < 0)
        rc = err_set(-EIO, "writing the key file %s: %s", path, strerror(errno));
    close(fd);
    /* link, not rename: of two that start at once the first one's key stays */
    if (rc == 0 && link(temp, path) < 0 && errno != EEXIST)
        rc = err_set(-errno, "making the key file %s: %s", path, strerror(errno));
    unlink(temp);
    sodium_memzero(key, sizeof key);
    sodium_memzero(hex, sizeof hex);
    return rc;
}

int key_path_default(const char *opt, char *buf, size_t cap)
{
    if (!opt || !opt[0])
        opt = getenv("FABRIC_KEY_FILE");
    if (!opt || !opt[0])
        return paths_default_key(buf, cap);
    if ((size_t)snprintf(buf, cap, "%s", opt) >= cap)
        return err_set(-ENAMETOOLONG, "%s: the path is too long", opt);
    return 0;
}
