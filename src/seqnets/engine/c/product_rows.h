/* Rows of a product, by threads: each packs a block of b, and multiplies its rows of a by it. */
static void multiply_rows(void *product) {
    Product *p = product;
    const long threads = p->threads > 1 ? p->team() : 1, thread = threads > 1 ? p->thread() : 0;
    const long tiles = (p->m + ROWS - 1) / ROWS;
    const long first = tiles * thread / threads * ROWS;
    const long last = least(tiles * (thread + 1) / threads * ROWS, p->m);
    real *const room = p->scratch + thread * scratch_of_a_thread;
    for (long column = 0; column < p->n && first < last; column += WIDE)
        for (long i = 0; i < p->k; i += DEEP) multiply_block(p, first, last, i, column, room);
}

/* Returns whether c is the product. */
EXPORT int multiply(Product *p) {
    if (p->threads > 1)
        p->parallel(multiply_rows, p, (unsigned)p->threads, 0);
    else
        multiply_rows(p);
    return !p->fails;
}
