/* SPDX-License-Identifier: MIT
 *
 * keyfile.h - the authkey: 32 bytes, kept in a file that only its owner can read.
 *
 * Threads: no state; any thread, any number of processes at once.
 * On failure: -errno and the thread's message; key is then all zero. Copies of the secret made on
 * the way are wiped.
 */
#ifndef FABRIC_KEYFILE_H
#define FABRIC_KEYFILE_H

#include <stddef.h>
#include <stdint.h>

/* The key of the file at path: 64 hex digits are its 32 bytes; any other 16 to 4096 bytes are a
 * passphrase, which is hashed. Newlines at the end don't count. -EACCES for a file that group or
 * others have any right to, -EINVAL for a content that is no key. */
int key_load(const char *path, uint8_t key[32]) __attribute__((warn_unused_result));

/* Sees to it that there is a file at path: one that exists is kept, whatever it holds; a new one
 * gets 32 random bytes as hex and mode 0600. It appears whole or not at all, on disk as well; of
 * several that try at once one wins, and all of them return 0. */
int key_make(const char *path) __attribute__((warn_unused_result));

/* opt, else $FABRIC_KEY_FILE, else the key that the local fabricd makes (paths_default_key). */
int key_path_default(const char *opt, char *buf, size_t cap) __attribute__((warn_unused_result));

#endif
