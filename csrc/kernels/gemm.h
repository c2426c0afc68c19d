/* The three products of a dense layer are one product, C (rows, columns) = A B: A is read element by element at two
 * free strides (so also transposed), B and C by whole vectors. Every output is one accumulator that adds k in ascending
 * order; a block of k stores C and the next one continues it. Hence no bit depends on the tile, the vector width, the
 * compiler, or on how the caller splits rows and columns. */

/* Tiles of `count` neighbouring groups of rows over one panel of columns. */
typedef struct tiles {
    real *c;
    const real *a, *b;
    const real *start; /* first values: C itself, the bias, or NULL for zeros */
    size_t count, k, ldc, row_stride, k_stride, ldb;
    int relu;
} tiles;

/* `rows` and `vectors` are literals in every caller, so that `sum` lives in registers and all loops but the one over k
 * disappear. Runtime strides of A serve both of its orders with one set of kernels. */
FNN_INLINE void compute_tiles(const tiles *t, vreal *sum, const int rows, const int vectors)
{
    const size_t ldc = t->ldc, ldb = t->ldb, row_stride = t->row_stride, k_stride = t->k_stride;
    const real *a_tile = t->a;
    real *c = t->c;
    for (size_t count = t->count; count; count--) {
        if (t->start == t->c) {
            FNN_UNROLL
            for (int i = 0; i < rows; i++) {
                FNN_UNROLL
                for (int j = 0; j < vectors; j++)
                    sum[i * vectors + j] = vload(c + (size_t)i * ldc + j * VW);
            }
        } else {
            FNN_UNROLL
            for (int i = 0; i < rows; i++) {
                FNN_UNROLL
                for (int j = 0; j < vectors; j++)
                    sum[i * vectors + j] = t->start ? vload(t->start + j * VW) : (vreal){0};
            }
        }
        const real *a = a_tile, *b = t->b;
        for (size_t p = t->k; p; p--) {
            FNN_UNROLL
            for (int i = 0; i < rows; i++) {
                const vreal ai = vsplat(a[(size_t)i * row_stride]);
                FNN_UNROLL
                for (int j = 0; j < vectors; j++)
                    sum[i * vectors + j] = vfma(ai, vload(b + j * VW), sum[i * vectors + j]);
            }
            a += k_stride;
            b += ldb;
        }
        if (t->relu) {
            FNN_UNROLL
            for (int i = 0; i < rows * vectors; i++)
                sum[i] = vactivate(sum[i], FNN_RELU, 0);
        }
        FNN_UNROLL
        for (int i = 0; i < rows; i++) {
            FNN_UNROLL
            for (int j = 0; j < vectors; j++)
                vstore(c + (size_t)i * ldc + j * VW, sum[i * vectors + j]);
        }
        a_tile += (size_t)rows * row_stride;
        c += (size_t)rows * ldc;
    }
}

/* Tile shapes as (rows, vectors). With 32 registers 6x4 is best and 8 rows below it (12x2 and 12x1 lost up to 40 % at k
 * of 4 to 8, where short tiles overlap). With 16 registers 6x2 beat 4x3: its panels divide every padded width. Panels
 * narrower than PANEL_VECTORS exist only where one vector is a whole PAD. A single row takes 8 vectors: it runs at the
 * speed of memory and needs independent sums. NEON has 4x4: GCC 12 spills sums of 5x4 and 6x4 in the inner loop. */
#define FNN_SHAPES_1(DO, V) DO(1, V)
#define FNN_SHAPES_4(DO, V) DO(1, V) DO(2, V) DO(3, V) DO(4, V)
#define FNN_SHAPES_6(DO, V) FNN_SHAPES_4(DO, V) DO(5, V) DO(6, V)
#define FNN_SHAPES_8(DO, V) FNN_SHAPES_6(DO, V) DO(7, V) DO(8, V)
#define FNN_SHAPES_ROW(DO) DO(1, 5) DO(1, 6) DO(1, 7) DO(1, 8)
#if FNN_VBYTES == 64
#define FNN_SHAPES(DO) \
    FNN_SHAPES_8(DO, 1) FNN_SHAPES_8(DO, 2) FNN_SHAPES_8(DO, 3) FNN_SHAPES_6(DO, 4) FNN_SHAPES_ROW(DO)
#elif defined(FNN_NEON)
#define FNN_SHAPES(DO) \
    FNN_SHAPES_1(DO, 1) FNN_SHAPES_1(DO, 2) FNN_SHAPES_1(DO, 3) FNN_SHAPES_4(DO, 4) FNN_SHAPES_ROW(DO)
#else
#define FNN_SHAPES(DO) \
    FNN_SHAPES_1(DO, 1) FNN_SHAPES_6(DO, 2) FNN_SHAPES_1(DO, 3) FNN_SHAPES_1(DO, 4) FNN_SHAPES_ROW(DO)
#endif

enum {
#if FNN_VBYTES == 64 || defined(FNN_NEON)
    PANEL_VECTORS = 4,
#else
    PANEL_VECTORS = 2,
#endif
    ROW_VECTORS = 8, /* widest panel of a single row */
    TILE_ROWS = 8,   /* the table's bound; max_tile_rows() gives each panel's own */

    BLOCK_K = 128,             /* a panel of B this deep stays in L1 (AVX-512: +14 % at k = 784, x1.9 at 1024) */
    BLOCK_ROWS = 192,          /* rows of A and C this many stay in L2 while B passes by */
    BLOCK_COLUMNS_A = 6 * PAD, /* the same for a transposed A, whose block is copied (48 KiB of stack) */
    PACK_ROWS = 48,            /* a copy pays from this many rows on */
    PACK_PANELS = 4            /* and a copy of A from this many panels on */
};

#define FNN_DEFINE_TILES(ROWS, VECTORS)                  \
    static void tiles_##ROWS##x##VECTORS(const tiles *t) \
    {                                                    \
        vreal sum[(ROWS) * (VECTORS)];                   \
        compute_tiles(t, sum, ROWS, VECTORS);            \
    }
#define FNN_LIST_TILES(ROWS, VECTORS) [VECTORS][ROWS] = tiles_##ROWS##x##VECTORS,
FNN_SHAPES(FNN_DEFINE_TILES)
static void (*const tile_kernels[ROW_VECTORS + 1][TILE_ROWS + 1])(const tiles *) = {FNN_SHAPES(FNN_LIST_TILES)};

FNN_INLINE size_t max_tile_rows(size_t vectors)
{
#ifdef FNN_NEON
    (void)vectors;
    return 4;
#else
    return FNN_VBYTES == 64 && vectors < PANEL_VECTORS ? 8 : 6;
#endif
}

/* Rows split evenly over the tiles (16 = 6+5+5, not 6+6+4): short tiles waste the multiplier. */
static void multiply_panel(tiles t, size_t rows, size_t vectors)
{
    const size_t most = rows == 1 ? 1 : max_tile_rows(vectors);
    const size_t n_tiles = (rows + most - 1) / most, height = rows / n_tiles, taller = rows % n_tiles;
    if (taller) {
        const size_t done = taller * (height + 1);
        const int continues = t.start == t.c;
        t.count = taller;
        tile_kernels[vectors][height + 1](&t);
        t.a += done * t.row_stride;
        t.c += done * t.ldc;
        if (continues)
            t.start = t.c;
    }
    t.count = n_tiles - taller;
    tile_kernels[vectors][height](&t);
}

/* to (rows, columns), contiguous, = from. */
static void pack(real *to, const real *from, size_t rows, size_t columns, size_t ld)
{
    const size_t whole = columns / VW * VW;
    for (size_t i = 0; i < rows; i++, to += columns, from += ld) {
        for (size_t j = 0; j < whole; j += VW)
            vstore(to + j, vload(from + j));
        if (whole < columns)
            vstore_partial(to + whole, vload_partial(from + whole, columns - whole), columns - whole);
    }
}

/* One block of rows and of k, all columns. A panel of B is copied: its rows lie a leading dimension apart, each on
 * another page (AVX2 +6 to 10 %; AVX-512 on a Xeon with 2 MiB of L2, forward and dW of 512x1024x1024 and 128x512x784:
 * 120 to 151 and 107 to 134 GFLOP/s). So is a transposed A, whose rows are far apart (+10 % AVX-512, +20 % AVX2 at
 * 1024). Blocks of 256 and 384 of k and of 96 and 384 rows lost. */
static void multiply_block(tiles t, const real *bias, size_t rows, size_t vectors, int continues)
{
    real packed_a[BLOCK_K * BLOCK_COLUMNS_A], packed_b[BLOCK_K * PANEL_VECTORS * VW];
    const real *const b = t.b;
    real *const c = t.c;
    const size_t ldb = t.ldb, widest = rows == 1 ? ROW_VECTORS : PANEL_VECTORS;
    const size_t n_panels = (vectors + widest - 1) / widest;
    if (t.row_stride == 1 && rows >= PACK_ROWS && n_panels >= PACK_PANELS) {
        pack(packed_a, t.a, t.k, rows, t.k_stride);
        t.a = packed_a;
        t.k_stride = rows;
    }
    size_t column = 0;
    for (size_t panel = 0; panel < n_panels; panel++) {
        const size_t width = vectors / n_panels + (panel < vectors % n_panels);
        t.c = c + column;
        t.start = continues ? t.c : bias ? bias + column : NULL;
        t.b = b + column;
        if (rows >= PACK_ROWS) {
            pack(packed_b, t.b, t.k, width * VW, ldb);
            t.b = packed_b;
            t.ldb = width * VW;
        }
        multiply_panel(t, rows, width);
        column += width * VW;
    }
}

/* C (m,n) = activation(A (m,k) B (k,n) + bias), or C += A B with accumulate. Element (i,p) of A is at
 * a[i * row_stride + p * k_stride], one of the strides being 1. */
static void multiply(real *c, const real *a, const real *b, const real *bias, int accumulate, fnn_activation activation,
                     double alpha, size_t m, size_t n, size_t k, size_t ldc, size_t row_stride, size_t k_stride,
                     size_t ldb)
{
    const size_t vectors = (n + PAD - 1) / PAD * (PAD / VW);
    const size_t block_rows = row_stride == 1 ? BLOCK_COLUMNS_A : BLOCK_ROWS;
    const size_t n_blocks = k ? (k + BLOCK_K - 1) / BLOCK_K : 1;
    if (m == 1 && k_stride == 1) {
        multiply_row(c, a, b, bias, activation, alpha, n, k, ldb);
        return;
    }
    for (size_t row = 0; row < m && vectors; row += block_rows) {
        const size_t rows = m - row < block_rows ? m - row : block_rows;
        size_t p = 0;
        for (size_t block = 0; block < n_blocks; block++) {
            const size_t depth = k / n_blocks + (block < k % n_blocks);
            const tiles t = {.c = c + row * ldc,
                             .a = a + row * row_stride + p * k_stride,
                             .b = b + p * ldb,
                             .k = depth,
                             .ldc = ldc,
                             .row_stride = row_stride,
                             .k_stride = k_stride,
                             .ldb = ldb,
                             .relu = activation == FNN_RELU && block == n_blocks - 1};
            multiply_block(t, bias, rows, vectors, accumulate || block > 0);
            p += depth;
        }
        if (activation != FNN_IDENTITY && activation != FNN_RELU)
            for (size_t i = row; i < row + rows; i++)
                activation_forward(c + i * ldc, c + i * ldc, activation, alpha, vectors * VW);
    }
}

static void dense_forward(void *y, const void *x, const void *w, const void *bias, fnn_activation activation,
                          double alpha, size_t m, size_t n, size_t k, size_t ldy, size_t ldx, size_t ldw)
{
    multiply(y, x, w, bias, 0, activation, alpha, m, n, k, ldy, ldx, 1, ldw);
}

static void dense_backward_weights(void *dw, const void *x, const void *dy, int accumulate, size_t k, size_t n,
                                   size_t m, size_t lddw, size_t ldx, size_t lddy)
{
    multiply(dw, x, dy, NULL, accumulate, FNN_IDENTITY, 0, k, n, m, lddw, 1, ldx, lddy);
}

/* The dot form (rows of dy times rows of w, no transposed copy) was the slowest at every size and sums in lanes. */
static void dense_backward_input(void *dx, const void *dy, const void *wt, size_t m, size_t k, size_t n, size_t lddx,
                                 size_t lddy, size_t ldwt)
{
    multiply(dx, dy, wt, NULL, 0, FNN_IDENTITY, 0, m, k, n, lddx, lddy, 1, ldwt);
}

/* Lanes of two vectors taken in turn: of their lower and of their upper halves. */
#if FNN_VBYTES * 8 / FNN_REAL_BITS == 2
#define FNN_ZIP_LOW 0, 2
#define FNN_ZIP_HIGH 1, 3
#elif FNN_VBYTES * 8 / FNN_REAL_BITS == 4
#define FNN_ZIP_LOW 0, 4, 1, 5
#define FNN_ZIP_HIGH 2, 6, 3, 7
#elif FNN_VBYTES * 8 / FNN_REAL_BITS == 8
#define FNN_ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define FNN_ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define FNN_ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define FNN_ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

/* VW x VW elements transposed in registers: log2(VW) perfect shuffles of the rows. */
FNN_INLINE void transpose_square(real *wt, const real *w, size_t ldwt, size_t ldw)
{
    vreal row[VW], shuffled[VW];
    FNN_UNROLL
    for (size_t i = 0; i < VW; i++)
        row[i] = vload(w + i * ldw);
    FNN_UNROLL
    for (int step = 1; step < VW; step *= 2) {
        FNN_UNROLL
        for (int i = 0; i < VW / 2; i++) {
            shuffled[2 * i] = __builtin_shufflevector(row[i], row[i + VW / 2], FNN_ZIP_LOW);
            shuffled[2 * i + 1] = __builtin_shufflevector(row[i], row[i + VW / 2], FNN_ZIP_HIGH);
        }
        FNN_UNROLL
        for (int i = 0; i < VW; i++)
            row[i] = shuffled[i];
    }
    FNN_UNROLL
    for (size_t i = 0; i < VW; i++)
        vstore(wt + i * ldwt, row[i]);
}

static void transpose(void *wt, const void *w, size_t rows, size_t columns, size_t ldwt, size_t ldw)
{
    real *to = wt;
    const real *from = w;
    const size_t square_rows = rows / VW * VW, square_columns = columns / VW * VW;
    /* Down the rows first: whole cache lines of wt are completed one after the other. */
    for (size_t j = 0; j < square_columns; j += VW)
        for (size_t i = 0; i < square_rows; i += VW)
            transpose_square(to + j * ldwt + i, from + i * ldw + j, ldwt, ldw);
    for (size_t j = 0; j < columns; j++)
        for (size_t i = j < square_columns ? square_rows : 0; i < ldwt; i++)
            to[j * ldwt + i] = i < rows ? from[i * ldw + j] : 0;
}

/* Sums of `vectors` (a literal) vectors of columns, kept in registers over all rows. */
FNN_INLINE void sum_vectors(real *sums, const real *x, int accumulate, size_t m, size_t ldx, const int vectors)
{
    vreal sum[8];
    FNN_UNROLL
    for (int j = 0; j < vectors; j++)
        sum[j] = accumulate ? vload(sums + j * VW) : (vreal){0};
    for (size_t i = 0; i < m; i++) {
        FNN_UNROLL
        for (int j = 0; j < vectors; j++)
            sum[j] += vload(x + i * ldx + j * VW);
    }
    FNN_UNROLL
    for (int j = 0; j < vectors; j++)
        vstore(sums + j * VW, sum[j]);
}

static void column_sums(void *sums, const void *x, int accumulate, size_t m, size_t n, size_t ldx)
{
    real *s = sums;
    const real *rows = x;
    size_t j = 0;
    for (; j + 8 * VW <= n; j += 8 * VW)
        sum_vectors(s + j, rows + j, accumulate, m, ldx, 8);
    for (; j + VW <= n; j += VW)
        sum_vectors(s + j, rows + j, accumulate, m, ldx, 1);
    if (j < n) {
        vreal sum = accumulate ? vload_partial(s + j, n - j) : (vreal){0};
        for (size_t i = 0; i < m; i++)
            sum += vload_partial(rows + i * ldx + j, n - j);
        vstore_partial(s + j, sum, n - j);
    }
}

static void add(void *sum, const void *terms, size_t count)
{
    real *s = sum;
    const real *t = terms;
    size_t i = 0;
    for (; i + VW <= count; i += VW)
        vstore(s + i, vload(s + i) + vload(t + i));
    for (; i < count; i++)
        s[i] += t[i];
}
