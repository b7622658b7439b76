/* Products with the small matrices of a layer, which stay in a core's cache; x [N,I] and y [N,O] are rows that may
   lie apart, weights [O,I] are contiguous. Half to all of what the processor can do from a width of 16 on. */

#define ROWS 8

/* from [rows, columns] as [columns, wide] if turned, else as [rows, wide]; filled up with zeros. */
static void NAME(lay)(const REAL *from, long rows, long columns, long wide, int turned, REAL *to) {
    memset(to, 0, (turned ? columns : rows) * wide * sizeof(REAL));
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++) to[turned ? c * wide + r : r * wide + c] = from[r * columns + c];
}

/* c [M,O] (+)= a b: a's elements as in product, b [P, wide] as `lay` leaves it. row: ROWS * wide of scratch. */
static void NAME(apply)(
    long M, long O, long P, const REAL *a, long a_row, long a_col, const REAL *b, long wide, REAL *c, long c_row,
    int add, REAL *row) {
    if (O == wide) {
        NAME(product)(M, wide / LANES, P, a, a_row, a_col, b, wide, c, c_row, add);
        return;
    }
    for (long m = 0; m < M; m += ROWS) {
        const long here = M - m < ROWS ? M - m : ROWS;
        NAME(product)(here, wide / LANES, P, a + m * a_row, a_row, a_col, b, wide, row, wide, 0);
        for (long r = 0; r < here; r++)
            for (long o = 0; o < O; o++) {
                REAL *to = c + (m + r) * c_row + o;
                *to = add ? *to + row[r * wide + o] : row[r * wide + o];
            }
    }
}

/* y = x W^T. */
int NAME(linear_forward)(const REAL *x, const REAL *w, REAL *y, long N, long I, long O, long x_row, long y_row) {
    const long wide = PADDED(O);
    REAL *b = aligned_alloc(64, (I + ROWS) * wide * sizeof(REAL));
    if (!b) return 1;
    NAME(lay)(w, O, I, wide, 1, b);
    NAME(apply)(N, O, I, x, x_row, 1, b, wide, y, y_row, 0, b + I * wide);
    free(b);
    return 0;
}

/* d_x (+)= d_y W and d_w = d_y^T x; d_x may be 0. */
int NAME(linear_backward)(
    const REAL *x, const REAL *w, const REAL *d_y, REAL *d_x, REAL *d_w, long N, long I, long O, long x_row,
    long y_row, long add) {
    const long wide = PADDED(I), most = O > N ? O : N;
    REAL *b = aligned_alloc(64, (most + ROWS) * wide * sizeof(REAL));
    if (!b) return 1;
    if (d_x) {
        NAME(lay)(w, O, I, wide, 0, b);
        NAME(apply)(N, I, O, d_y, y_row, 1, b, wide, d_x, I, add, b + most * wide);
    }
    const REAL *rows = x;
    if (I != wide || x_row != wide) {
        memset(b, 0, N * wide * sizeof(REAL));
        for (long n = 0; n < N; n++) memcpy(b + n * wide, x + n * x_row, I * sizeof(REAL));
        rows = b;
    }
    NAME(apply)(O, I, N, d_y, 1, y_row, rows, wide, d_w, I, 0, b + most * wide);
    free(b);
    return 0;
}
