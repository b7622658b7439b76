/* Causal attention in which what lies between a key and a query may fade the key (Lin et al. 2025, eq. 5):
   softmax(q_i k_j / sqrt(K) + log f_{j+1} + ... + log f_i) v_j over j <= i.

   q, o [B,T,H,K], k, v [B,S,G,K], log_f [B,T,H], faded [B,P,H], all contiguous; the queries are the last T of
   S = P + T positions, and head h reads key h / (H / G). Without log_f nothing fades. BLOCK queries are taken at
   once. In their rows the gates up to the query are a constant, which softmax drops: the bias belongs to the key,
   counted from the block's start, back to earlier keys and on to its own, so that no two long sums are subtracted. */

#define BLOCK 32
#define PADDED(n) (((n) + LANES - 1) / LANES * LANES)

/* What a head needs while it is worked on; rows are filled up to whole vectors with zeros. */
typedef struct {
    long T, S, P, H, G, K, wide, many;   /* wide: K filled up; many: S filled up */
    REAL *k, *v, *k_turned, *v_turned;   /* [S, wide] and [K, many] */
    REAL *faded, *bias, *scores, *grads; /* [many], [many], [BLOCK, many], [BLOCK, many] */
    REAL *d_k, *d_v, *row;               /* [S, wide], [S, wide], [BLOCK, wide] */
} NAME(Head);

static REAL *NAME(head_memory)(NAME(Head) *x, long T, long S, long H, long G, long K) {
    const long wide = PADDED(K), many = PADDED(S);
    REAL *at = aligned_alloc(64, (2 * K * many + 4 * S * wide + 2 * many + 2 * BLOCK * many + BLOCK * wide) * sizeof(REAL));
    *x = (NAME(Head)){.T = T, .S = S, .P = S - T, .H = H, .G = G, .K = K, .wide = wide, .many = many};
    REAL *first = at;
    if (!at) return 0;
    x->k_turned = at, at += K * many;
    x->v_turned = at, at += K * many;
    x->k = at, at += S * wide;
    x->v = at, at += S * wide;
    x->d_k = at, at += S * wide;
    x->d_v = at, at += S * wide;
    x->faded = at, at += many;
    x->bias = at, at += many;
    x->scores = at, at += BLOCK * many;
    x->grads = at, at += BLOCK * many;
    x->row = at;
    return first;
}

static void NAME(head_load)(NAME(Head) *x, const REAL *k, const REAL *v, const REAL *faded, int turn_values) {
    const long K = x->K, between = x->G * K;
    memset(x->k_turned, 0, 2 * K * x->many * sizeof(REAL));
    memset(x->k, 0, 2 * x->S * x->wide * sizeof(REAL));
    for (long j = 0; j < x->S; j++) {
        memcpy(x->k + j * x->wide, k + j * between, K * sizeof(REAL));
        memcpy(x->v + j * x->wide, v + j * between, K * sizeof(REAL));
#pragma omp simd
        for (long i = 0; i < K; i++) x->k_turned[i * x->many + j] = k[j * between + i];
        if (turn_values) for (long i = 0; i < K; i++) x->v_turned[i * x->many + j] = v[j * between + i];
    }
    if (faded) for (long j = 0; j < x->P; j++) x->faded[j] = faded[j * x->H];
}

/* Biases of the keys that queries first .. first + n - 1 see, and what these keys have lost after them. */
static void NAME(head_bias)(NAME(Head) *x, const REAL *log_f, long first, long n) {
    if (!log_f) {
        memset(x->bias, 0, x->many * sizeof(REAL));
        return;
    }
    const long old = x->P + first;
    REAL total = 0;
    memcpy(x->bias, x->faded, old * sizeof(REAL));
    for (long i = 0; i < n; i++) total += log_f[(first + i) * x->H], x->bias[old + i] = -total;
    for (long j = 0; j < old; j++) x->faded[j] += total;
    REAL after = 0;
    for (long i = n - 1; i >= 0; i--) x->faded[old + i] = after, after += log_f[(first + i) * x->H];
}

/* scores = q k^T of a block of rows, columns up to the last key that any of them sees. */
static void NAME(head_scores)(NAME(Head) *x, const REAL *q, long first, long n) {
    const long vectors = PADDED(x->P + first + n) / LANES;
    NAME(product)(n, vectors, x->K, q + first * x->H * x->K, x->H * x->K, 1, x->k_turned, x->many, x->scores, x->many, 0);
}

static void NAME(head_forward)(NAME(Head) *x, const REAL *q, const REAL *log_f, REAL scale, REAL *o, REAL *norms) {
    for (long first = 0; first < x->T; first += BLOCK) {
        const long n = x->T - first < BLOCK ? x->T - first : BLOCK, all = PADDED(x->P + first + n);
        NAME(head_bias)(x, log_f, first, n);
        NAME(head_scores)(x, q, first, n);
        for (long i = 0; i < n; i++) {
            const long seen = x->P + first + i + 1;
            REAL *s = x->scores + i * x->many, most = -INFINITY, total = 0;
#pragma omp simd reduction(max : most)
            for (long j = 0; j < seen; j++) {
                s[j] = scale * s[j] + x->bias[j];
                most = s[j] > most ? s[j] : most;
            }
#pragma omp simd reduction(+ : total)
            for (long j = 0; j < seen; j++) {
                s[j] = NAME(power)(s[j] - most);
                total += s[j];
            }
            const REAL part = 1 / total;
#pragma omp simd
            for (long j = 0; j < seen; j++) s[j] *= part;
#pragma omp simd
            for (long j = seen; j < all; j++) s[j] = 0;
            norms[(first + i) * x->H] = most + LOG(total);
        }
        NAME(product)(n, x->wide / LANES, x->P + first + n, x->scores, x->many, 1, x->v, x->wide, x->row, x->wide, 0);
        for (long i = 0; i < n; i++)
            memcpy(o + (first + i) * x->H * x->K, x->row + i * x->wide, x->K * sizeof(REAL));
    }
}

/* Gradients of a head. Those of keys and values are left in x->d_k and x->d_v; d_bias [S] is that of the keys'
   biases. sums of log f: by log f_l it is minus what d_bias holds from key l on, rows of a softmax having sum 0. */
static void NAME(head_backward)(
    NAME(Head) *x, const REAL *q, const REAL *log_f, REAL scale, const REAL *norms, const REAL *d_o, REAL *d_q,
    REAL *d_bias) {
    const long step = x->H * x->K, vectors = x->wide / LANES;
    for (long first = 0; first < x->T; first += BLOCK) {
        const long n = x->T - first < BLOCK ? x->T - first : BLOCK, keys = x->P + first + n, all = PADDED(keys);
        NAME(head_bias)(x, log_f, first, n);
        NAME(head_scores)(x, q, first, n);
        NAME(product)(n, all / LANES, x->K, d_o + first * step, step, 1, x->v_turned, x->many, x->grads, x->many, 0);
        for (long i = 0; i < n; i++) {
            const long seen = x->P + first + i + 1;
            REAL *s = x->scores + i * x->many, *d = x->grads + i * x->many, norm = norms[(first + i) * x->H], mean = 0;
#pragma omp simd reduction(+ : mean)
            for (long j = 0; j < seen; j++) {
                s[j] = NAME(power)(scale * s[j] + x->bias[j] - norm);
                mean += s[j] * d[j];
            }
#pragma omp simd
            for (long j = 0; j < seen; j++) {
                d[j] = s[j] * (d[j] - mean);
                d_bias[j] += d[j];
            }
#pragma omp simd
            for (long j = seen; j < all; j++) s[j] = d[j] = 0;
        }
        for (long i = 0; i < n; i++) {
            memset(x->row + i * x->wide, 0, x->wide * sizeof(REAL));
            memcpy(x->row + i * x->wide, d_o + (first + i) * step, x->K * sizeof(REAL));
        }
        NAME(product)(keys, vectors, n, x->scores, 1, x->many, x->row, x->wide, x->d_v, x->wide, 1);
        for (long i = 0; i < n; i++)
            for (long c = 0; c < x->K; c++) x->row[i * x->wide + c] = scale * q[(first + i) * step + c];
        NAME(product)(keys, vectors, n, x->grads, 1, x->many, x->row, x->wide, x->d_k, x->wide, 1);
        NAME(product)(n, vectors, keys, x->grads, x->many, 1, x->k, x->wide, x->row, x->wide, 0);
        for (long i = 0; i < n; i++)
            for (long c = 0; c < x->K; c++) d_q[(first + i) * step + c] = scale * x->row[i * x->wide + c];
    }
}

/* norms [B,T,H] are what the backward pass wants back: log sums of exponentials. */
int NAME(attention_forward)(
    const REAL *q, const REAL *k, const REAL *v, const REAL *log_f, const REAL *faded, REAL *o, REAL *norms, long B,
    long T, long S, long H, long G, long K) {
    NAME(Head) x;
    REAL *memory = NAME(head_memory)(&x, T, S, H, G, K);
    if (!memory) return 1;
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            const long kv = b * S * G * K + h / (H / G) * K, at = b * T * H + h;
            NAME(head_load)(&x, k + kv, v + kv, faded ? faded + b * x.P * H + h : 0, 0);
            NAME(head_forward)(&x, q + at * K, log_f ? log_f + at : 0, 1 / SQRT(K), o + at * K, norms + at);
        }
    free(memory);
    return 0;
}

/* d_k and d_v come filled with zeros, as does d_bias [B,H,S]. */
int NAME(attention_backward)(
    const REAL *q, const REAL *k, const REAL *v, const REAL *log_f, const REAL *faded, const REAL *norms,
    const REAL *d_o, REAL *d_q, REAL *d_k, REAL *d_v, REAL *d_bias, long B, long T, long S, long H, long G, long K) {
    NAME(Head) x;
    REAL *memory = NAME(head_memory)(&x, T, S, H, G, K);
    if (!memory) return 1;
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            const long kv = b * S * G * K + h / (H / G) * K, at = b * T * H + h;
            NAME(head_load)(&x, k + kv, v + kv, faded ? faded + b * x.P * H + h : 0, 1);
            memset(x.d_k, 0, 2 * S * x.wide * sizeof(REAL));
            NAME(head_backward)(
                &x, q + at * K, log_f ? log_f + at : 0, 1 / SQRT(K), norms + at, d_o + at * K, d_q + at * K,
                d_bias + (b * H + h) * S);
            for (long j = 0; j < S; j++)
#pragma omp simd
                for (long i = 0; i < K; i++) {
                    d_k[kv + j * G * K + i] += x.d_k[j * x.wide + i];
                    d_v[kv + j * G * K + i] += x.d_v[j * x.wide + i];
                }
        }
    free(memory);
    return 0;
}
