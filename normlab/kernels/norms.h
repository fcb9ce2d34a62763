// What a norm does to a map, in numbers per channel and lane: y = a·r + h, and dr = a·dy + k2·r + k3 on the way back.
#pragma once
#include "dropout.h"

enum Kind : int64_t { NONE, IMAGE, BATCH, OUTSIDE };  // statistics of an image, over the batch; computed by torch

// One block's norm; normlab/kernels/step.py fills it in.
struct Norm {
  int64_t kind, groups, centred;  // groups: of channels that share a statistic of an image
  int64_t ghost;                  // images that share a statistic of the batch
  double eps;
  int64_t weight, bias;  // where γ and β begin in a row of parameters; -1: there are none
  num *mean, *var;       // running averages (K, C), and batches seen (K,)
  int64_t* tracked;
  double momentum;       // below 0: averages are means over all batches
  int64_t drops;         // whether dropout follows
};

// One block of the network for LANES images.
template <int I> struct Maps {
  using B = Block<I>;
  alignas(64) num r[B::out * B::pixels * L];  // behind ReLU (before the norm, for placement=pre)
  alignas(64) num y[B::out * B::pixels * L];  // behind a norm that torch computes; else untouched
  v mean[B::out], square[B::out];             // of a channel and lane: mean, Σ(r - mean)²; then `mean` of its set
  v rstd[B::out], a[B::out], h[B::out];
  v s1[B::out], s2[B::out], k2[B::out], k3[B::out];  // s1 = Σ dy, s2 = Σ dy·(r - mean)
  words kept[B::out * B::ho * B::row_words];
};

// y = γ·(r - mean)·rstd + β, and 0 in lanes without an image whatever the rest is
template <int I> static inline void set(Maps<I>& m, int c, v mean, v rstd, v weight, v bias, mask where) {
  v a = weight * rstd, h = bias - mean * a;
  m.mean[c] = select(where, mean, m.mean[c]), m.rstd[c] = select(where, rstd, m.rstd[c]);
  m.a[c] = select(where, a, m.a[c]), m.h[c] = select(where, h, m.h[c]);
}
template <int I> static inline void clear(Maps<I>& m) {
  for (int c = 0; c < Block<I>::out; c++) m.a[c] = m.h[c] = m.k2[c] = m.k3[c] = m.rstd[c] = v{};
}

template <int I>
void image_forward(const Norm& norm, Maps<I>& m, const Weight* weight, const Weight* bias, mask valid) {
  const int k = Block<I>::out / norm.groups, n = Block<I>::pixels;
  for (int first = 0; first < Block<I>::out; first += k) {
    v mean{}, square{};
    for (int c = first; c < first + k; c++) mean += m.mean[c];
    mean = norm.centred ? mean / (num)k : v{};
    for (int c = first; c < first + k; c++) {
      v away = m.mean[c] - mean;
      square += m.square[c] + away * away * (num)n;
    }
    v rstd = reciprocal_root(square / (num)(k * n) + (num)norm.eps);
    for (int c = first; c < first + k; c++) set(m, c, mean, rstd, spread(weight[c]), spread(bias[c]), valid);
  }
}

// dr = γ·rstd·dy - rstd·mean(γ·dy) - x̂·rstd·mean(γ·dy·x̂), x̂ = (r - mean)·rstd
template <int I> static inline void back(Maps<I>& m, int c, v by_shift, v by_scale, mask where) {
  v k2 = -by_scale * m.rstd[c] * m.rstd[c], k3 = -by_shift * m.rstd[c] - k2 * m.mean[c];
  m.k2[c] = select(where, k2, m.k2[c]), m.k3[c] = select(where, k3, m.k3[c]);
}

template <int I> void image_backward(const Norm& norm, Maps<I>& m, const Weight* weight, mask valid) {
  const int k = Block<I>::out / norm.groups, n = Block<I>::pixels * k;
  for (int first = 0; first < Block<I>::out; first += k) {
    v shift{}, scale{};
    for (int c = first; c < first + k; c++) {
      if (norm.centred) shift += spread(weight[c]) * m.s1[c];
      scale += spread(weight[c]) * m.s2[c];
    }
    for (int c = first; c < first + k; c++) back(m, c, shift / (num)n, scale * m.rstd[c] / (num)n, valid);
  }
}

// What norms over the batch have to know of a block.
struct Lanes {
  void* maps;         // Maps<I>
  mask valid, place;  // lanes with an image; the image's place in the batch
};

// The blocks of a batch of one network, or one block of several networks.
template <int I> struct Batch {
  const Norm& norm;
  Lanes* blocks;
  int images, group;
  Maps<I>& maps(int b) const { return *(Maps<I>*)blocks[b].maps; }

  // f(blocks from, to, images, lanes of a block that take part) for each ghost batch
  template <class F> void ghosts(F f) const {
    for (int64_t low = 0; low < images; low += norm.ghost) {
      int64_t high = low + norm.ghost < images ? low + norm.ghost : images;
      f(low / L, (high - 1) / L + 1, (int)(high - low), [&, low, high](int b) {
        typedef __typeof__(mask{}[0]) Place;
        return blocks[b].valid & (blocks[b].place >= (Place)low) & (blocks[b].place < (Place)high);
      });
    }
  }

  void forward(const Weight* weight, const Weight* bias, int networks, int first) const {
    constexpr int n = Block<I>::pixels;
    for (int k = 0; k < networks; k++) norm.tracked[first + k]++;
    for (int c = 0; c < Block<I>::out; c++) {
      num own[L][2] = {};  // averages over the ghost batches
      int ghost = 0;
      ghosts([&](int from, int to, int count, auto in) {
        v mean{}, square{};
        for (int b = from; b < to; b++) mean += select(in(b), maps(b).mean[c], v{});
        mean = sum_lanes(mean, group) / (num)count;
        for (int b = from; b < to; b++) {
          v away = maps(b).mean[c] - mean;
          square += select(in(b), maps(b).square[c] + away * away * (num)n, v{});
        }
        v var = sum_lanes(square, group) / ((num)count * n);
        v rstd = reciprocal_root(var + (num)norm.eps);
        for (int b = from; b < to; b++) set(maps(b), c, mean, rstd, spread(weight[c]), spread(bias[c]), in(b));
        v unbiased = var * ((num)count * n / ((num)count * n - 1));
        ghost++;
        for (int k = 0; k < networks; k++) {
          num* averages[] = {norm.mean + (first + k) * Block<I>::out + c, norm.var + (first + k) * Block<I>::out + c};
          num of_batch[] = {mean[k * group % L], unbiased[k * group % L]};
          for (int i = 0; i < 2; i++)
            if (norm.momentum >= 0) *averages[i] += (num)norm.momentum * (of_batch[i] - *averages[i]);
            else own[k][i] += (of_batch[i] - own[k][i]) / ghost;
        }
      });
      if (norm.momentum >= 0) continue;
      for (int k = 0; k < networks; k++) {
        num *mean = norm.mean + (first + k) * Block<I>::out + c, *var = norm.var + (first + k) * Block<I>::out + c;
        *mean += (own[k][0] - *mean) / norm.tracked[first + k], *var += (own[k][1] - *var) / norm.tracked[first + k];
      }
    }
  }

  void backward(const Weight* weight) const {
    for (int c = 0; c < Block<I>::out; c++)
      ghosts([&](int from, int to, int count, auto in) {
        v shift{}, scale{};
        for (int b = from; b < to; b++) {
          shift += select(in(b), maps(b).s1[c], v{});
          scale += select(in(b), maps(b).s2[c] * maps(b).rstd[c], v{});
        }
        v gamma = spread(weight[c]) / ((num)count * Block<I>::pixels);
        shift = sum_lanes(shift, group) * gamma, scale = sum_lanes(scale, group) * gamma;
        for (int b = from; b < to; b++) back(maps(b), c, shift, scale, in(b));
      });
  }
};
