// The network, forward and backward, for one block of images.
#pragma once
#include "convolution.h"
#include "images.h"
#include "job.h"

struct Task {
  const Job& job;
  const Weights& w;
  Memory& m;
  Scratch& s;
  Weight* grads;  // of this block's images, (P,)
  int first, block, group;  // the block's first network; which of its blocks this is; lanes of a network
  mask valid{}, place{};
  words dropped{};  // of 65,536 numbers, on average
  v scale{};        // of the others

  Task(const Job& job, const Weights& w, Memory& m, Scratch& s, Weight* grads, int unit, int block)
      : job(job), w(w), m(m), s(s), grads(grads), block(block), group(lanes_of(job)) {
    first = unit * (L / group);
    for (int l = 0; l < L; l++) {
      place[l] = image(l);
      valid[l] = network(l) < job.networks && image(l) < job.images ? -1 : 0;
      double rate = valid[l] && job.training ? job.rates[network(l)] : 0;
      dropped[l] = threshold(rate), scale[l] = 1 / (1 - rate);
    }
  }
  int network(int lane) const { return first + lane / group; }
  int image(int lane) const { return block * L + lane % group; }
  int64_t index(int lane) const { return network(lane) * job.images + image(lane); }
  template <int I> Maps<I>& maps() { return std::get<I>(m.maps); }

  ONCE void take_images() {
    constexpr int SIZE = CHANNELS * HEIGHT * WIDTH, PLANE = HEIGHT * WIDTH;
    for (int l = 0; l < L; l++) {
      if (!valid[l]) {
        for (int i = 0; i < SIZE; i++) m.x[i * L + l] = 0;
        continue;
      }
      num mean = job.mean[network(l)], sd = job.sd[network(l)];
      if (job.pixels) {
        const num* from = job.pixels + index(l) * SIZE;
        for (int i = 0; i < SIZE; i++) m.x[i * L + l] = (from[i] - mean) / sd;
        continue;
      }
      const uint8_t* from = job.pool + job.where[index(l)] * SIZE;
      for (int c = 0; c < CHANNELS; c++)
        if (job.turns) {
          Move move(job.turns + index(l) * 3, job.rotation, job.shift);
          moved(from + c * PLANE, move, m.x + c * PLANE * L + l);
        } else
          for (int i = 0; i < PLANE; i++) m.x[(c * PLANE + i) * L + l] = from[c * PLANE + i];
      for (int i = 0; i < SIZE; i++) m.x[i * L + l] = (m.x[i * L + l] / 255 - mean) / sd;
    }
  }

  // What block I gives, normalised and behind dropout.
  template <int I> bool drops() const { return job.training && job.norms[I].drops; }
  template <int I> ONCE const num* output() {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    const bool outside = job.norms[I].kind == OUTSIDE, plain = !job.pre && !drops<I>();
    const num* from = outside ? own.y : own.r;
    if (plain && (outside || job.norms[I].kind == NONE)) return from;
    num* to = s.maps;
    for (int c = 0; c < B::out; c++) {
      v a = outside ? v{} + 1 : own.a[c], h = own.h[c];
      if (plain)
        for (int i = 0; i < B::pixels; i++, from += L, to += L) store(to, a * load(from) + h);
      else
        for (int row = 0; row < B::ho; row++)
          for (int i = 0; i < B::wo; i++, from += L, to += L) {
            v y = a * load(from) + h;
            if (job.pre) y = relu(y);
            if (drops<I>()) y = select(is_kept(own.kept + (c * B::ho + row) * B::row_words, i), y * scale, v{});
            store(to, y);
          }
    }
    return s.maps;
  }

  // What block I reads.
  template <int I> const num* input() {
    if constexpr (I == 0) return m.x;
    else if constexpr (I == POOLED) return m.pooled;
    else return output<I - 1>();
  }

  template <int I> ONCE void forward() {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    const Norm& norm = job.norms[I];
    if constexpr (I == 0) take_images();
    if constexpr (I == POOLED) squeeze();
    v shift[B::out], sum[B::out] = {}, square[B::out] = {};
    auto done = [&](auto& tile, auto n, int c, int row, int column) {
      constexpr int T = decltype(n)::value;
      num* to = own.r + ((c * B::ho + row) * B::wo + column) * L;
      v s{}, q{};
      if (!job.pre) UNROLL for (int t = 0; t < T; t++) tile[t] = relu(tile[t]);
      if (row == 0 && column == 0) shift[c] = tile[0];  // sums of what lies near 0 lose no digits
      UNROLL for (int t = 0; t < T; t++) {
        v away = tile[t] - shift[c];
        s += away, q += away * away;
        store(to + t * L, tile[t]);
      }
      sum[c] += s, square[c] += q;
    };
    convolve<B::in, B::out, B::h, B::w>(input<I>(), std::get<I>(w.conv), done);
    for (int c = 0; c < B::out; c++) {
      v mean = sum[c] / (num)B::pixels, left = square[c] - sum[c] * mean;
      own.mean[c] = shift[c] + mean, own.square[c] = v{} > left ? v{} : left;
    }
    clear(own);
    if (norm.kind == IMAGE) image_forward(norm, own, w.weight[I], w.bias[I], valid);
    if (norm.kind == NONE || norm.kind == OUTSIDE)
      for (int c = 0; c < B::out; c++) own.a[c] = select(valid, v{} + 1, v{});
    if (norm.kind == BATCH && !job.training)
      for (int c = 0; c < B::out; c++) {
        v mean{}, var{};
        for (int l = 0; l < L; l++)
          if (valid[l]) mean[l] = norm.mean[network(l) * B::out + c], var[l] = norm.var[network(l) * B::out + c];
        set(own, c, mean, reciprocal_root(var + (num)norm.eps), spread(w.weight[I][c]), spread(w.bias[I][c]), valid);
      }
    if (drops<I>()) {
      Random random{};
      for (int l = 0; l < L; l++)
        if (valid[l]) random.seed(l, job.seeds[network(l)], job.step, I, image(l));
      draw_masks<I>(random, dropped, own.kept);
    }
  }

  // Where the k-th of four pixels that become one lies in the maps of block 2.
  static int pixel(int c, int row, int column, int k) {
    return ((c * Block<1>::ho + 2 * row + k / 2) * Block<1>::wo + 2 * column + k % 2) * L;
  }

  // 1x1 convolution of what block 2 gives, and 2x2 max-pooling as torch's: the first of equals; nan wins
  ONCE void squeeze() {
    constexpr int T = TILE<SQUEEZE>;
    const num* from = output<1>();
    const Weight* next = w.squeeze;
    for (int o = 0; o < SQUEEZE; o += T, next += T * BLOCK2)
      for (int row = 0; row < PH; row++)
        for (int column = 0; column < PW; column++) {
          v sum[T][4];
          UNROLL for (int t = 0; t < T; t++) UNROLL for (int k = 0; k < 4; k++) sum[t][k] = v{};
          for (int c = 0; c < BLOCK2; c++) {
            v x[4];
            UNROLL for (int k = 0; k < 4; k++) x[k] = load(from + pixel(c, row, column, k));
            UNROLL for (int t = 0; t < T; t++) {
              v weight = spread(next[c * T + t]);
              UNROLL for (int k = 0; k < 4; k++) sum[t][k] += weight * x[k];
            }
          }
          UNROLL for (int t = 0; t < T; t++) {
            v best = sum[t][0], winner{};
            UNROLL for (int k = 1; k < 4; k++) {
              mask more = (sum[t][k] > best) | (sum[t][k] != sum[t][k]);
              best = select(more, sum[t][k], best), winner = select(more, v{} + (num)k, winner);
            }
            int at = (((o + t) * PH + row) * PW + column) * L;
            store(m.pooled + at, best), store(m.winner + at, winner);
          }
        }
  }

  // From the gradient of what was pooled to that of what block 2 gives, both in `d`.
  ONCE void squeeze_back() {
    using B = Block<1>;
    constexpr int T = TILE<SQUEEZE>, TC = divisor(BLOCK2, 4), FULL = B::pixels;
    if (B::ho % 2 || B::wo % 2) memset(s.squeezed, 0, sizeof s.squeezed);  // what no pixel was pooled from
    for (int c = 0; c < SQUEEZE; c++)
      for (int row = 0; row < PH; row++)
        for (int column = 0; column < PW; column++) {
          int at = ((c * PH + row) * PW + column) * L;
          v d = load(m.d + at), winner = load(m.winner + at);
          UNROLL for (int k = 0; k < 4; k++)
            store(s.squeezed + pixel(c, row, column, k), select(winner == (num)k, d, v{}));
        }
    const num* from = output<1>();
    for (int o = 0; o < SQUEEZE; o += T)
      for (int c = 0; c < BLOCK2; c += TC) {
        v sum[T][TC];
        UNROLL for (int t = 0; t < T; t++) UNROLL for (int k = 0; k < TC; k++) sum[t][k] = v{};
        for (int i = 0; i < FULL; i++) {
          v x[TC];
          UNROLL for (int k = 0; k < TC; k++) x[k] = load(from + ((c + k) * FULL + i) * L);
          UNROLL for (int t = 0; t < T; t++) {
            v d = load(s.squeezed + ((o + t) * FULL + i) * L);
            UNROLL for (int k = 0; k < TC; k++) sum[t][k] += d * x[k];
          }
        }
        UNROLL for (int t = 0; t < T; t++) UNROLL for (int k = 0; k < TC; k++)
          keep(grads[job.squeeze + (o + t) * BLOCK2 + c + k], sum_lanes(sum[t][k], group));
      }
    for (int i = 0; i < FULL; i++) {
      v d[SQUEEZE];
      UNROLL for (int o = 0; o < SQUEEZE; o++) d[o] = load(s.squeezed + (o * FULL + i) * L);
      for (int c = 0; c < BLOCK2; c++) {
        v sum{};
        UNROLL for (int o = 0; o < SQUEEZE; o++) sum += spread(w.squeezed[c * SQUEEZE + o]) * d[o];
        store(m.d + (c * FULL + i) * L, sum);
      }
    }
  }

  // Average pool, 1x1 convolution, log-softmax; in training also the loss's gradient, down to what block 5 gives.
  ONCE void head() {
    using B = Block<4>;
    v mean[BLOCK5], z[CLASSES];
    const num* from = output<4>();
    for (int c = 0; c < BLOCK5; c++) {
      mean[c] = v{};
      for (int i = 0; i < B::pixels; i++, from += L) mean[c] += load(from);
      mean[c] /= (num)B::pixels;
    }
    for (int o = 0; o < CLASSES; o++) {
      z[o] = v{};
      for (int c = 0; c < BLOCK5; c++) z[o] += spread(w.head[o * BLOCK5 + c]) * mean[c];
    }
    for (int l = 0; l < L; l++) {
      if (!valid[l]) {
        for (int o = 0; o < CLASSES; o++) z[o][l] = 0;
        continue;
      }
      num top = z[0][l], sum = 0;
      for (int o = 1; o < CLASSES; o++) top = z[o][l] > top ? z[o][l] : top;
      for (int o = 0; o < CLASSES; o++) sum += std::exp(z[o][l] - top);
      num log_sum = std::log(sum);
      for (int o = 0; o < CLASSES; o++) {
        num log_prob = z[o][l] - top - log_sum;
        job.log_probs[index(l) * CLASSES + o] = log_prob;
        if (job.training) z[o][l] = (std::exp(log_prob) - (o == job.labels[index(l)])) * (num)job.share;
      }
    }
    if (!job.training) return;
    for (int c = 0; c < BLOCK5; c++) {
      v d{};
      for (int o = 0; o < CLASSES; o++) {
        d += spread(w.head[o * BLOCK5 + c]) * z[o];
        keep(grads[job.head + o * BLOCK5 + c], sum_lanes(z[o] * mean[c], group));
      }
      d = select(valid, d / (num)B::pixels, v{});
      for (int i = 0; i < B::pixels; i++) store(m.d + (c * B::pixels + i) * L, d);
    }
    sums<4>();
  }

  // Take the gradient in `d` through dropout (and ReLU, for placement=pre), and what the norm's gradient needs of it.
  template <int I> ONCE void sums() {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    const Norm& norm = job.norms[I];
    if (drops<I>() || job.pre)
      for (int c = 0; c < B::out; c++)
        for (int row = 0; row < B::ho; row++)
          for (int i = 0; i < B::wo; i++) {
            int at = (c * B::ho + row) * B::wo + i;
            v d = load(m.d + at * L);
            if (drops<I>()) d = select(is_kept(own.kept + (c * B::ho + row) * B::row_words, i), d * scale, v{});
            if (job.pre) {
              v y = norm.kind == OUTSIDE ? load(own.y + at * L) : own.a[c] * load(own.r + at * L) + own.h[c];
              d = select(y <= v{}, v{}, d);
            }
            store(m.d + at * L, d);
          }
    if (norm.kind != IMAGE && norm.kind != BATCH) return;
    for (int c = 0; c < B::out; c++) {
      const num *r = own.r + c * B::pixels * L, *d = m.d + c * B::pixels * L;
      v s1[4] = {}, s2[4] = {};  // several chains of additions at once
      auto add = [&](int k, int i) {
        v grad = load(d + i * L);
        s1[k] += grad, s2[k] += grad * (load(r + i * L) - own.mean[c]);
      };
      int i = 0;
      for (; i + 4 <= B::pixels; i += 4) UNROLL for (int k = 0; k < 4; k++) add(k, i + k);
      for (; i < B::pixels; i++) add(0, i);
      own.s1[c] = select(valid, s1[0] + s1[1] + (s1[2] + s1[3]), v{});
      own.s2[c] = select(valid, s2[0] + s2[1] + (s2[2] + s2[3]), v{});
      if (norm.weight >= 0) keep(grads[norm.weight + c], sum_lanes(own.s2[c] * own.rstd[c], group));
      if (norm.bias >= 0) keep(grads[norm.bias + c], sum_lanes(own.s1[c], group));
    }
    if (norm.kind == IMAGE) image_backward(norm, own, w.weight[I], valid);
  }

  // From the gradient of block I's output to those of its weights and of its input, by way of the norm and ReLU.
  template <int I> ONCE void backward() {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    num* padded = std::get<I>(s.padded).d;
    for (int c = 0; c < B::out; c++)
      for (int row = 0; row < B::ho; row++) {
        int at = (c * B::ho + row) * B::wo * L;
        num* to = padded + ((c * B::hp + row + B::pad) * B::wp + B::pad) * L;
        for (int i = 0; i < B::wo; i++) {
          v r = load(own.r + at + i * L);
          v d = own.a[c] * load(m.d + at + i * L) + own.k2[c] * r + own.k3[c];
          store(to + i * L, job.pre ? d : select(r <= v{}, v{}, d));
        }
      }
    weight_gradient<B::in, B::out, B::h, B::w, B::pad>(input<I>(), padded, grads + job.conv[I], group);
    if constexpr (I > 0) {
      auto done = [&](auto& tile, auto n, int c, int row, int column) {
        num* to = m.d + ((c * B::h + row) * B::w + column) * L;
        UNROLL for (int t = 0; t < decltype(n)::value; t++) store(to + t * L, tile[t]);
      };
      convolve<B::out, B::in, B::hp, B::wp>(padded, std::get<I>(w.back), done);
      if constexpr (I == POOLED) squeeze_back();
      sums<I - 1>();
    }
  }
};
