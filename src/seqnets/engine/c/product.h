/* A product of two matrices: c (m, n) = a (m, k) b (k, n) + bias, of any strides. */
typedef struct {
    int64_t m, n, k;
    const real *a;
    int64_t a_row, a_column; /* strides */
    const real *b;
    int64_t b_row, b_column;
    real *c;
    int64_t c_row;
    const real *bias; /* (n), or null */
    real *scratch;
    int64_t threads;
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
    int (*thread)(void), (*team)(void);
    int64_t fails; /* set where a sum is not finite, by tiles */
} Product;
