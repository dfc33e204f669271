/* Tries what release/memory.c copies and compares with: every length that has a way of its own and
   those around, everywhere, also where source and destination lie on top of each other, and at the
   edge of what may be read and written. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *our_memcpy(void *restrict, const void *restrict, size_t);
void *our_memmove(void *, const void *, size_t);
int our_memcmp(const void *, const void *, size_t);
int our_bcmp(const void *, const void *, size_t);

enum { MOST = 700, ROOM = 3 * MOST };

static unsigned char now[ROOM], before[ROOM], expected[ROOM];

static void fails(const char *what, size_t n, long from, long to) {
    printf("%s: %zu bytes from %ld to %ld\n", what, n, from, to);
    exit(1);
}

/* Byte by byte, of what was there before: so the order makes no difference. */
static void try_move(size_t n, size_t from, size_t to) {
    memcpy(now, before, ROOM);
    memcpy(expected, before, ROOM);
    for (size_t i = 0; i < n; i++) expected[to + i] = before[from + i];
    if (our_memmove(now + to, now + from, n) != now + to) fails("what it returns", n, from, to);
    if (memcmp(now, expected, ROOM) != 0) fails("memmove", n, from, to);
    if (from + n <= to || to + n <= from) {
        memcpy(now, before, ROOM);
        if (our_memcpy(now + to, now + from, n) != now + to) fails("what it returns", n, from, to);
        if (memcmp(now, expected, ROOM) != 0) fails("memcpy", n, from, to);
    }
}

static int sign(int of) { return (of > 0) - (of < 0); }

/* What they say of `n` bytes of which only that at `at` differs, and those behind it, which must
   not count. */
static void try_compare(unsigned char *one, unsigned char *other, size_t n, size_t at) {
    memcpy(one, before, n), memcpy(other, before, n);
    int expected = 0;
    if (at < n) {
        /* As bytes without a sign: 0x7f is less than 0x80. */
        one[at] = before[at] % 2 ? 0x80 : 0x7f, other[at] = before[at] % 2 ? 0x7f : 0x80;
        expected = before[at] % 2 ? 1 : -1;
        for (size_t i = at + 1; i < n; i++) one[i] = expected > 0 ? 0 : 0xff, other[i] = ~one[i];
    }
    if (sign(our_memcmp(one, other, n)) != expected) fails("memcmp", n, (long)at, 0);
    if (sign(our_memcmp(other, one, n)) != -expected) fails("memcmp", n, (long)at, 1);
    if (!our_bcmp(one, other, n) != !expected) fails("bcmp", n, (long)at, 0);
}

/* Pages that nothing may be read of, nor written to, before and behind one that it may. */
static unsigned char *island(size_t page) {
    unsigned char *pages =
        mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_READ | PROT_WRITE) != 0) {
        perror("pages");
        exit(1);
    }
    return pages + page;
}

int main(void) {
    unsigned long count = 0;
    for (size_t i = 0; i < ROOM; i++) before[i] = (unsigned char)(i * 131 + i / 251);
    for (size_t n = 0; n <= MOST; n++) {
        for (long distance = -(long)n - 3; distance <= (long)n + 3; distance++) {
            /* All distances where they matter, and some of those that are alike. */
            if (n > 160 && labs(distance) > 80 && labs(distance) < (long)n - 3 && distance % 17) continue;
            try_move(n, MOST, (size_t)((long)MOST + distance)), count++;
        }
        for (size_t at = 0; at < 16; at++) try_move(n, at, MOST + 16 - at), count++;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *one = island(page), *other = island(page);
    for (size_t n = 0; n <= MOST; n++) {
        memcpy(one, before, n), our_memcpy(other, one, n);
        if (memcmp(other, before, n) != 0) fails("at the beginning", n, 0, 0);
        memcpy(one + page - n, before, n), our_memmove(other + page - n, one + page - n, n);
        if (memcmp(other + page - n, before, n) != 0) fails("at the end", n, 0, 0);
        count += 2;
    }
    unsigned long compared = 0;
    for (size_t n = 0; n <= 200; n++) {
        for (size_t at = 0; at <= n; at++) {
            try_compare(one, other, n, at);
            try_compare(one + page - n, other + page - n, n, at);
            try_compare(one + 3, other + page - n, n, at);
            compared += 3;
        }
    }
    printf("%lu copies, %lu comparisons\n", count, compared);
    return 0;
}
