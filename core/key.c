/* SPDX-License-Identifier: MIT
 *
 * key.c - the keys of fabric.h, made of texts and bytes. Any thread; nothing here can fail.
 */
#include <sodium.h>
#include <string.h>
#include "core/fabric.h"

FAB_API uint64_t fab_key_bytes(const void *bytes, size_t len)
{
    /* no secret: the same on every host. Who may submit may choose any key anyway. */
    static const unsigned char fixed[crypto_shorthash_KEYBYTES] = "taskfabric key 1";
    unsigned char out[crypto_shorthash_BYTES];
    uint64_t k = 0;
    crypto_shorthash(out, bytes, len, fixed);
    for (size_t i = sizeof out; i-- > 0;)
        k = k << 8 | out[i]; /* the same number whatever the order of bytes */
    return k ? k : 1;
}

FAB_API uint64_t fab_key(const char *text)
{
    return fab_key_bytes(text, strlen(text));
}
