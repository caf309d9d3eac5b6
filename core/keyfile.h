/* SPDX-License-Identifier: MIT
 *
 * keyfile.h - the authkey: 32 bytes in a file that only its owner can read.
 */
#ifndef FABRIC_KEYFILE_H
#define FABRIC_KEYFILE_H

#include <stddef.h>
#include <stdint.h>

/* 64 hex digits are the key itself; 16 to 4096 other bytes are a passphrase, hashed. A file that
 * others can read is refused. */
int key_load(const char *path, uint8_t key[32]) __attribute__((warn_unused_result));
/* Makes one with 32 random bytes and mode 0600 unless there is one; never seen half-written. */
int key_make(const char *path) __attribute__((warn_unused_result));
/* opt, else $FABRIC_KEY_FILE, else the one the local fabricd makes. */
int key_path_default(const char *opt, char *buf, size_t cap) __attribute__((warn_unused_result));

#endif
