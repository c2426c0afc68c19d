/* Dropout. The mask of a stretch of elements is made first, as bytes, and applied second: forward, backward and the
 * enumeration of all masks share the application, and a kept byte costs far less than its random bits. */

typedef uint8_t vu8 __attribute__((vector_size(FNN_VBYTES)));
typedef uint16_t vu16 __attribute__((vector_size(FNN_VBYTES)));

enum {
    DROPOUT_STEP = 2 * FNN_VBYTES, /* elements whose bits are drawn at once */
    DROPOUT_STRETCH = 1024         /* elements per stretch: a multiple of it that stays in L1 */
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "16-bit lanes are taken from 64-bit lanes low half first");

/* Comparison results in 16-bit lanes to bytes, where a 64-bit lane of low and the same of high make eight bytes. */
FNN_INLINE vu8 pack_comparisons(vu16 low, vu16 high)
{
#if FNN_VBYTES == 64
    return (vu8)_mm512_shuffle_epi32(_mm512_packs_epi16((__m512i)low, (__m512i)high), _MM_PERM_DBCA);
#elif FNN_VBYTES == 32
    return (vu8)_mm256_shuffle_epi32(_mm256_packs_epi16((__m256i)low, (__m256i)high), _MM_SHUFFLE(3, 1, 2, 0));
#elif defined(__SSE2__)
    return (vu8)_mm_shuffle_epi32(_mm_packs_epi16((__m128i)low, (__m128i)high), _MM_SHUFFLE(3, 1, 2, 0));
#else
    return __builtin_shufflevector((vu8)low, (vu8)high, 0, 2, 4, 6, 16, 18, 20, 22, 8, 10, 12, 14, 24, 26, 28, 30);
#endif
}

/* kept (count, rounded up to DROPOUT_STEP) = 1 where the 16 random bits are >= threshold, else 0; from block on. */
static void draw_kept(uint8_t *kept, uint32_t threshold, const fnn_random *random, uint64_t block, size_t count)
{
    vu16 limit = (uint16_t)threshold - (vu16){0};
    vu8 one = (uint8_t)(threshold < 65536) - (vu8){0}; /* at 65536 nothing is kept */
    for (size_t i = 0; i < count; i += DROPOUT_STEP, block += DROPOUT_STEP / 8) {
        philox_lanes w[DROPOUT_STEP / FNN_VBYTES];
        philox_vectors(w, random, block, DROPOUT_STEP / FNN_VBYTES);
        FNN_UNROLL
        for (int v = 0; v < DROPOUT_STEP / FNN_VBYTES; v++) {
            vu64 low = (w[v].word[0] & 0xffffffff) | w[v].word[1] << 32;
            vu64 high = (w[v].word[2] & 0xffffffff) | w[v].word[3] << 32;
            vu8 bytes = one & ~pack_comparisons((vu16)((vu16)low < limit), (vu16)((vu16)high < limit));
            memcpy(kept + i + v * FNN_VBYTES, &bytes, sizeof bytes);
        }
    }
}

/* VW mask bytes as lanes: 0, or anything else where the byte is 1. */
FNN_INLINE vint load_mask(const uint8_t *kept)
{
#if FNN_VBYTES == 64 && FNN_REAL_BITS == 32
    return (vint)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)kept));
#elif FNN_VBYTES == 64
    return (vint)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)kept));
#elif FNN_VBYTES == 32 && FNN_REAL_BITS == 32
    return (vint)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)kept));
#elif FNN_VBYTES == 32
    int32_t bytes;
    memcpy(&bytes, kept, sizeof bytes);
    return (vint)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes));
#elif FNN_REAL_BITS == 32
    return (vint){kept[0], kept[1], kept[2], kept[3]};
#else
    return (vint){kept[0], kept[1]};
#endif
}

/* y = kept ? x * scale : 0 for n elements. A selection, so that NaN and infinity are dropped like any other value.
 * Where `room` elements of x, y and kept may be touched, the vector of the last element is written whole, with 0
 * behind it: narrow rows would otherwise spend their time on partial vectors. */
static void apply_mask(real *y, const real *x, const uint8_t *kept, real scale, size_t n, size_t room)
{
    vint lane = {0};
    for (int l = 0; l < VW; l++)
        lane[l] = l;
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        vstore(y + i, vselect(load_mask(kept + i) != 0, vload(x + i) * scale, vsplat(0)));
    if (i < n && i + VW <= room) {
        vint mask = (load_mask(kept + i) != 0) & (lane < (real_int)(n - i));
        vstore(y + i, vselect(mask, vload(x + i) * scale, vsplat(0)));
    } else if (i < n) {
        uint8_t tail[VW] = {0};
        for (size_t l = 0; l < VW && i + l < n; l++)
            tail[l] = kept[i + l];
        vreal v = vselect(load_mask(tail) != 0, vload_partial(x + i, n - i) * scale, vsplat(0));
        vstore_partial(y + i, v, n - i);
    }
}

static void dropout_forward(void *y, uint8_t *mask, const void *x, uint32_t threshold, double scale,
                            const fnn_random *random, uint64_t first_row, size_t m, size_t n, size_t ld)
{
    uint8_t kept[DROPOUT_STRETCH + VW]; /* apply_mask may look at a vector behind the last row */
    size_t row_length = (n + 7) / 8 * 8;
    /* Rows follow each other in the stream, so narrow ones share a stretch. */
    size_t rows_per_stretch = row_length && row_length < DROPOUT_STRETCH ? DROPOUT_STRETCH / row_length : 1;
    for (size_t i = 0; i < m; i += rows_per_stretch) {
        size_t rows = rows_per_stretch < m - i ? rows_per_stretch : m - i;
        for (size_t j = 0; j < n; j += DROPOUT_STRETCH) {
            size_t columns = n - j < DROPOUT_STRETCH ? n - j : DROPOUT_STRETCH;
            uint64_t block = (first_row + i) * (row_length / 8) + j / 8;
            draw_kept(kept, threshold, random, block, (rows - 1) * row_length + columns);
            for (size_t r = 0; r < rows; r++) {
                size_t at = (i + r) * ld + j;
                apply_mask((real *)y + at, (const real *)x + at, kept + r * row_length, (real)scale, columns, ld - j);
                if (mask)
                    copy_short(mask + at, kept + r * row_length, columns);
            }
        }
        for (size_t r = i; r < i + rows && n < ld; r++) {
            memset((real *)y + r * ld + n, 0, (ld - n) * sizeof(real));
            if (mask)
                memset(mask + r * ld + n, 0, ld - n);
        }
    }
}

static void dropout_backward(void *dx, const void *dy, const uint8_t *mask, double scale, size_t count)
{
    apply_mask(dx, dy, mask, (real)scale, count, count);
}

/* Bits beyond the 64 of the integer are 0: kept. */
static void dropout_enumerated(void *y, const void *x, double scale, uint64_t first_mask, unsigned first_bit, size_t m,
                               size_t n, size_t ld, size_t ldx)
{
    uint8_t kept[64];
    for (size_t i = 0; i < m; i++) {
        real *row = (real *)y + i * ld;
        for (size_t j = 0; j < n; j += 64) {
            uint64_t dropped = first_bit + j < 64 ? (first_mask + i) >> (first_bit + j) : 0;
            for (int bit = 0; bit < 64; bit++)
                kept[bit] = ~(dropped >> bit) & 1;
            size_t columns = n - j < 64 ? n - j : 64;
            apply_mask(row + j, (const real *)x + i * ldx + j, kept, (real)scale, columns, columns);
        }
        memset(row + n, 0, (ld - n) * sizeof(real));
    }
}
