/* Matrices beside the products: transposed, summed by columns, added. */

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
#define FNN_SUM(vectors)                                 \
    for (; j + (vectors) * VW <= n; j += (vectors) * VW) \
        sum_vectors(s + j, rows + j, accumulate, m, ldx, vectors);
    FNN_SUM(8)
    FNN_SUM(4)
    FNN_SUM(2)
    FNN_SUM(1)
#undef FNN_SUM
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
