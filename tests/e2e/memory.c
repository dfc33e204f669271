/* Tries what release/memory.c copies with: every length that has a way of its own and those
   around, everywhere, also where source and destination lie on top of each other, and at the
   edge of what may be read and written. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *our_memcpy(void *restrict, const void *restrict, size_t);
void *our_memmove(void *, const void *, size_t);

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
    printf("%lu copies\n", count);
    return 0;
}
