/* SPDX-License-Identifier: MIT
 *
 * replay_main.c - a main for every fuzz entry: runs LLVMFuzzerTestOneInput over files, and over
 * all files below directories, so that a corpus is a test that needs no fuzzer.
 *
 *   fuzz_conf [-v] FILE|DIRECTORY...
 *
 * Exit status: 0 all were run, 1 one could not be read, 2 usage (nothing to run is wrong usage: a
 * corpus that has moved must not pass). An input that breaks something ends the process; its name
 * is the last one on stderr.
 */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t runs;
static bool verbose;

static int trouble(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 1;
}

/* Each input lies in a block of exactly its size, so that a sanitizer sees a byte read too many. */
static int run_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(size ? size : 1);
    int rc = 1;
    if (!f || !data || fread(data, 1, size, f) != size) {
        rc = trouble(path);
        goto out;
    }
    if (verbose)
        fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, size);
    runs++;
    rc = 0;
out:
    free(data);
    if (f)
        fclose(f);
    return rc;
}

static int run_path(const char *path);

static int run_dir(const char *path)
{
    struct dirent **list;
    int n = scandir(path, &list, NULL, alphasort), rc = n < 0 ? trouble(path) : 0;
    for (int i = 0; i < n; i++) {
        char *below;
        if (list[i]->d_name[0] != '.') {
            if (asprintf(&below, "%s/%s", path, list[i]->d_name) < 0)
                abort();
            rc |= run_path(below);
            free(below);
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    return rc;
}

static int run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return trouble(path);
    return S_ISDIR(st.st_mode) ? run_dir(path) : run_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    int rc = 0, first = 1;
    if (argc > 1 && strcmp(argv[1], "-v") == 0) {
        verbose = true;
        first = 2;
    }
    for (int i = first; i < argc; i++)
        rc |= run_path(argv[i]);
    if (rc == 0 && runs == 0) {
        fprintf(stderr, "nothing to run: name files, or directories that have some\n");
        return 2;
    }
    printf("%zu inputs\n", runs);
    return rc;
}
