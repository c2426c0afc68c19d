/* The three products of a dense layer are one product, C (rows, columns) = A B: A is read element by element at two
 * free strides (so also transposed), B and C by whole vectors. Every output is one accumulator that adds k in ascending
 * order; a block of k stores C and the next one continues it. Hence no bit depends on the tile, the vector width, the
 * compiler, or on how the caller splits rows and columns. */

#ifdef __clang__
#define FNN_UNROLL_K _Pragma("clang loop unroll_count(4)")
#else
#define FNN_UNROLL_K _Pragma("GCC unroll 4")
#endif

/* Tile shapes as (rows, vectors). With 32 registers 6x4 is best and 8 rows below it (12x2 and 12x1 lost up to 40 % at k
 * of 4 to 8, where short tiles overlap). With 16 registers 6x2 beat 4x3: its panels divide every padded width; 8x1
 * serves the last vector of a width that ends in the first half of a PAD. From PACK_ROWS rows on, tiles have the
 * heights of FNN_COPYING_SHAPES. NEON computes whole PADs: it has 4x4, since GCC 12 spills sums of 5x4 and 6x4 in the
 * inner loop. */
#define FNN_SHAPES_4(DO, V) DO(1, V) DO(2, V) DO(3, V) DO(4, V)
#define FNN_SHAPES_6(DO, V) FNN_SHAPES_4(DO, V) DO(5, V) DO(6, V)
#define FNN_SHAPES_8(DO, V) FNN_SHAPES_6(DO, V) DO(7, V) DO(8, V)
#if FNN_VBYTES == 64
#define FNN_SHAPES(DO) FNN_SHAPES_8(DO, 1) FNN_SHAPES_8(DO, 2) FNN_SHAPES_8(DO, 3) FNN_SHAPES_6(DO, 4)
#define FNN_COPYING_SHAPES(DO) DO(5, 2) DO(6, 2) DO(5, 3) DO(6, 3) DO(5, 4) DO(6, 4)
#elif defined(FNN_NEON)
#define FNN_SHAPES(DO) FNN_SHAPES_4(DO, 4)
#define FNN_COPYING_SHAPES(DO) DO(3, 4) DO(4, 4)
#else
#define FNN_SHAPES(DO) FNN_SHAPES_8(DO, 1) FNN_SHAPES_6(DO, 2)
#define FNN_COPYING_SHAPES(DO) DO(5, 2) DO(6, 2)
#endif

enum {
#if FNN_VBYTES == 64 || defined(FNN_NEON)
    PANEL_VECTORS = 4,
    BLOCK_K = 128, /* a panel of B this deep stays in L1 (AVX-512: +14 % at k = 784, x1.9 at 1024) */
    DEEP_BLOCK_K = BLOCK_K,
    PACK_K = 64, /* a copy of a transposed A pays from this depth on */
#else
    PANEL_VECTORS = 2,
    BLOCK_K = 256,       /* of a transposed A: +4 % over 128 at 128x784x512; 512 lost 3 % */
    DEEP_BLOCK_K = 1040, /* a panel of B this deep stays in L2, and C is stored once: +3 to +5 % over 256 */
    PACK_K = 129,        /* a copy of a transposed A pays from this depth on */
#endif
#ifdef FNN_NEON
    COLUMN_VECTORS = PANEL_VECTORS, /* columns are computed in multiples of this many vectors */
#else
    COLUMN_VECTORS = 1,
#endif
    TILE_ROWS = 8, /* the table's bound; max_tile_rows() gives each panel's own */

    BLOCK_ROWS = 192,                         /* rows of A and C this many stay in L2 while B passes by */
    PACK_ROWS = 48,                           /* a copy of a panel of B pays from this many rows on, */
    FAR_K = 400,                              /* or from half as many where it is deep */
    FAR_STRIDE = 2048 / (int)sizeof(real),    /* and its rows are this far apart (32x512x784: 83 to 90 GFLOP/s) */
    PACK_PANELS = 4,                          /* and that of A from this many panels on, */
    PACKED_A = 49 * 1024 / (int)sizeof(real), /* with at most this many elements */
    PACKED_B = BLOCK_K * PANEL_VECTORS * VW,
    PACKED = PACKED_A + PACKED_B, /* on the stack: a thread may have no more than 128 KiB */
};

/* Tiles of `count` neighbouring groups of rows over one panel of columns. */
typedef struct tiles {
    real *c;
    const real *a, *b;
    const real *bias; /* or NULL; read where the sums do not continue those in C */
    real *copy;       /* NULL, or where B is left row by row without gaps */
    size_t count, k, ldc, row_stride, k_stride, ldb;
    size_t a_step; /* elements of A from one tile to the next */
    int continues, relu, updates;
    real rate; /* updates: C -= rate * product */
} tiles;

/* What the loop over k does not need is read again after it: registers are short, and none may be spilled inside. */
#define FNN_FORGET_MEMORY() __asm__ volatile("" ::: "memory")

/* `rows`, `vectors` and `copies` are literals in every caller, so that `sum` lives in registers and all loops but the
 * one over k disappear. Runtime strides of A serve both of its orders with one set of kernels. */
FNN_INLINE void start_tile(vreal *sum, const tiles *t, const real *c, const int rows, const int vectors)
{
    const size_t ldc = t->ldc;
    if (t->continues) {
        FNN_UNROLL
        for (int i = 0; i < rows; i++) {
            FNN_UNROLL
            for (int j = 0; j < vectors; j++)
                sum[i * vectors + j] = vload(c + (size_t)i * ldc + j * VW);
        }
        return;
    }
    FNN_UNROLL
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + (size_t)i * ldc, 1); /* dW at a batch of 32: +3 % */
        FNN_UNROLL
        for (int j = 0; j < vectors; j++)
            sum[i * vectors + j] = t->bias ? vload(t->bias + j * VW) : (vreal){0};
    }
}

/* Four steps of k to an iteration: +2 to +4 % (AVX2). */
FNN_INLINE void multiply_tile(vreal *sum, const tiles *t, const real *a, const int rows, const int vectors,
                              const int copies)
{
    const size_t ldb = t->ldb, row_stride = t->row_stride, k_stride = t->k_stride;
    const real *b = t->b;
    real *copy = t->copy;
    FNN_UNROLL_K
    for (size_t p = t->k; p; p--) {
        vreal row_of_b[PANEL_VECTORS];
        FNN_UNROLL
        for (int j = 0; j < vectors; j++) {
            row_of_b[j] = vload(b + j * VW);
            if (copies)
                vstore(copy + j * VW, row_of_b[j]);
        }
        FNN_UNROLL
        for (int i = 0; i < rows; i++) {
            const vreal ai = vsplat(a[(size_t)i * row_stride]);
            FNN_UNROLL
            for (int j = 0; j < vectors; j++)
                sum[i * vectors + j] = vfma(ai, row_of_b[j], sum[i * vectors + j]);
        }
        a += k_stride;
        b += ldb;
        if (copies)
            copy += vectors * VW;
    }
}

FNN_INLINE void finish_tile(vreal *sum, const tiles *t, real *c, const int rows, const int vectors)
{
    const size_t ldc = t->ldc;
    if (t->relu) {
        FNN_UNROLL
        for (int i = 0; i < rows * vectors; i++)
            sum[i] = vactivate(sum[i], FNN_RELU, 0);
    }
    FNN_UNROLL
    for (int i = 0; i < rows; i++) {
        FNN_UNROLL
        for (int j = 0; j < vectors; j++) {
            real *to = c + (size_t)i * ldc + j * VW;
            vreal value = sum[i * vectors + j];
            if (t->updates)
                value = vfma(vsplat(-t->rate), value, vload(to));
            vstore(to, value);
        }
    }
}

/* Leaves t at the first row behind the tiles. */
FNN_INLINE void compute_tiles(tiles *t, vreal *sum, const int rows, const int vectors, const int copies)
{
    for (; t->count; t->count--) {
        start_tile(sum, t, t->c, rows, vectors);
        multiply_tile(sum, t, t->a, rows, vectors, copies);
        FNN_FORGET_MEMORY();
        finish_tile(sum, t, t->c, rows, vectors);
        t->a += t->a_step;
        t->c += (size_t)rows * t->ldc;
        FNN_FORGET_MEMORY();
    }
}

#define FNN_DEFINE_TILES(ROWS, VECTORS)            \
    static void tiles_##ROWS##x##VECTORS(tiles *t) \
    {                                              \
        vreal sum[(ROWS) * (VECTORS)];             \
        compute_tiles(t, sum, ROWS, VECTORS, 0);   \
    }
#define FNN_DEFINE_COPYING_TILES(ROWS, VECTORS)            \
    static void copying_tiles_##ROWS##x##VECTORS(tiles *t) \
    {                                                      \
        vreal sum[(ROWS) * (VECTORS)];                     \
        compute_tiles(t, sum, ROWS, VECTORS, 1);           \
    }
#define FNN_LIST_TILES(ROWS, VECTORS) [VECTORS][ROWS] = tiles_##ROWS##x##VECTORS,
#define FNN_LIST_COPYING_TILES(ROWS, VECTORS) [VECTORS][ROWS] = copying_tiles_##ROWS##x##VECTORS,
FNN_SHAPES(FNN_DEFINE_TILES)
FNN_COPYING_SHAPES(FNN_DEFINE_COPYING_TILES)

typedef void (*tile_kernel)(tiles *);
static const tile_kernel tile_kernels[PANEL_VECTORS + 1][TILE_ROWS + 1] = {FNN_SHAPES(FNN_LIST_TILES)};
static const tile_kernel copying_kernels[PANEL_VECTORS + 1][TILE_ROWS + 1] = {
    FNN_COPYING_SHAPES(FNN_LIST_COPYING_TILES)};

FNN_INLINE size_t max_tile_rows(size_t vectors)
{
#ifdef FNN_NEON
    (void)vectors;
    return 4;
#else
    return vectors < PANEL_VECTORS ? 8 : 6;
#endif
}

/* Rows split evenly over tiles (16 = 6+5+5, not 6+6+4): short tiles waste the multiplier. The taller tiles, of
 * height + 1, come first. */
typedef struct row_split {
    size_t height, taller, count;
} row_split;

FNN_INLINE row_split split_rows(size_t rows, size_t vectors)
{
    const size_t most = max_tile_rows(vectors);
    const size_t count = (rows + most - 1) / most;
    return (row_split){.height = rows / count, .taller = rows % count, .count = count};
}

/* `count` tiles of one height. Where B is to be copied the first one does it on its way, and the others read the copy.
 */
static void run_tiles(tiles *t, size_t count, size_t height, size_t vectors, size_t a_step)
{
    t->a_step = a_step;
    if (t->copy && count) {
        t->count = 1;
        copying_kernels[vectors][height](t);
        t->b = t->copy;
        t->ldb = vectors * VW;
        t->copy = NULL;
        count--;
    }
    t->count = count;
    if (count)
        tile_kernels[vectors][height](t);
}

/* Elements between the tiles of a packed A: the last vector of a tile may reach into the gap. */
FNN_INLINE size_t packed_step(size_t k, size_t height)
{
    return k * height + VW;
}

/* A transposed A, in the order in which its tiles read it: [tile][k][row]. */
static void pack_a(real *to, const real *from, row_split s, size_t k, size_t rows, size_t k_stride)
{
    for (size_t p = 0; p < k; p++, from += k_stride) {
        real *tile = to;
        size_t row = 0;
        for (size_t n = 0; n < s.count; n++) {
            const size_t height = s.height + (n < s.taller);
            for (size_t i = 0; i < height; i += VW)
                vstore(tile + p * height + i, vload_first(from + row + i, rows - row - i));
            row += height;
            tile += packed_step(k, height);
        }
    }
}

/* One block of rows and of k, all columns, panel by panel. The rows of B lie a leading dimension apart, each on another
 * page: the tile that reads them first copies them (AVX2: 91 to 97 GFLOP/s at 128x256x512; a copy made before the tiles
 * cost half of that; AVX-512 at 512x1024x1024: 120 to 151 with any copy). A deep transposed A is copied as well: its
 * tiles use a whole cache line per step of k (AVX2: dW of 512x1024x1024 from 89 to 93). Blocks of 96 and 384 rows lost.
 */
static void multiply_block(tiles t, size_t rows, size_t vectors)
{
    const size_t n_panels = (vectors + PANEL_VECTORS - 1) / PANEL_VECTORS;
    const size_t ldb = t.ldb;
    const size_t least_copied = t.k >= FAR_K && ldb >= FAR_STRIDE ? PACK_ROWS / 2 : PACK_ROWS;
    const int packs_a = t.row_stride == 1 && rows > 1 && t.k >= PACK_K && n_panels >= PACK_PANELS;
    _Static_assert((int)PACKED >= (int)DEEP_BLOCK_K * PANEL_VECTORS * VW, "room for the deepest panel of B");
    real packed[PACKED], *const packed_b = packed, *const packed_a = packed + PACKED_B;
    const real *a = t.a, *const b = t.b, *const bias = t.bias;
    real *const c = t.c;
    size_t column = 0;
    if (packs_a) {
        pack_a(packed_a, a, split_rows(rows, PANEL_VECTORS), t.k, rows, t.k_stride);
        a = packed_a;
    }
    for (size_t panel = 0; panel < n_panels; panel++) {
        const size_t width = vectors / n_panels + (panel < vectors % n_panels);
        const int copies = rows >= least_copied && width >= 2 && ldb > width * VW;
        const row_split s = split_rows(rows, packs_a || copies ? PANEL_VECTORS : width);
        t.a = a;
        t.c = c + column;
        t.bias = bias ? bias + column : NULL;
        t.b = b + column;
        t.ldb = ldb;
        t.copy = copies ? packed_b : NULL;
        for (int taller = 1; taller >= 0; taller--) {
            const size_t height = s.height + (size_t)taller;
            if (packs_a)
                t.k_stride = height;
            run_tiles(&t, taller ? s.taller : s.count - s.taller, height, width,
                      packs_a ? packed_step(t.k, height) : height * t.row_stride);
        }
        column += width * VW;
    }
}

/* Rows of a block whose part of A is packed: what PACKED_A holds, the gaps included, in whole tiles. */
FNN_INLINE size_t packed_rows(size_t k)
{
    const size_t height = max_tile_rows(PANEL_VECTORS);
    return PACKED_A / (packed_step(k, height)) * height;
}

/* In one go where the rows have no gap, or one of zeros that stay zero: a call for each row took as long as the values
 * of 20 columns. */
static void activate_rows(real *c, fnn_activation activation, double alpha, size_t rows, size_t n, size_t padded,
                          size_t ldc)
{
    const int keeps_zero = activation != FNN_SIGMOID && activation != FNN_SOFTPLUS;
    if (padded == ldc && (n == ldc || keeps_zero)) {
        activation_forward(c, c, activation, alpha, rows * ldc);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        activation_forward(c + i * ldc, c + i * ldc, activation, alpha, n);
}

/* C (m,n) = activation(A (m,k) B (k,n) + bias), C += A B with ACCUMULATE, or C -= rate A B with UPDATE, for
 * which k <= BLOCK_K. Element (i,p) of A is at a[i * row_stride + p * k_stride], one of the strides being 1. */
enum product_use { OVERWRITE, ACCUMULATE, UPDATE };

static void multiply(real *c, const real *a, const real *b, const real *bias, enum product_use use, double rate,
                     fnn_activation activation, double alpha, size_t m, size_t n, size_t k, size_t ldc,
                     size_t row_stride, size_t k_stride, size_t ldb)
{
    const size_t vectors = (n + COLUMN_VECTORS * VW - 1) / (COLUMN_VECTORS * VW) * COLUMN_VECTORS;
    const size_t padded = (n + PAD - 1) / PAD * PAD;
    const int transposed = row_stride == 1;
    const size_t most = transposed ? BLOCK_K : DEEP_BLOCK_K;
    const size_t n_blocks = k ? (k + most - 1) / most : 1, deepest = (k + n_blocks - 1) / n_blocks;
    const size_t block_rows = transposed && deepest >= PACK_K ? packed_rows(deepest) : BLOCK_ROWS;
    for (size_t row = 0; row < m && vectors; row += block_rows) {
        const size_t rows = m - row < block_rows ? m - row : block_rows;
        size_t p = 0;
        for (size_t block = 0; block < n_blocks; block++) {
            const size_t depth = k / n_blocks + (block < k % n_blocks);
            const tiles t = {.c = c + row * ldc,
                             .a = a + row * row_stride + p * k_stride,
                             .b = b + p * ldb,
                             .bias = bias,
                             .k = depth,
                             .ldc = ldc,
                             .row_stride = row_stride,
                             .k_stride = k_stride,
                             .ldb = ldb,
                             .continues = use == ACCUMULATE || block > 0,
                             .relu = activation == FNN_RELU && block == n_blocks - 1,
                             .updates = use == UPDATE,
                             .rate = (real)rate};
            multiply_block(t, rows, vectors);
            p += depth;
        }
        for (size_t i = row; i < row + rows; i++)
            for (size_t j = vectors * VW; j < padded && use == OVERWRITE; j += VW)
                vstore(c + i * ldc + j, (vreal){0});
        if (activation != FNN_IDENTITY && activation != FNN_RELU)
            activate_rows(c + row * ldc, activation, alpha, rows, n, padded, ldc);
    }
}

static void dense_forward(void *y, const void *x, const void *w, const void *bias, fnn_activation activation,
                          double alpha, size_t m, size_t n, size_t k, size_t ldy, size_t ldx, size_t ldw)
{
    if (m == 1)
        multiply_row(y, x, w, bias, activation, alpha, n, k, ldw);
    else
        multiply(y, x, w, bias, OVERWRITE, 0, activation, alpha, m, n, k, ldy, ldx, 1, ldw);
}

/* One row's dW, a product without a sum: rows of C stream by, whole panels of tiles would only scatter the stores. */
FNN_INLINE void multiply_one_row(real *c, const real *x, const real *dy, enum product_use use, real rate, size_t k,
                                 size_t n, size_t ldc)
{
    const size_t columns = (n + PAD - 1) / PAD * PAD;
    for (size_t i = 0; i < k; i++, c += ldc) {
        const vreal xi = vsplat(x[i]);
        for (size_t j = 0; j < columns; j += VW) {
            const vreal product = vfma(xi, vload(dy + j), use == ACCUMULATE ? vload(c + j) : (vreal){0});
            vstore(c + j, use == UPDATE ? vfma(vsplat(-rate), product, vload(c + j)) : product);
        }
    }
}

_Static_assert(FNN_UPDATE_ROWS <= BLOCK_K, "an update needs the whole sum");

static void dense_update_weights(void *w, const void *x, const void *dy, double rate, size_t k, size_t n, size_t m,
                                 size_t ldw, size_t ldx, size_t lddy)
{
    if (m == 1)
        multiply_one_row(w, x, dy, UPDATE, (real)rate, k, n, ldw);
    else
        multiply(w, x, dy, NULL, UPDATE, rate, FNN_IDENTITY, 0, k, n, m, ldw, 1, ldx, lddy);
}

static void dense_backward_weights(void *dw, const void *x, const void *dy, int accumulate, size_t k, size_t n,
                                   size_t m, size_t lddw, size_t ldx, size_t lddy)
{
    if (m == 1 && accumulate)
        multiply_one_row(dw, x, dy, ACCUMULATE, 0, k, n, lddw);
    else if (m == 1)
        multiply_one_row(dw, x, dy, OVERWRITE, 0, k, n, lddw);
    else
        multiply(dw, x, dy, NULL, accumulate ? ACCUMULATE : OVERWRITE, 0, FNN_IDENTITY, 0, k, n, m, lddw, 1, ldx, lddy);
}

/* The dot form (rows of dy times rows of w, no transposed copy) was the slowest at every size and sums in lanes. */
static void dense_backward_input(void *dx, const void *dy, const void *wt, size_t m, size_t k, size_t n, size_t lddx,
                                 size_t lddy, size_t ldwt)
{
    if (m == 1)
        multiply_row(dx, dy, wt, NULL, FNN_IDENTITY, 0, k, n, ldwt);
    else
        multiply(dx, dy, wt, NULL, OVERWRITE, 0, FNN_IDENTITY, 0, m, k, n, lddx, lddy, 1, ldwt);
}
