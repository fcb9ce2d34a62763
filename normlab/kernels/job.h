// What a step is given, and where it keeps what it computes.
#pragma once
#include "norms.h"

// A step, or an evaluation, of K networks with B images each; normlab/kernels/step.py fills it in.
struct Job {
  int64_t networks, images, parameters, training, pre, threads;
  int64_t conv[BLOCKS], squeeze, head;  // where their weights begin in a row, in the order O, kh, kw, I
  Norm norms[BLOCKS];
  const num* rows;  // parameters (K, P)
  num* grads;       // to which the gradients are added, (K, P)
  const num* pixels;      // images in [0, 1], (K, B, C, H, W); or null, and then
  const uint8_t* pool;    // bytes (N, C, H, W),
  const int64_t* where;   // which of them, (K, B),
  const float* turns;     // and how they are moved, (K, B, 3); null: not at all
  double rotation, shift; // radians, pixels
  const num *mean, *sd;   // of the pixels of each network, (K,)
  const int64_t* labels;  // (K, B)
  num* log_probs;         // (K, B, classes)
  double share;           // of an image in the loss
  const double* rates;    // of dropout, (K,)
  const uint64_t* seeds;  // of its masks, (K,)
  uint64_t step;
};

// Networks with few images share a block: each has `group` lanes, the power of two that holds its batch. All is then as
// if each had a block of its own, with the other lanes empty.
static inline int lanes_of(const Job& job) {
  int group = L;
  if (!SHARED) return L;
  while (group / 2 >= job.images) group /= 2;
  return group;
}

// The parameters of the networks of a block, as convolutions read them.
struct Weights {
  template <int I> struct Filters {
    Weight w[Block<I>::out * Block<I>::in * 9];
  };
  Each<Filters> conv, back;  // back: turned, channels exchanged
  Weight squeeze[SQUEEZE * BLOCK2], squeezed[SQUEEZE * BLOCK2], head[CLASSES * BLOCK5];
  Weight weight[BLOCKS][WIDEST], bias[BLOCKS][WIDEST];

  // row: all parameters
  void fill(const Job& job, const Weight* row) {
    fill_block<0>(job, row), fill_block<1>(job, row), fill_block<2>(job, row), fill_block<3>(job, row);
    fill_block<4>(job, row);
    constexpr int T = TILE<SQUEEZE>;
    for (int o = 0; o < SQUEEZE; o++)
      for (int c = 0; c < BLOCK2; c++)
        squeeze[(o / T * BLOCK2 + c) * T + o % T] = squeezed[o * BLOCK2 + c] = row[job.squeeze + o * BLOCK2 + c];
    for (int i = 0; i < CLASSES * BLOCK5; i++) head[i] = row[job.head + i];
  }
  template <int I> void fill_block(const Job& job, const Weight* row) {
    using B = Block<I>;
    constexpr int TO = TILE<B::out>, TI = TILE<B::in>;
    for (int o = 0; o < B::out; o++)
      for (int k = 0; k < 9; k++)
        for (int i = 0; i < B::in; i++) {
          Weight w = row[job.conv[I] + (o * 9 + k) * B::in + i];
          conv.of<I>().w[((o / TO * B::in + i) * 9 + k) * TO + o % TO] = w;
          back.of<I>().w[((i / TI * B::out + o) * 9 + 8 - k) * TI + i % TI] = w;
        }
    const Norm& norm = job.norms[I];
    for (int c = 0; c < B::out; c++) {
      weight[I][c] = norm.weight < 0 ? Weight{} + 1 : row[norm.weight + c];
      bias[I][c] = norm.bias < 0 ? Weight{} : row[norm.bias + c];
    }
  }
};

// What a block keeps from the way forward for the way back.
struct Memory {
  alignas(64) num x[CHANNELS * HEIGHT * WIDTH * L];
  Each<Maps> maps;
  // the largest of four pixels, which of them that is, and its gradient
  alignas(64) num pooled[SQUEEZE * PH * PW * L], winner[SQUEEZE * PH * PW * L], d_pooled[SQUEEZE * PH * PW * L];
  alignas(64) num even[LARGEST_EVEN * L], odd[LARGEST_ODD * L];  // gradient of what block 1, 3, 5 or 2, 4 gives
};

// What is needed for a moment, for each thread.
struct Scratch {
  template <int I> struct Padded {  // gradient of a convolution's output; the border stays 0
    static constexpr int rows = BAND + Block<I>::pad, plane = rows * Block<I>::wp * L;
    alignas(64) num d[Block<I>::out * plane];
  };
  alignas(64) num input[LARGEST_BAND * L];
  Each<Padded> padded;
  v sums[MOST_WEIGHTS];  // of the gradient of a convolution's weights
  alignas(64) num squeezed[SQUEEZE * Block<1>::wo * L];
};
