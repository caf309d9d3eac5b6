/* SPDX-License-Identifier: MIT
 *
 * seal.c - see seal.h.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include "core/error.h"
#include "transport/seal.h"

#define NONCE crypto_aead_chacha20poly1305_ietf_NPUBBYTES

static_assert(crypto_aead_chacha20poly1305_ietf_KEYBYTES == SEAL_KEY, "a key is the cipher's");
static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == SEAL_TAG, "a tag is the cipher's");

static void nonce_of(const struct seal *s, uint8_t nonce[NONCE])
{
    uint64_t n = htole64(s->n);
    memset(nonce, 0, NONCE - sizeof n);
    memcpy(nonce + NONCE - sizeof n, &n, sizeof n);
}

void seal_put(const struct seal *s, const void *ad, uint32_t ad_len, uint8_t *bytes, uint32_t len)
{
    uint8_t nonce[NONCE];
    nonce_of(s, nonce);
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(bytes, bytes + len, NULL, bytes, len, ad,
                                                       ad_len, NULL, nonce, s->key);
}

int seal_open(struct seal *s, const void *ad, uint32_t ad_len, uint8_t *bytes, uint32_t len)
{
    uint8_t nonce[NONCE];
    nonce_of(s, nonce);
    if (crypto_aead_chacha20poly1305_ietf_decrypt_detached(bytes, NULL, bytes, len, bytes + len, ad,
                                                           ad_len, nonce, s->key) != 0)
        return err_set(-EBADMSG, "what came is not what the peer sent: somebody between the two "
                                 "alters, repeats or leaves out bytes");
    s->n++;
    return 0;
}
