// Vectors: one number of each of LANES images.
//
// A map lies in memory as [channel][row][column][lane]. A block is LANES images side by side, and one instruction works
// on one pixel of all of them, so no part of a vector is idle, whatever the number of channels:
//
//     channel 0, row 0:   | pixel 0 of images 0 1 2 … 15 | pixel 1 of images 0 1 2 … 15 | …
//
// An image stays in its lane from the first pixel to the last gradient. Lanes meet in `sum_lanes` only, whose order is
// fixed; a lane without an image has zeros there. So neither the other images of a block nor their number changes a bit.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The C library alone: what needs no C++ library is compiled in seconds, also by a compiler that would have to build one.
typedef NUMBER num;  // float; double in tests
static inline float root(float x) { return sqrtf(x); }
static inline double root(double x) { return sqrt(x); }
static inline float power(float x) { return expf(x); }
static inline double power(double x) { return exp(x); }
static inline float logarithm(float x) { return logf(x); }
static inline double logarithm(double x) { return log(x); }
constexpr int L = LANES;
typedef num v __attribute__((vector_size(L * sizeof(num))));
typedef decltype(v{} < v{}) mask;  // integers as wide as a number: all bits set where true
typedef uint32_t words __attribute__((vector_size(L * 4)));

#define UNROLL _Pragma("GCC unroll 32")
#define ONCE __attribute__((noinline))  // compiled once, not wherever it is called: the compiler takes seconds less

static inline v load(const num* p) { return *(const v*)p; }
static inline void store(num* p, v x) { *(v*)p = x; }
static inline v select(mask where, v x, v other) { return where ? x : other; }
// torch's: nan stays nan
static inline v relu(v x) { return v{} > x ? v{} : x; }

static inline v reciprocal_root(v x) {
  for (int l = 0; l < L; l++) x[l] = 1 / root(x[l]);
  return x;
}

// SHARED: the lanes of a block belong to several networks, and a weight is a vector; else one number for all lanes.
#if SHARED
typedef v Weight;
static inline v spread(Weight w) { return w; }
static inline void keep(Weight& to, v sum) { to = sum; }
#else
typedef num Weight;
static inline v spread(Weight w) { return w - v{}; }
static inline void keep(Weight& to, v sum) { to = sum[0]; }
#endif

template <int... I> struct Indices {};  // 0 … N - 1
template <int N, int... I> struct IndicesTo : IndicesTo<N - 1, N - 1, I...> {};
template <int... I> struct IndicesTo<0, I...> : Indices<I...> {};
template <int STEP, int... I> static inline v swapped(v x, Indices<I...>) {
#ifdef __clang__
  return __builtin_shufflevector(x, x, (I ^ STEP)...);
#else
  return __builtin_shuffle(x, mask{(I ^ STEP)...});
#endif
}
template <int STEP> static inline v plus_neighbour(v x) {
  if constexpr (STEP < L) x += swapped<STEP>(x, IndicesTo<L>());
  return x;
}
// L vectors as a square of numbers, turned about its diagonal: halves of pairs of rows change places.
template <int STEP = 1> static inline void transpose(v* rows) {
  if constexpr (STEP < L) {
    mask own{};
    for (int l = 0; l < L; l++) own[l] = l & STEP ? 0 : -1;
    UNROLL for (int r = 0; r < L; r++)
      if (!(r & STEP)) {
        v a = rows[r], b = rows[r + STEP];
        rows[r] = select(own, a, swapped<STEP>(b, IndicesTo<L>()));
        rows[r + STEP] = select(own, swapped<STEP>(a, IndicesTo<L>()), b);
      }
    transpose<2 * STEP>(rows);
  }
}
// The sum over each `group` of neighbouring lanes, in all of them: pairs, then pairs of pairs, …
static inline v sum_lanes(v x, int group) {
  if (group > 1) x = plus_neighbour<1>(x);
  if (group > 2) x = plus_neighbour<2>(x);
  if (group > 4) x = plus_neighbour<4>(x);
  if (group > 8) x = plus_neighbour<8>(x);
  return x;
}
