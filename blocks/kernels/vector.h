/* Vectors of 64 bytes in GNU C, and the few operations on them that the kernels share.

   REAL is float or double, INDEX an integer as wide, LANES 64 / sizeof REAL, NAME(x) x with the type's suffix.
   Compilers lower the vectors to what the machine has. */

typedef REAL NAME(vec) __attribute__((vector_size(64)));
typedef INDEX NAME(ivec) __attribute__((vector_size(64)));

static inline VEC NAME(splat)(REAL x) { return x - (VEC){0}; }

/* n of LANES elements; the other lanes are 0. */
static inline VEC NAME(load)(const REAL *from, long n) {
    VEC x = {0};
    if (n >= LANES) memcpy(&x, from, sizeof x);
    else for (int i = 0; i < LANES; i++) if (i < n) x[i] = from[i];
    return x;
}

static inline void NAME(store)(REAL *to, VEC x, long n) {
    if (n >= LANES) memcpy(to, &x, sizeof x);
    else for (int i = 0; i < LANES; i++) if (i < n) to[i] = x[i];
}

/* Lanes of a and b by number, b's counted on from a's. */
static inline VEC NAME(pick)(VEC a, VEC b, IVEC at) {
#ifdef __clang__
    VEC x;
    for (int i = 0; i < LANES; i++) x[i] = at[i] < LANES ? a[at[i]] : b[at[i] - LANES];
    return x;
#else
    return __builtin_shuffle(a, b, at);
#endif
}

/* The sums of LANES vectors as the lanes of one: neighbours are added, pair by pair. Destroys m. */
static __attribute__((noinline)) VEC NAME(sums)(VEC *m) {
    IVEC even, odd;
    for (int i = 0; i < LANES; i++) even[i] = 2 * i, odd[i] = 2 * i + 1;
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            m[i] = NAME(pick)(m[2 * i], m[2 * i + 1], even) + NAME(pick)(m[2 * i], m[2 * i + 1], odd);
    return m[0];
}

static inline REAL NAME(sum)(VEC x) {
    for (int n = LANES / 2; n > 0; n /= 2) {
        IVEC turn;
        for (int i = 0; i < LANES; i++) turn[i] = (i + n) % LANES;
        x += NAME(pick)(x, x, turn);
    }
    return x[0];
}

/* C (+)= A B for M rows of C and NV vectors of columns. A's elements are read one by one, with strides for rows
   and columns, so that A may be a transpose; B and C are rows of whole vectors. Small tiles stay in registers. */
static inline __attribute__((always_inline)) void NAME(tile)(
    int M, int N, long P, const REAL *a, long a_row, long a_col, const REAL *b, long b_row, REAL *c, long c_row,
    int add) {
    VEC sum[8][4] = {0};
    for (long p = 0; p < P; p++) {
        VEC row[4];
        for (int n = 0; n < N; n++) memcpy(&row[n], b + p * b_row + n * LANES, sizeof(VEC));
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) sum[m][n] += a[m * a_row + p * a_col] * row[n];
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            VEC old = {0};
            if (add) memcpy(&old, c + m * c_row + n * LANES, sizeof old);
            old += sum[m][n];
            memcpy(c + m * c_row + n * LANES, &old, sizeof old);
        }
}

static inline __attribute__((always_inline)) void NAME(columns)(
    int M, long NV, long P, const REAL *a, long a_row, long a_col, const REAL *b, long b_row, REAL *c, long c_row,
    int add) {
    long n = 0;
    if (M <= 4) for (; n + 4 <= NV; n += 4) NAME(tile)(M, 4, P, a, a_row, a_col, b + n * LANES, b_row, c + n * LANES, c_row, add);
    for (; n + 2 <= NV; n += 2) NAME(tile)(M, 2, P, a, a_row, a_col, b + n * LANES, b_row, c + n * LANES, c_row, add);
    if (n < NV) NAME(tile)(M, 1, P, a, a_row, a_col, b + n * LANES, b_row, c + n * LANES, c_row, add);
}

static void NAME(product)(
    long M, long NV, long P, const REAL *a, long a_row, long a_col, const REAL *b, long b_row, REAL *c, long c_row,
    int add) {
    long m = 0;
    if (NV < 4) /* sixteen sums at most, so that all stay in registers */
        for (; m + 8 <= M; m += 8)
            NAME(columns)(8, NV, P, a + m * a_row, a_row, a_col, b, b_row, c + m * c_row, c_row, add);
    for (; m + 4 <= M; m += 4)
        NAME(columns)(4, NV, P, a + m * a_row, a_row, a_col, b, b_row, c + m * c_row, c_row, add);
    for (; m < M; m++) NAME(columns)(1, NV, P, a + m * a_row, a_row, a_col, b, b_row, c + m * c_row, c_row, add);
}
