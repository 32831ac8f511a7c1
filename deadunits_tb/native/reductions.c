/* Per-unit sums of activations and gradients, in one pass over the memory: loops over float32, and nothing of Python.

   The value of unit u at position p of example e is values[e * stride[0] + p * stride[1] + u * stride[2]]; either the
   units or the positions lie side by side in memory. Values are added up in float, at most LONG in each sum, and these
   sums in double. A sum, a smallest and a largest value that saw a NaN is NaN. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static __forceinline
#endif

enum {
    TILE = 256,   /* units side by side that are worked on at once */
    FEW = 64,     /* the same where positions lie side by side, and each unit has sums of its own for each lane */
    LANES = 16,   /* positions side by side that are worked on at once */
    LONG = 256,   /* values in one float */
};

enum { SUM, SQUARES, ABSOLUTE, FIRED, SATURATED, SUMS, MAX = SUMS, MIN, ROWS };

/* What firing and saturation mean. */
typedef struct {
    int relu_like, bounded;
    float limit, low, high;
} Question;

INLINE float larger(float one, float other) { return other > one ? other : one; }
INLINE float smaller(float one, float other) { return other < one ? other : one; }

/* part: ROWS of width numbers. */
INLINE void take_in(float *part, int width, int64_t j, float value, float shift, Question ask)
{
    float apart = value - shift, size = fabsf(value);
    part[SUM * width + j] += ask.relu_like ? value : apart;
    part[SQUARES * width + j] += apart * apart;
    part[FIRED * width + j] += (ask.relu_like ? value > 0.0f : size > ask.limit) ? 1.0f : 0.0f;
    part[MAX * width + j] = larger(part[MAX * width + j], value);
    part[MIN * width + j] = smaller(part[MIN * width + j], value);
    if (!ask.relu_like)
        part[ABSOLUTE * width + j] += size;
    if (ask.bounded)
        part[SATURATED * width + j] += (value >= ask.high) | (value <= ask.low) ? 1.0f : 0.0f;
}

/* Rows of n values; four at once, so that what they are added to is read and written less often. */
INLINE void take_in_rows(float *restrict part, int width, const float *restrict row, int64_t rows, int64_t step,
                         int64_t n, const float *restrict shift, Question ask)
{
    for (; rows >= 4; rows -= 4, row += 4 * step)
        for (int64_t j = 0; j < n; j++) {
            take_in(part, width, j, row[j], shift[j], ask);
            take_in(part, width, j, row[step + j], shift[j], ask);
            take_in(part, width, j, row[2 * step + j], shift[j], ask);
            take_in(part, width, j, row[3 * step + j], shift[j], ask);
        }
    for (; rows > 0; rows--, row += step)
        for (int64_t j = 0; j < n; j++)
            take_in(part, width, j, row[j], shift[j], ask);
}

INLINE void begin(float *part, int width)
{
    memset(part, 0, sizeof(float) * SUMS * (size_t)width);
    for (int j = 0; j < width; j++)
        part[MAX * width + j] = -INFINITY, part[MIN * width + j] = INFINITY;
}

/* Units side by side: their sums are. */
INLINE void add_up(double (*total)[TILE], float *part, int64_t n)
{
    for (int row = 0; row < SUMS; row++)
        for (int64_t j = 0; j < n; j++)
            total[row][j] += part[row * TILE + j];
    memset(part, 0, sizeof(float) * SUMS * TILE);
}

INLINE void give_row(float **out, int64_t units, int64_t n, const double *values)
{
    for (int64_t j = 0; j < n; j++)
        (*out)[j] = (float)values[j];
    *out += units;
}

INLINE void give(float *out, int64_t units, int64_t n, double (*total)[TILE], const double *fired_examples,
                 const double *max, const double *min, Question ask)
{
    if (!ask.relu_like)
        give_row(&out, units, n, total[ABSOLUTE]);
    if (ask.bounded)
        give_row(&out, units, n, total[SATURATED]);
    give_row(&out, units, n, total[SUM]);
    give_row(&out, units, n, total[SQUARES]);
    give_row(&out, units, n, total[FIRED]);
    give_row(&out, units, n, fired_examples);
    give_row(&out, units, n, max);
    give_row(&out, units, n, min);
}

/* Comparisons pass over NaN. Where there was one, and perhaps elsewhere, the sum of squares is NaN too. */
INLINE void look_for_nan(const float *values, const int64_t *size, const int64_t *stride, int64_t unit, double squares,
                         double *max, double *min)
{
    if (squares == squares)
        return;
    for (int64_t e = 0; e < size[0]; e++)
        for (int64_t p = 0; p < size[1]; p++) {
            float value = values[e * stride[0] + p * stride[1] + unit * stride[2]];
            if (value != value) {
                *max = *min = value;
                return;
            }
        }
}

INLINE void units_side_by_side(const float *values, const int64_t *size, const int64_t *stride, const float *shift,
                               Question ask, float *out)
{
    int64_t examples = size[0], positions = size[1], units = size[2];
    for (int64_t first = 0; first < units; first += TILE) {
        int64_t n = units - first < TILE ? units - first : TILE, added = 0;
        const float *here = values + first;
        double total[SUMS][TILE] = {{0}}, fired_examples[TILE] = {0}, max[TILE], min[TILE];
        float part[ROWS * TILE];
        begin(part, TILE);
        for (int64_t e = 0, rows; positions == 1 && e < examples; e += rows) {
            rows = examples - e < LONG ? examples - e : LONG;
            take_in_rows(part, TILE, here + e * stride[0], rows, stride[0], n, shift + first, ask);
            add_up(total, part, n);
        }
        for (int64_t e = 0; positions != 1 && e < examples; e++) {
            float before[TILE], fired[TILE] = {0};
            for (int64_t p = 0, rows; p < positions; p += rows, added += rows) {
                if (added >= LONG)
                    add_up(total, part, n), added = 0;
                rows = positions - p < LONG - added ? positions - p : LONG - added;
                memcpy(before, part + FIRED * TILE, sizeof before);
                take_in_rows(part, TILE, here + e * stride[0] + p * stride[1], rows, stride[1], n, shift + first, ask);
                for (int64_t j = 0; j < n; j++)
                    fired[j] += part[FIRED * TILE + j] - before[j];
            }
            for (int64_t j = 0; j < n; j++)
                fired_examples[j] += fired[j] > 0.0f ? 1.0 : 0.0;
        }
        add_up(total, part, n);
        for (int64_t j = 0; j < n; j++) {
            max[j] = part[MAX * TILE + j], min[j] = part[MIN * TILE + j];
            look_for_nan(values, size, stride, first + j, total[SQUARES][j], max + j, min + j);
        }
        give(out + first, units, n, total, positions == 1 ? total[FIRED] : fired_examples, max, min, ask);
    }
}

/* Positions side by side: the sums of one unit's lanes. */
INLINE void add_up_lanes(double (*total)[TILE], float *part, int64_t unit)
{
    for (int row = 0; row < SUMS; row++)
        for (int lane = 0; lane < LANES; lane++)
            total[row][unit] += part[row * LANES + lane];
    memset(part, 0, sizeof(float) * SUMS * LANES);
}

INLINE void positions_side_by_side(const float *values, const int64_t *size, const int64_t *stride, const float *shift,
                                   Question ask, float *out)
{
    int64_t examples = size[0], positions = size[1], units = size[2], tail = positions % LANES;
    for (int64_t first = 0; first < units; first += FEW) {
        int64_t n = units - first < FEW ? units - first : FEW, added = 0;
        double total[SUMS][TILE] = {{0}}, fired_examples[TILE] = {0}, max[TILE], min[TILE];
        float parts[FEW][ROWS * LANES];
        for (int64_t j = 0; j < n; j++)
            begin(parts[j], LANES);
        for (int64_t e = 0; e < examples; e++, added += positions / LANES + 1) {
            for (int64_t j = 0; j < n; j++) {
                const float *row = values + e * stride[0] + (first + j) * stride[2];
                float *part = parts[j], before[LANES], same[LANES], fired = 0.0f;
                if (added >= LONG)
                    add_up_lanes(total, part, j);
                memcpy(before, part + FIRED * LANES, sizeof before);
                for (int lane = 0; lane < LANES; lane++)
                    same[lane] = shift[first + j];
                for (int64_t p = 0, rows; p < positions - tail; p += rows * LANES) {
                    rows = (positions - p) / LANES;
                    rows = rows < LONG ? rows : LONG;
                    take_in_rows(part, LANES, row + p, rows, LANES, LANES, same, ask);
                    if (positions > LONG * LANES) { /* as many as fit into a float, so begin with the next */
                        for (int lane = 0; lane < LANES; lane++)
                            fired += part[FIRED * LANES + lane] - before[lane];
                        add_up_lanes(total, part, j);
                        memset(before, 0, sizeof before);
                    }
                }
                take_in_rows(part, LANES, row + positions - tail, 1, LANES, tail, same, ask);
                for (int lane = 0; lane < LANES; lane++)
                    fired += part[FIRED * LANES + lane] - before[lane];
                fired_examples[j] += fired > 0.0f ? 1.0 : 0.0;
            }
            added = added >= LONG ? 0 : added;
        }
        for (int64_t j = 0; j < n; j++) {
            float high = -INFINITY, low = INFINITY;
            for (int lane = 0; lane < LANES; lane++) {
                high = larger(high, parts[j][MAX * LANES + lane]);
                low = smaller(low, parts[j][MIN * LANES + lane]);
            }
            max[j] = high, min[j] = low;
            add_up_lanes(total, parts[j], j);
            look_for_nan(values, size, stride, first + j, total[SQUARES][j], max + j, min + j);
        }
        give(out + first, units, n, total, fired_examples, max, min, ask);
    }
}

INLINE void activation(const float *values, const int64_t *size, const int64_t *stride, const float *shift,
                       Question ask, float *out)
{
    if (stride[2] == 1)
        units_side_by_side(values, size, stride, shift, ask, out);
    else
        positions_side_by_side(values, size, stride, shift, ask, out);
}

/* Into rows of out, each of all units: sum of sizes (not for a ReLU), saturated (where bounded), sum (about the shift
   unless of a ReLU), sum of squares about the shift, positions and examples in which it fired, max, min; and without a
   shift the first value of each unit, which is taken for it. */
EXPORT FOR_EACH_PROCESSOR void deadunits_activation(const float *values, const int64_t *size, const int64_t *stride,
                                                    const float *shift, int relu_like, int bounded, float limit,
                                                    float low, float high, float *out)
{
    if (!shift) {
        float *first = out + (6 + !relu_like + !!bounded) * size[2];
        for (int64_t u = 0; u < size[2]; u++)
            first[u] = values[u * stride[2]];
        shift = first;
    }
    if (relu_like && bounded)
        activation(values, size, stride, shift, (Question){1, 1, limit, low, high}, out);
    else if (relu_like)
        activation(values, size, stride, shift, (Question){1, 0, limit, low, high}, out);
    else if (bounded)
        activation(values, size, stride, shift, (Question){0, 1, limit, low, high}, out);
    else
        activation(values, size, stride, shift, (Question){0, 0, limit, low, high}, out);
}

INLINE void square_rows(float *restrict sum, const float *restrict row, int64_t rows, int64_t step, int64_t n,
                        float factor)
{
    for (; rows >= 4; rows -= 4, row += 4 * step)
        for (int64_t j = 0; j < n; j++) {
            float one = row[j] * factor, two = row[step + j] * factor;
            float three = row[2 * step + j] * factor, four = row[3 * step + j] * factor;
            sum[j] += one * one + two * two + three * three + four * four;
        }
    for (; rows > 0; rows--, row += step)
        for (int64_t j = 0; j < n; j++)
            sum[j] += (row[j] * factor) * (row[j] * factor);
}

INLINE void squares_of_units(const float *values, const int64_t *size, const int64_t *stride, float factor, float *out)
{
    int alone = size[1] == 1;
    int64_t outer = alone ? 1 : size[0], inner = alone ? size[0] : size[1], step = stride[alone ? 0 : 1];
    for (int64_t first = 0; first < size[2]; first += TILE) {
        int64_t n = size[2] - first < TILE ? size[2] - first : TILE, added = 0;
        double total[TILE] = {0};
        float sum[TILE] = {0};
        for (int64_t e = 0; e < outer; e++)
            for (int64_t p = 0, rows; p < inner; p += rows, added += rows) {
                for (int64_t j = 0; added >= LONG && j < n; j++)
                    total[j] += sum[j], sum[j] = 0.0f;
                added = added >= LONG ? 0 : added;
                rows = inner - p < LONG - added ? inner - p : LONG - added;
                square_rows(sum, values + e * stride[0] + p * step + first, rows, step, n, factor);
            }
        for (int64_t j = 0; j < n; j++)
            out[first + j] = (float)(total[j] + sum[j]);
    }
}

INLINE void squares_of_positions(const float *values, const int64_t *size, const int64_t *stride, float factor,
                                 float *out)
{
    int64_t tail = size[1] % LANES;
    for (int64_t first = 0; first < size[2]; first += TILE) {
        int64_t n = size[2] - first < TILE ? size[2] - first : TILE;
        double total[TILE] = {0};
        for (int64_t e = 0; e < size[0]; e++)
            for (int64_t j = 0; j < n; j++) {
                const float *row = values + e * stride[0] + (first + j) * stride[2];
                for (int64_t p = 0; p < size[1]; p += LONG * LANES) {
                    int64_t left = size[1] - p, rows = left / LANES < LONG ? left / LANES : LONG;
                    float sum[LANES] = {0};
                    square_rows(sum, row + p, rows, LANES, LANES, factor);
                    if (left < LONG * LANES)
                        square_rows(sum, row + size[1] - tail, 1, LANES, tail, factor);
                    for (int lane = 0; lane < LANES; lane++)
                        total[j] += sum[lane];
                }
            }
        for (int64_t j = 0; j < n; j++)
            out[first + j] = (float)total[j];
    }
}

/* Sum of (value * factor) squared of each unit. */
EXPORT FOR_EACH_PROCESSOR void deadunits_squares(const float *values, const int64_t *size, const int64_t *stride,
                                                 float factor, float *out)
{
    if (stride[2] == 1)
        squares_of_units(values, size, stride, factor, out);
    else
        squares_of_positions(values, size, stride, factor, out);
}
