/* Every kernel, in float, or in double where WIDE is defined. See blocks/kernels/native.py. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* e^x in 1.5 units in the last place, without a table or a branch, so that loops over it become vectors. */
static inline float power_f32(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const float low = x < -87.3f ? -87.3f : x, held = low > 88.7f ? 88.7f : low;
    const float whole = held * 1.44269504f + shift - shift;
    const float r = held - whole * 0.693145752f - whole * 1.42860677e-6f;
    float p = 1.98756989e-4f;
    p = p * r + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666657e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const uint32_t bits = (uint32_t)((int32_t)(x == x ? whole : 0) + 127) << 23;
    float two;
    memcpy(&two, &bits, sizeof two);
    const float y = p * two;
    return x < -87.3f ? 0.0f : x > 88.7f ? INFINITY : y;
}

static inline double power_f64(double x) { return exp(x); }

#ifdef WIDE
#define REAL double
#define INDEX int64_t
#define LANES 8
#define EXP exp
#define LOG log
#define LOG1P log1p
#define SQRT sqrt
#define NAME(x) x##_f64
#else
#define REAL float
#define INDEX int32_t
#define LANES 16
#define EXP expf
#define LOG logf
#define LOG1P log1pf
#define SQRT sqrtf
#define NAME(x) x##_f32
#endif

#define VEC NAME(vec)
#define IVEC NAME(ivec)

#include "vector.h"

#include "attention.h"
#include "gated_delta.h"
#include "gated_linear.h"
#include "matrix.h"
#include "rows.h"
