/* Products over panels of PAD columns, one cache line per k: a single row times W as it is trained, and any number of
 * rows times W packed so that a panel is contiguous. As in gemm.h each output is one accumulator that starts at the
 * bias and adds k in ascending order, so both have its bits. */

/* A tile of rows of y over neighbouring panels. Row p of panel j is at b + j * panel_stride + p *
 * k_stride: k_stride is PAD where B is packed; panel_stride is PAD where it is row-major. */
typedef struct panel_tile {
    real *y;
    const real *x, *b, *bias; /* bias: NULL for zeros */
    size_t k, ldy, ldx, k_stride, panel_stride;
    int relu;
} panel_tile;

enum {
    PANEL_LENGTH = PAD / VW, /* vectors of a row of a panel */
    ROW_PANELS = 8 /
        PANEL_LENGTH, /* a single row takes 8 vectors: independent sums hide the latency of the additions */
#if FNN_VBYTES == 64
    TILE_PANELS = 4,
#else
    TILE_PANELS = 1,
#endif
    MOST_TILE_ROWS = 8 /* the table's bound; panel_tile_rows() gives each width's own */
};

/* `rows` and `panels` are literals in every caller, so that `sum` lives in registers. The sums run over all of k:
 * blocks of k, which gemm.h needs for a row-major B, lost here (AVX2, 64 rows of 784-512-512-10: 96.6 % of the FMA peak
 * with none, 94.8 % with blocks of 400, 91.5 % of 128), and so did prefetching the next panel. */
FNN_INLINE void compute_panel_tile(const panel_tile *t, vreal *sum, const int rows, const int panels)
{
    const int vectors = panels * PANEL_LENGTH;
    const size_t ldx = t->ldx, ldy = t->ldy, k_stride = t->k_stride, panel_stride = t->panel_stride;
    const real *x = t->x, *b = t->b;
    real *y = t->y;
    FNN_UNROLL
    for (int i = 0; i < rows; i++) {
        FNN_UNROLL
        for (int j = 0; j < vectors; j++)
            sum[i * vectors + j] = t->bias ? vload(t->bias + j * VW) : (vreal){0};
    }
    for (size_t p = t->k; p; p--) {
        FNN_UNROLL
        for (int i = 0; i < rows; i++) {
            const vreal xi = vsplat(x[(size_t)i * ldx]);
            FNN_UNROLL
            for (int j = 0; j < vectors; j++) {
                const real *row = b + (size_t)(j / PANEL_LENGTH) * panel_stride;
                sum[i * vectors + j] = vfma(xi, vload(row + j % PANEL_LENGTH * VW), sum[i * vectors + j]);
            }
        }
        x++;
        b += k_stride;
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
            vstore(y + (size_t)i * ldy + j * VW, sum[i * vectors + j]);
    }
}

/* Tile shapes as (rows, panels): as many sums as in gemm.h. */
#define FNN_ROW_2(DO) DO(1, 1) DO(1, 2)
#define FNN_ROW_4(DO) FNN_ROW_2(DO) DO(1, 3) DO(1, 4)
#define FNN_ROWS_3(DO, P) DO(2, P) DO(3, P)
#define FNN_ROWS_4(DO, P) FNN_ROWS_3(DO, P) DO(4, P)
#define FNN_ROWS_6(DO, P) FNN_ROWS_4(DO, P) DO(5, P) DO(6, P)
#define FNN_ROWS_8(DO, P) FNN_ROWS_6(DO, P) DO(7, P) DO(8, P)
#if FNN_VBYTES == 64
#define FNN_PANEL_SHAPES(DO) \
    FNN_ROW_4(DO)            \
    DO(1, 5) DO(1, 6) DO(1, 7) DO(1, 8) FNN_ROWS_8(DO, 1) FNN_ROWS_8(DO, 2) FNN_ROWS_8(DO, 3) FNN_ROWS_6(DO, 4)
#elif FNN_VBYTES == 32
#define FNN_PANEL_SHAPES(DO) FNN_ROW_4(DO) FNN_ROWS_6(DO, 1)
#elif defined(FNN_NEON)
#define FNN_PANEL_SHAPES(DO) FNN_ROW_2(DO) FNN_ROWS_4(DO, 1)
#else
#define FNN_PANEL_SHAPES(DO) FNN_ROW_2(DO) FNN_ROWS_3(DO, 1)
#endif

FNN_INLINE size_t panel_tile_rows(size_t panels)
{
#if FNN_VBYTES == 64
    return panels < TILE_PANELS ? 8 : 6;
#elif FNN_VBYTES == 32
    return (void)panels, 6;
#elif defined(FNN_NEON)
    return (void)panels, 4;
#else
    return (void)panels, 3;
#endif
}

#define FNN_DEFINE_PANEL_TILE(ROWS, PANELS)                       \
    static void panel_tile_##ROWS##x##PANELS(const panel_tile *t) \
    {                                                             \
        vreal sum[(ROWS) * (PANELS) * PANEL_LENGTH];              \
        compute_panel_tile(t, sum, ROWS, PANELS);                 \
    }
#define FNN_LIST_PANEL_TILE(ROWS, PANELS) [PANELS][ROWS] = panel_tile_##ROWS##x##PANELS,
FNN_PANEL_SHAPES(FNN_DEFINE_PANEL_TILE)
static void (*const panel_kernels[ROW_PANELS + 1][MOST_TILE_ROWS + 1])(const panel_tile *) = {
    FNN_PANEL_SHAPES(FNN_LIST_PANEL_TILE)};

/* ---- one row times a row-major W ---- */

enum { ROWS_AT_ONCE = 4 }; /* rows of W per pass over y: 2 and 8 are as fast */

/* y (n) += x (rows) W (rows,n); `rows` is a literal. */
FNN_INLINE void add_weighted_rows(real *y, const real *x, const real *w, size_t n, size_t ldw, const int rows)
{
    vreal xi[ROWS_AT_ONCE];
    FNN_UNROLL
    for (int i = 0; i < rows; i++)
        xi[i] = vsplat(x[i]);
    for (size_t j = 0; j < n; j += VW) {
        vreal sum = vload(y + j);
        FNN_UNROLL
        for (int i = 0; i < rows; i++)
            sum = vfma(xi[i], vload(w + (size_t)i * ldw + j), sum);
        vstore(y + j, sum);
    }
}

/* y (n) = activation(x (k) W (k,n) + bias). y stays in registers where it fits. A wider one stays in L1, so that W is
 * read from its first element to its last, at the speed of the memory it is in: panels of 8 vectors over all of k lost
 * up to 10 %, panels of 12 up to 17 %; prefetching rows ahead won that back and no more. */
static void multiply_row(real *y, const real *x, const real *w, const real *bias, fnn_activation activation,
                         double alpha, size_t n, size_t k, size_t ldw)
{
    const size_t panels = (n + PAD - 1) / PAD, columns = panels * PAD;
    if (panels == 0)
        return;
    if (panels <= ROW_PANELS) {
        const panel_tile t = {.y = y, .x = x, .b = w, .bias = bias, .k = k, .k_stride = ldw, .panel_stride = PAD};
        panel_kernels[panels][1](&t);
    } else {
        size_t p = 0;
        for (size_t j = 0; j < columns; j += VW)
            vstore(y + j, bias ? vload(bias + j) : (vreal){0});
        for (; p + ROWS_AT_ONCE <= k; p += ROWS_AT_ONCE)
            add_weighted_rows(y, x + p, w + p * ldw, columns, ldw, ROWS_AT_ONCE);
        for (; p < k; p++)
            add_weighted_rows(y, x + p, w + p * ldw, columns, ldw, 1);
    }
    if (activation != FNN_IDENTITY)
        activation_forward(y, y, activation, alpha, n);
}

/* ---- packed weights ---- */

static void dense_pack(void *panels, const void *w, size_t k, size_t n, size_t ldw)
{
    real *to = panels;
    for (size_t column = 0; column < n; column += PAD)
        for (size_t p = 0; p < k; p++, to += PAD) {
            const size_t count = n - column < PAD ? n - column : PAD;
            memset(to, 0, PAD * sizeof(real));
            memcpy(to, (const real *)w + p * ldw + column, count * sizeof(real));
        }
}

/* The next of the tiles that `left` rows or panels are cut into: as many as fit, the last two alike. No division: it
 * would take as long as a small layer. */
FNN_INLINE size_t next_part(size_t left, size_t most)
{
    return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
}

static void dense_forward_packed(void *y_, const void *x_, const void *panels, const void *bias,
                                 fnn_activation activation, double alpha, size_t m, size_t n, size_t k, size_t ldy,
                                 size_t ldx)
{
    real *y = y_;
    const real *x = x_;
    const size_t n_panels = (n + PAD - 1) / PAD, most_panels = m == 1 ? ROW_PANELS : TILE_PANELS;
    for (size_t panel = 0, width; panel < n_panels; panel += width) {
        width = next_part(n_panels - panel, most_panels);
        for (size_t row = 0, height; row < m; row += height) {
            height = next_part(m - row, panel_tile_rows(width));
            const panel_tile t = {.y = y + row * ldy + panel * PAD,
                                  .x = x + row * ldx,
                                  .b = (const real *)panels + panel * k * PAD,
                                  .bias = bias ? (const real *)bias + panel * PAD : NULL,
                                  .k = k,
                                  .ldy = ldy,
                                  .ldx = ldx,
                                  .k_stride = PAD,
                                  .panel_stride = k * PAD,
                                  .relu = activation == FNN_RELU};
            panel_kernels[width][height](&t);
        }
    }
    if (activation != FNN_IDENTITY && activation != FNN_RELU)
        for (size_t i = 0; i < m; i++)
            activation_forward(y + i * ldy, y + i * ldy, activation, alpha, n);
}
