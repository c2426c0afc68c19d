/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter in, four random
 * words out, no state. Any element of any stream can be drawn alone, by any thread, in any order.
 *
 *   key        seed low 32 | seed high 32
 *   counter 0  block low 32
 *   counter 1  block bits 32..47 | layer << 16
 *   counter 2  step low 32
 *   counter 3  step bits 32..55 | stream << 24
 *
 * A block is four words. 64-bit draws: element e is words 2 (e % 2) (low) and 2 (e % 2) + 1 (high) of block e / 2.
 * 16-bit draws: element e is value e % 8 of block e / 8, where value 2 i + h is half h (0 = low) of word i.
 *
 * The known answers of Random123, in our fields (seed, step, stream, layer, block -> words):
 *   0, 0, 0, 0, 0
 *     -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8
 *   ffffffffffffffff, ffffffffffffff, ff, ffff, ffffffffffff
 *     -> 408f276d 41c83b0e a20bc7c6 6d5451fd
 *   299f31d0a4093822, 70734413198a2e, 3, 85a3, 8d3243f6a88
 *     -> d16cfe09 94fdcceb 5001e420 24126ea1 */

#define PHILOX_MULTIPLIER_0 0xd2511f53u
#define PHILOX_MULTIPLIER_1 0xcd9e8d57u
#define PHILOX_KEY_STEP_0 0x9e3779b9u /* golden ratio */
#define PHILOX_KEY_STEP_1 0xbb67ae85u /* sqrt 3 - 1 */

enum { PHILOX_ROUNDS = 10 };

typedef struct philox_words {
    uint32_t word[4];
} philox_words;

static philox_words philox(const fnn_random *random, uint64_t block)
{
    uint32_t k0 = (uint32_t)random->seed, k1 = (uint32_t)(random->seed >> 32);
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32 & 0xffff) | random->layer << 16;
    uint32_t c2 = (uint32_t)random->step, c3 = (uint32_t)(random->step >> 32 & 0xffffff) | random->stream << 24;
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product0 = (uint64_t)PHILOX_MULTIPLIER_0 * c0;
        uint64_t product1 = (uint64_t)PHILOX_MULTIPLIER_1 * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += PHILOX_KEY_STEP_0;
        k1 += PHILOX_KEY_STEP_1;
    }
    return (philox_words){{c0, c1, c2, c3}};
}

/* The 64 random bits of an element. */
FNN_INLINE uint64_t philox_u64(const philox_words *words, uint64_t element)
{
    size_t low = element % 2 * 2;
    return words->word[low] | (uint64_t)words->word[low + 1] << 32;
}

/* The products of the low halves of the 64-bit lanes; the high halves are ignored. The compilers do not find this
 * instruction in (a & 0xffffffff) * (b & 0xffffffff) and emulate a 64-bit product. */
FNN_INLINE vu64 multiply_low_halves(vu64 a, vu64 b)
{
#if FNN_VBYTES == 64
    return (vu64)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif FNN_VBYTES == 32
    return (vu64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (vu64)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__ARM_NEON)
    return (vu64)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
    return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

FNN_INLINE vu64 splat_u64(uint64_t a)
{
    return a - (vu64){0};
}

/* VD consecutive blocks at once: lane i of word[w] holds, in its low half, word w of block first + i. The high halves
 * hold leftovers: clearing them in every round would cost a third of the time. */
typedef struct philox_lanes {
    vu64 word[4];
} philox_lanes;

/* `count` (a literal) vectors of blocks from block first on, side by side: a round waits for the one before it, and
 * alone leaves half of the processor idle (Zen 3). */
FNN_INLINE void philox_vectors(philox_lanes *drawn, const fnn_random *random, uint64_t first, const int count)
{
    uint32_t k0 = (uint32_t)random->seed, k1 = (uint32_t)(random->seed >> 32);
    vu64 lane = {0};
    for (int i = 0; i < VD; i++)
        lane[i] = (uint64_t)i;
    FNN_UNROLL
    for (int v = 0; v < count; v++) {
        const vu64 block = lane + (first + (uint64_t)v * VD);
        drawn[v].word[0] = block;
        drawn[v].word[1] = (block >> 32 & 0xffff) | (uint64_t)random->layer << 16;
        drawn[v].word[2] = splat_u64(random->step);
        drawn[v].word[3] = splat_u64((random->step >> 32 & 0xffffff) | (uint64_t)random->stream << 24);
    }
    FNN_UNROLL
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        FNN_UNROLL
        for (int v = 0; v < count; v++) {
            vu64 *c = drawn[v].word;
            const vu64 product0 = multiply_low_halves(c[0], splat_u64(PHILOX_MULTIPLIER_0));
            const vu64 product1 = multiply_low_halves(c[2], splat_u64(PHILOX_MULTIPLIER_1));
            c[0] = (product1 >> 32) ^ c[1] ^ k0;
            c[1] = product1;
            c[2] = (product0 >> 32) ^ c[3] ^ k1;
            c[3] = product0;
        }
        k0 += PHILOX_KEY_STEP_0;
        k1 += PHILOX_KEY_STEP_1;
    }
}
