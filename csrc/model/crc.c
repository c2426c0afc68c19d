/* CRC-32 of IEEE 802.3, as zlib computes it, eight bytes at a time. */
#include <pthread.h>
#include <string.h>

#include "model.h"

enum { BYTES_AT_ONCE = 8, POLYNOMIAL_BITS = 8 };
static const uint32_t POLYNOMIAL = 0xEDB88320u; /* reflected */

/* table[k][b]: the remainder of byte b with k zero bytes behind it. */
static uint32_t table[BYTES_AT_ONCE][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t remainder = b;
        for (int i = 0; i < POLYNOMIAL_BITS; i++)
            remainder = remainder & 1 ? remainder >> 1 ^ POLYNOMIAL : remainder >> 1;
        table[0][b] = remainder;
    }
    for (int k = 1; k < BYTES_AT_ONCE; k++)
        for (int b = 0; b < 256; b++)
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255];
}

uint32_t fnn_crc32(uint32_t crc, const void *bytes, size_t size)
{
    pthread_once(&once, fill_table);
    const unsigned char *at = bytes;
    crc = ~crc;
    for (; size >= BYTES_AT_ONCE; size -= BYTES_AT_ONCE, at += BYTES_AT_ONCE) {
        uint32_t low, high;
        memcpy(&low, at, sizeof low);
        memcpy(&high, at + sizeof low, sizeof high);
        low ^= crc;
        crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
              table[3][high & 255] ^ table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^ table[0][high >> 24];
    }
    for (; size > 0; size--, at++)
        crc = crc >> 8 ^ table[0][(crc ^ *at) & 255];
    return ~crc;
}
