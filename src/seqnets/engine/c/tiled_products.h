/* The blocks of a product by tiles; see tiles.h.
 *
 * A strip of 32 rows of a, and 32 columns of b, are two tiles for each 32 terms of a sum, and as
 * many again for what rounding loses. Beyond edges there are zeros. Every sum is taken from the
 * first term to the last, whatever m and the number of threads are.
 */
enum {
    ROWS = 2 * LINES, /* of a strip, and columns of a panel of b */
    DEEP = 512,       /* rows of a block of b: terms of a sum */
    WIDE = 512,       /* columns of a block of b */
    STRIP = 2 * 2 * DEEP / TERMS * LINES /* lines of the tiles of a strip, or of a panel */
};

EXPORT const int64_t scratch_of_a_thread = STRIP * (1 + WIDE / ROWS) * LANES + LANES;

/* Pack n lines of k numbers as tiles, two for each 32 numbers, then what rounding loses of them;
 * returns whether it loses anything. Words come first in the tiles of b: they are turned. */
static int pack(const real *from, long across, long along, long n, long k, int turned, ivec *to) {
    const long apart = (k + TERMS - 1) / TERMS * ROWS;
    ivec any = {0};
    for (long i = 0; i < k; i += TERMS)
        for (long first = 0; first < ROWS; first += LINES, to += LINES) {
            const long lines = n - first, terms = k - i;
            const real *x = from + first * across + i * along;
            if (across == 1)
                for (long w = 0; w < LINES; w++)
                    any |= put_line(first_of(x + w * along, w < terms ? lines : 0),
                                    first_of(x + (w + 16) * along, w + 16 < terms ? lines : 0),
                                    to + w, apart);
            else
                for (long line = 0; line < LINES; line++) {
                    real copy[TERMS];
                    const long left = line < lines ? terms : 0;
                    const real *at = x + line * across;
                    if (along != 1) {
                        for (long w = 0; w < least(left, TERMS); w++) copy[w] = at[w * along];
                        at = copy;
                    }
                    any |= put_line(first_of(at, left), first_of(at + 16, left - 16), to + line,
                                    apart);
                }
            if (turned == (across != 1)) turn(to), turn(to + apart);
        }
    return any_of(any);
}

/* Sums are in tiles 0 to 3; those of a go to 4 and 5, and those of b to 6 and 7. */
#define LOAD_A(a) TILE_LOAD(4, a, 64); TILE_LOAD(5, (a) + LINES, 64)
#define LOAD_B(b) TILE_LOAD(6, b, 64); TILE_LOAD(7, (b) + LINES, 64)
#define ADD_ALL TILE_ADD(0, 4, 6); TILE_ADD(1, 4, 7); TILE_ADD(2, 5, 6); TILE_ADD(3, 5, 7)

/* Add the products of a strip and a panel, with the second parts of either. */
INLINE void add_products(const ivec *a, const ivec *b, long tiles, const int a_loses,
                         const int b_loses) {
    const long apart = tiles * ROWS;
    for (long i = 0; i < tiles; i++, a += ROWS, b += ROWS) {
        LOAD_B(b);
        if (a_loses) {
            LOAD_A(a + apart);
            ADD_ALL;
        }
        LOAD_A(a);
        ADD_ALL;
        if (b_loses) {
            LOAD_B(b + apart);
            ADD_ALL;
        }
    }
}

/* Copy numbers of a matrix with rows of `columns` numbers. */
static void copy(const real *from, long from_row, real *to, long to_row, long rows, long columns) {
    for (long r = 0; r < rows; r++)
        for (long j = 0; j < columns; j += LANES) {
            const int n = (int)least(LANES, columns - j);
            v_store_n(to + r * to_row + j, v_load_n(from + r * from_row + j, n), n);
        }
}

static int all_finite(const real *from, long from_row, long rows, long columns) {
    ivec bad = {0};
    for (long r = 0; r < rows; r++)
        for (long j = 0; j < columns; j += LANES)
            bad |= not_finite(v_load_n(from + r * from_row + j, (int)least(LANES, columns - j)));
    return !any_of(bad);
}

#define EACH_SUM(do, at, row)                                                                    \
    do(0, at, (row) * 4);                                                                        \
    do(1, (at) + LANES, (row) * 4);                                                              \
    do(2, (at) + LINES * (row), (row) * 4);                                                      \
    do(3, (at) + LINES * (row) + LANES, (row) * 4)

/* Multiply a strip and a panel: numbers of c, or of a copy of its edge, to which sums `onto` what
 * is there are added. Returns whether they are finite. */
static int multiply_strip(const Product *p, const ivec *a, const ivec *b, long tiles, int a_loses,
                          int b_loses, long row, long column, int onto) {
    const long rows = least(ROWS, p->m - row), columns = least(ROWS, p->n - column);
    const int whole = rows == ROWS && columns == ROWS;
    real edge[ROWS * ROWS];
    real *const at = p->c + row * p->c_row + column, *to = whole ? at : edge;
    const long to_row = whole ? p->c_row : ROWS;
    if (onto) {
        if (!whole) copy(at, p->c_row, edge, ROWS, rows, columns);
        EACH_SUM(TILE_LOAD, to, to_row);
    } else if (p->bias) {
        real bias[ROWS];
        copy(p->bias + column, 0, bias, 0, 1, columns);
        EACH_SUM(TILE_LOAD, bias, 0L);
    } else {
        TILE_ZERO(0); TILE_ZERO(1); TILE_ZERO(2); TILE_ZERO(3);
    }
    if (a_loses && b_loses)
        add_products(a, b, tiles, 1, 1);
    else if (a_loses)
        add_products(a, b, tiles, 1, 0);
    else if (b_loses)
        add_products(a, b, tiles, 0, 1);
    else
        add_products(a, b, tiles, 0, 0);
    EACH_SUM(TILE_STORE, to, to_row);
    if (!whole) copy(edge, ROWS, at, p->c_row, rows, columns);
    return all_finite(at, p->c_row, rows, columns);
}

/* Multiply rows of a by the block of b that begins at row i and a column. */
static void multiply_block(Product *p, long first, long last, long i, long column, real *room) {
    ivec *const strip = (ivec *)(((uintptr_t)room + sizeof(vec) - 1) & -sizeof(vec));
    const long k = least(DEEP, p->k - i), n = least(WIDE, p->n - column);
    const long tiles = (k + TERMS - 1) / TERMS, size = 2 * tiles * ROWS;
    int loses[WIDE / ROWS];
    for (long j = 0; j < n; j += ROWS) {
        const real *from = p->b + i * p->b_row + (column + j) * p->b_column;
        ivec *panel = strip + (1 + j / ROWS) * size;
        loses[j / ROWS] = pack(from, p->b_column, p->b_row, n - j, k, 1, panel);
    }
    use_tiles();
    for (long row = first; row < last; row += ROWS) {
        const real *from = p->a + row * p->a_row + i * p->a_column;
        const int a_loses = pack(from, p->a_row, p->a_column, last - row, k, 0, strip);
        for (long j = 0; j < n; j += ROWS)
            if (!multiply_strip(p, strip, strip + (1 + j / ROWS) * size, tiles, a_loses,
                                loses[j / ROWS], row, column + j, i > 0))
                __atomic_store_n(&p->fails, 1, __ATOMIC_RELAXED);
    }
    leave_tiles();
}
