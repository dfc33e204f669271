/*
 * A security key made of software, for OpenSSH's own way to one (`SSH_SK_PROVIDER`, PROTOCOL.u2f,
 * sk-api.h): the private half of a key is its handle, and nobody is asked anything. It is made
 * for tests: whoever has the file of the key has the key.
 *
 * TEST_SECURITY_KEY=absent: nobody touches it. TEST_SECURITY_KEY=unverified: somebody touches it
 * and does not say who they are.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#define VERSION 0x000a0000u
#define ERR_GENERAL (-1)
#define ERR_UNSUPPORTED (-2)
#define ECDSA 0
#define ED25519 1
#define PRESENT 0x01
#define VERIFIED 0x04

struct option { char *name, *value; uint8_t required; };

struct enrolled {
    uint8_t flags;
    uint8_t *public_key; size_t public_key_len;
    uint8_t *key_handle; size_t key_handle_len;
    uint8_t *signature; size_t signature_len;
    uint8_t *attestation_cert; size_t attestation_cert_len;
    uint8_t *authdata; size_t authdata_len;
};

struct made {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r; size_t sig_r_len;
    uint8_t *sig_s; size_t sig_s_len;
};

uint32_t sk_api_version(void);
int sk_enroll(uint32_t, const uint8_t *, size_t, const char *, uint8_t, const char *,
    struct option **, struct enrolled **);
int sk_sign(uint32_t, const uint8_t *, size_t, const char *, const uint8_t *, size_t, uint8_t,
    const char *, struct option **, struct made **);
int sk_load_resident_keys(const char *, struct option **, void ***, size_t *);

uint32_t sk_api_version(void) { return VERSION; }

static uint8_t *copy(const uint8_t *bytes, size_t length) {
    uint8_t *to = calloc(1, length ? length : 1);
    if (to) memcpy(to, bytes, length);
    return to;
}

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len,
    const char *application, uint8_t flags, const char *pin, struct option **options,
    struct enrolled **response) {
    (void)challenge, (void)challenge_len, (void)application, (void)pin, (void)options;
    uint8_t public[80], handle[512];
    size_t public_len = sizeof public, handle_len = sizeof handle;
    EVP_PKEY *key = alg == ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
        : alg == ECDSA ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256") : NULL;
    if (!key) return ERR_UNSUPPORTED;
    uint8_t *der = NULL;
    int der_len = i2d_PrivateKey(key, &der);
    int ok = der_len > 0 && (size_t)der_len <= sizeof handle;
    if (ok) memcpy(handle, der, handle_len = (size_t)der_len);
    ok = ok && (alg == ED25519 ? EVP_PKEY_get_raw_public_key(key, public, &public_len)
        : EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, public, sizeof public,
            &public_len));
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    struct enrolled *made = calloc(1, sizeof *made);
    if (!ok || !made) return ERR_GENERAL;
    made->flags = flags;
    made->public_key = copy(public, made->public_key_len = public_len);
    made->key_handle = copy(handle, made->key_handle_len = handle_len);
    made->signature = copy((const uint8_t *)"-", made->signature_len = 1);
    *response = made;
    return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application,
    const uint8_t *handle, size_t handle_len, uint8_t flags, const char *pin,
    struct option **options, struct made **response) {
    (void)pin, (void)options;
    const char *told = getenv("TEST_SECURITY_KEY");
    uint8_t says = PRESENT | (flags & VERIFIED);
    if (told && !strcmp(told, "absent")) says = 0;
    if (told && !strcmp(told, "unverified")) says = PRESENT;
    /* application hash, flags, counter, hash of what is signed */
    uint8_t signed_[SHA256_DIGEST_LENGTH + 5 + SHA256_DIGEST_LENGTH] = {0};
    SHA256((const uint8_t *)application, strlen(application), signed_);
    signed_[32] = says;
    signed_[36] = 7;
    SHA256(data, data_len, signed_ + 37);
    const uint8_t *at = handle;
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &at, (long)handle_len);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t raw[256];
    size_t raw_len = sizeof raw;
    int ok = key && context
        && EVP_DigestSignInit(context, NULL, alg == ED25519 ? NULL : EVP_sha256(), NULL, key)
        && EVP_DigestSign(context, raw, &raw_len, signed_, sizeof signed_);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    struct made *made = calloc(1, sizeof *made);
    if (!ok || !made) return ERR_GENERAL;
    made->flags = says;
    made->counter = 7;
    if (alg == ED25519) {
        made->sig_r = copy(raw, made->sig_r_len = raw_len);
    } else {
        const uint8_t *from = raw;
        ECDSA_SIG *both = d2i_ECDSA_SIG(NULL, &from, (long)raw_len);
        if (!both) return ERR_GENERAL;
        made->sig_r = calloc(1, made->sig_r_len = 32);
        made->sig_s = calloc(1, made->sig_s_len = 32);
        BN_bn2binpad(ECDSA_SIG_get0_r(both), made->sig_r, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(both), made->sig_s, 32);
        ECDSA_SIG_free(both);
    }
    *response = made;
    return 0;
}

int sk_load_resident_keys(const char *pin, struct option **options, void ***keys, size_t *count) {
    (void)pin, (void)options, (void)keys, (void)count;
    return ERR_UNSUPPORTED;
}
