/* How the release copies and compares memory on x86-64: in place of musl's memcpy and memmove,
   which are one instruction for whole strings. That takes some hundred nanoseconds to begin on many
   machines, virtual ones above all, and nearly all copies are shorter than what could be copied
   meanwhile. Musl compares byte by byte, and the keys of a database begin alike.

   Both copies do the same: whatever is read is read before anything is written that could
   lie on top of it. Nothing beyond the two ranges is touched. */

#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Loads and stores at any address. */
#define TYPE(name, type) typedef type name __attribute__((aligned(1), may_alias))
TYPE(u16, uint16_t);
TYPE(u32, uint32_t);
TYPE(u64, uint64_t);

static inline __m128i load(const char *from) { return _mm_loadu_si128((const __m128i *)from); }

static inline void store(char *to, __m128i value) { _mm_storeu_si128((__m128i *)to, value); }

/* A beginning and an end of the same size cover all lengths from one to two of it. */
#define BOTH_ENDS(type)                                                                           \
    do {                                                                                          \
        type first = *(const type *)from, last = *(const type *)(from + n - sizeof(type));        \
        *(type *)to = first;                                                                      \
        *(type *)(to + n - sizeof(type)) = last;                                                  \
    } while (0)

static inline void few(char *to, const char *from, size_t n) {
    if (n >= 8) BOTH_ENDS(u64);
    else if (n >= 4) BOTH_ENDS(u32);
    else if (n >= 2) BOTH_ENDS(u16);
    else if (n == 1) *to = *from;
}

/* From the first to the last: right where the destination does not begin within the source. */
static inline void forwards(char *to, const char *from, size_t n) {
    __m128i e0 = load(from + n - 64), e1 = load(from + n - 48);
    __m128i e2 = load(from + n - 32), e3 = load(from + n - 16);
    char *end = to + n;
    for (; n > 64; n -= 64, to += 64, from += 64) {
        __m128i a = load(from), b = load(from + 16), c = load(from + 32), d = load(from + 48);
        store(to, a), store(to + 16, b), store(to + 32, c), store(to + 48, d);
    }
    store(end - 64, e0), store(end - 48, e1), store(end - 32, e2), store(end - 16, e3);
}

static inline void backwards(char *to, const char *from, size_t n) {
    __m128i f0 = load(from), f1 = load(from + 16), f2 = load(from + 32), f3 = load(from + 48);
    for (; n > 64; n -= 64) {
        const char *at = from + n;
        char *there = to + n;
        __m128i a = load(at - 64), b = load(at - 48), c = load(at - 32), d = load(at - 16);
        store(there - 64, a), store(there - 48, b), store(there - 32, c), store(there - 16, d);
    }
    store(to, f0), store(to + 16, f1), store(to + 32, f2), store(to + 48, f3);
}

static inline void *copied(void *destination, const void *source, size_t n) {
    char *to = destination;
    const char *from = source;
    if (n <= 16) {
        few(to, from, n);
    } else if (n <= 32) {
        __m128i a = load(from), b = load(from + n - 16);
        store(to, a), store(to + n - 16, b);
    } else if (n <= 64) {
        __m128i a = load(from), b = load(from + 16);
        __m128i c = load(from + n - 32), d = load(from + n - 16);
        store(to, a), store(to + 16, b), store(to + n - 32, c), store(to + n - 16, d);
    } else if ((uintptr_t)to - (uintptr_t)from >= n) {
        forwards(to, from, n);
    } else {
        backwards(to, from, n);
    }
    return destination;
}

void *memmove(void *destination, const void *source, size_t n) {
    return copied(destination, source, n);
}

void *memcpy(void *restrict destination, const void *restrict source, size_t n) {
    return copied(destination, source, n);
}

/* Less than, equal to or greater than zero, as of two numbers that are written from the first byte
   on. */
static inline int order(u64 a, u64 b) {
    a = __builtin_bswap64(a), b = __builtin_bswap64(b);
    return (a > b) - (a < b);
}

static inline int compared(const unsigned char *a, const unsigned char *b, size_t n) {
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            if (a[i] != b[i]) return a[i] - b[i];
        return 0;
    }
    if (n < 16) {
        int first = order(*(const u64 *)a, *(const u64 *)b);
        return first ? first : order(*(const u64 *)(a + n - 8), *(const u64 *)(b + n - 8));
    }
    for (size_t i = 0;; i += 16) {
        /* The last sixteen may overlap with those before, which are alike. */
        if (i > n - 16) i = n - 16;
        __m128i alike = _mm_cmpeq_epi8(load((const char *)a + i), load((const char *)b + i));
        unsigned other = ~(unsigned)_mm_movemask_epi8(alike) & 0xffff;
        if (other) {
            i += (size_t)__builtin_ctz(other);
            return a[i] - b[i];
        }
        if (i == n - 16) return 0;
    }
}

int memcmp(const void *one, const void *other, size_t n) { return compared(one, other, n); }

int bcmp(const void *one, const void *other, size_t n) { return compared(one, other, n); }
