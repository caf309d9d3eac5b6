/* SPDX-License-Identifier: MIT
 *
 * handshake.c - the two proofs of the mutual challenge (control.h), with libsodium's HMAC-SHA256.
 *
 * Both are over the whole transcript with fresh nonces of either side, and start with different
 * words: neither a recorded proof nor the other side's own can be played back.
 *
 * And the keys of an encrypted connection: a master key is the same HMAC over the transcript and the
 * secret that the two fresh X25519 keys make, and crypto_kdf derives one for each use and direction
 * from it. The HMAC's key alone reads nothing; who sits between without it fails at the proofs.
 */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include "core/error.h"
#include "transport/control.h"

static_assert(crypto_auth_hmacsha256_BYTES == CTL_MAC, "the MAC is HMAC-SHA256's");
static_assert(crypto_scalarmult_curve25519_BYTES == CTL_PUBLIC, "the keys are X25519's");
static_assert(crypto_kdf_KEYBYTES == CTL_MAC, "the HMAC is a master key");

void hs_init(struct ctl_handshake *h, const uint8_t key[32])
{
    memset(h, 0, sizeof *h);
    memcpy(h->key, key, sizeof h->key);
}

static int note(uint8_t *to, uint32_t cap, uint32_t *to_len, const uint8_t *body, uint32_t len)
{
    if (len > cap)
        return err_set(-EPROTO, "a handshake frame of %u bytes is too long", len);
    memcpy(to, body, len);
    *to_len = len;
    return 0;
}

int hs_note_hello(struct ctl_handshake *h, const uint8_t *body, uint32_t len)
{
    return note(h->hello, sizeof h->hello, &h->hello_len, body, len);
}

int hs_note_challenge(struct ctl_handshake *h, const uint8_t *body, uint32_t len)
{
    return note(h->challenge, sizeof h->challenge, &h->challenge_len, body, len);
}

/* HMAC(key, word | length and bytes of HELLO | of CHALLENGE | more). */
static void mac_of(const struct ctl_handshake *h, const char *word, const void *more,
                   uint32_t more_len, const void *last, uint32_t last_len, uint8_t mac[CTL_MAC])
{
    crypto_auth_hmacsha256_state st;
    uint8_t lens[8] = {(uint8_t)h->hello_len, (uint8_t)(h->hello_len >> 8),
                       (uint8_t)h->challenge_len, (uint8_t)(h->challenge_len >> 8)};
    crypto_auth_hmacsha256_init(&st, h->key, sizeof h->key);
    crypto_auth_hmacsha256_update(&st, (const uint8_t *)word, strlen(word) + 1);
    crypto_auth_hmacsha256_update(&st, lens, sizeof lens);
    crypto_auth_hmacsha256_update(&st, h->hello, h->hello_len);
    crypto_auth_hmacsha256_update(&st, h->challenge, h->challenge_len);
    if (more_len)
        crypto_auth_hmacsha256_update(&st, more, more_len);
    if (last_len)
        crypto_auth_hmacsha256_update(&st, last, last_len);
    crypto_auth_hmacsha256_final(&st, mac);
    sodium_memzero(&st, sizeof st);
}

void hs_client_proof(struct ctl_handshake *h, uint8_t mac[CTL_MAC])
{
    mac_of(h, "taskfabric client", NULL, 0, NULL, 0, h->proof);
    memcpy(mac, h->proof, CTL_MAC);
}

int hs_check_client(struct ctl_handshake *h, const uint8_t *mac, uint32_t len)
{
    uint8_t want[CTL_MAC];
    hs_client_proof(h, want);
    if (len != CTL_MAC || sodium_memcmp(mac, want, CTL_MAC) != 0)
        return err_set(-EACCES, "wrong key");
    return 0;
}

void hs_server_proof(struct ctl_handshake *h, const uint8_t *welcome, uint32_t len,
                     uint8_t mac[CTL_MAC])
{
    mac_of(h, "taskfabric server", h->proof, CTL_MAC, welcome, len, mac);
}

int hs_check_server(struct ctl_handshake *h, const uint8_t *mac, const uint8_t *welcome,
                    uint32_t len)
{
    uint8_t want[CTL_MAC];
    hs_server_proof(h, welcome, len, want);
    if (sodium_memcmp(mac, want, CTL_MAC) != 0)
        return err_set(-EACCES, "the server does not know the key");
    return 0;
}

/* ---- an encrypted connection ---- */

void hs_draw(struct ctl_handshake *h, uint8_t public[CTL_PUBLIC])
{
    randombytes_buf(h->secret, sizeof h->secret);
    crypto_scalarmult_curve25519_base(public, h->secret);
}

static void derive(struct seal *s, uint64_t use, const uint8_t master[CTL_MAC])
{
    s->on = true;
    s->n = 0;
    crypto_kdf_derive_from_key(s->key, sizeof s->key, use, "tfabrick", master);
}

int hs_seals(const struct ctl_handshake *h, bool server, const uint8_t peer[CTL_PUBLIC],
             struct ctl_seals *out)
{
    uint8_t shared[CTL_PUBLIC], master[CTL_MAC];
    if (crypto_scalarmult_curve25519(shared, h->secret, peer) != 0)
        return err_set(-EACCES, "the peer's X25519 key is none");
    mac_of(h, "taskfabric keys", shared, sizeof shared, NULL, 0, master);
    derive(server ? &out->rx : &out->tx, 1, master);
    derive(server ? &out->tx : &out->rx, 2, master);
    derive(server ? &out->lane_rx : &out->lane_tx, 3, master);
    derive(server ? &out->lane_tx : &out->lane_rx, 4, master);
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(master, sizeof master);
    return 0;
}
