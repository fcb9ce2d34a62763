// 3x3 convolutions without padding and the gradients of their weights, a register tile at a time.
#pragma once
#include "shape.h"

template <int N> using size = std::integral_constant<int, N>;
template <int CO> constexpr int TILE = divisor(CO, 5);  // channels of a tile

// y[CO][H-2][W-2] = x[CI][H][W] * w. Calls done(tile, c, row, column) with T neighbouring pixels of channel c.
// w: [CO / TC][CI][3][3][TC], in the order in which it is read.
template <int CI, int CO, int H, int W, class Done>
static inline void convolve(const num* x, const Weight* w, Done done) {
  constexpr int HO = H - 2, WO = W - 2, TC = TILE<CO>, TX = tile_pixels(TC, WO);
  for (int c0 = 0; c0 < CO; c0 += TC, w += TC * CI * 9)
    for (int row = 0; row < HO; row++) {
      auto tile = [&](auto n, int column) {
        constexpr int T = decltype(n)::value;
        v sum[TC][T];
        UNROLL for (int c = 0; c < TC; c++) UNROLL for (int t = 0; t < T; t++) sum[c][t] = v{};
        const Weight* next = w;
        for (int ci = 0; ci < CI; ci++)
          for (int ky = 0; ky < 3; ky++, next += 3 * TC) {
            const num* from = x + ((ci * H + row + ky) * W + column) * L;
            v in[T + 2];
            UNROLL for (int t = 0; t < T + 2; t++) in[t] = load(from + t * L);
            UNROLL for (int kx = 0; kx < 3; kx++) UNROLL for (int c = 0; c < TC; c++) {
              v weight = spread(next[kx * TC + c]);
              UNROLL for (int t = 0; t < T; t++) sum[c][t] += weight * in[t + kx];
            }
          }
        UNROLL for (int c = 0; c < TC; c++) done(sum[c], n, c0 + c, row, column);
      };
      int column = 0;
      for (; column + TX <= WO; column += TX) tile(size<TX>{}, column);
      if constexpr (WO % TX != 0) tile(size<WO % TX>{}, column);
    }
}

// dw[CO][3][3][CI] = Σ over pixels and the lanes of each group of d · x. d lies within a border of PAD pixels.
template <int CI, int CO, int H, int W, int PAD>
static inline void weight_gradient(const num* x, const num* d, Weight* dw, int group) {
  constexpr int HO = H - 2, WO = W - 2, HP = HO + 2 * PAD, WP = WO + 2 * PAD, TC = divisor(CO, REGISTERS > 16 ? 5 : 4);
  for (int c0 = 0; c0 < CO; c0 += TC)
    for (int ci = 0; ci < CI; ci++)
      for (int ky = 0; ky < 3; ky++) {
        v sum[TC][3];
        UNROLL for (int c = 0; c < TC; c++) UNROLL for (int k = 0; k < 3; k++) sum[c][k] = v{};
        for (int row = 0; row < HO; row++) {
          const num* xs = x + (ci * H + row + ky) * W * L;
          const num* ds = d + ((c0 * HP + row + PAD) * WP + PAD) * L;
          v left = load(xs), middle = load(xs + L);
          for (int column = 0; column < WO; column++) {
            v right = load(xs + (column + 2) * L);
            UNROLL for (int c = 0; c < TC; c++) {
              v grad = load(ds + (c * HP * WP + column) * L);
              sum[c][0] += grad * left, sum[c][1] += grad * middle, sum[c][2] += grad * right;
            }
            left = middle, middle = right;
          }
        }
        UNROLL for (int c = 0; c < TC; c++) UNROLL for (int k = 0; k < 3; k++)
          keep(dw[(((c0 + c) * 3 + ky) * 3 + k) * CI + ci], sum_lanes(sum[c][k], group));
      }
}
