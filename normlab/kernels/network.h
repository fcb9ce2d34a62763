// The network, forward and backward, for one block of images.
#pragma once
#include "convolution.h"
#include "images.h"
#include "job.h"

// Of the gradient of what a block gives, per channel and lane; see `Maps`.
struct Sums {
  v s1[WIDEST], s2[WIDEST];
};

// In every channel of a band, the last two rows become the first.
static inline void move_up(num* band, int channels, int plane, int row) {
  for (int c = 0; c < channels; c++) memcpy(band + c * plane, band + c * plane + BAND * row, 2 * row * sizeof(num));
}

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
  template <int I> Maps<I>& maps() { return m.maps.of<I>(); }

  ONCE void take_images() {
    constexpr int PLANE = HEIGHT * WIDTH, SIZE = CHANNELS * PLANE;
    v mean{}, sd = v{} + 1;
    Moves moves{};
    for (int l = 0; l < L; l++)
      if (valid[l]) {
        mean[l] = job.mean[network(l)], sd[l] = job.sd[network(l)];
        if (job.turns) moves.set(l, job.turns + index(l) * 3, job.rotation, job.shift);
      }
    for (int c = 0; c < CHANNELS; c++) {
      num* to = m.x + c * PLANE * L;
      if (job.pixels)
        for (int i = 0; i < PLANE; i++) {
          v x{};
          for (int l = 0; l < L; l++)
            if (valid[l]) x[l] = job.pixels[index(l) * SIZE + c * PLANE + i];
          store(to + i * L, select(valid, (x - mean) / sd, v{}));
        }
      else {
        const uint8_t* from[L];
        for (int l = 0; l < L; l++) from[l] = valid[l] ? job.pool + job.where[index(l)] * SIZE + c * PLANE : nullptr;
        gathered(from, job.turns ? &moves : nullptr, [&](int i, floats x) {
          store(to + i * L, select(valid, (__builtin_convertvector(x, v) / 255 - mean) / sd, v{}));
        });
      }
    }
  }

  template <int I> bool drops() const { return job.training && job.norms[I].drops; }

  // A row of what block I gives, normalised and behind dropout, in channels `plane` numbers apart.
  template <int I> void give(int row, num* to, int plane) {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    const num* from = (job.norms[I].kind == OUTSIDE ? own.y : own.r) + row * B::wo * L;
    const bool plain = !job.pre && !drops<I>();
    for (int c = 0; c < B::out; c++, from += B::pixels * L, to += plane) {
      v a = own.a[c], h = own.h[c];
      if (plain)
        for (int i = 0; i < B::wo; i++) store(to + i * L, a * load(from + i * L) + h);
      else
        for (int i = 0; i < B::wo; i++) {
          v y = a * load(from + i * L) + h;
          if (job.pre) y = relu(y);
          if (drops<I>()) y = select(is_kept(own.kept + (c * B::ho + row) * B::row_words, i), y * scale, v{});
          store(to + i * L, y);
        }
    }
  }

  // What block I reads, from row y on, for BAND rows of its output. Bands are asked for in their order.
  template <int I> static constexpr bool read_as_it_is = I == 0 || I == POOLED;
  template <int I> static constexpr int plane = (read_as_it_is<I> ? Block<I>::h : BAND + 2) * Block<I>::w * L;
  template <int I> const num* rows(int y) {
    using B = Block<I>;
    constexpr int row = B::w * L;
    if constexpr (I == 0) return m.x + y * row;
    else if constexpr (I == POOLED) return m.pooled + y * row;
    else {
      num* band = s.input;
      if (y) move_up(band, B::in, plane<I>, row);
      for (int j = y ? 2 : 0; j < BAND + 2 && y + j < B::h; j++) give<I - 1>(y + j, band + j * row, plane<I>);
      return band;
    }
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
    for (int y = 0; y < B::ho; y += BAND)
      convolve<B::in, B::out, B::w, plane<I>>(rows<I>(y), least(BAND, B::ho - y), y, w.conv.of<I>().w, done);
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

  // Two rows of what block 2 gives, (BLOCK2, 2, width).
  static constexpr int PAIR = 2 * Block<1>::wo * L;
  const num* pair(int row) {
    for (int j = 0; j < 2; j++) give<1>(2 * row + j, s.input + j * PAIR / 2, PAIR);
    return s.input;
  }
  // Where the k-th of four pixels that become one lies in them.
  static int pixel(int c, int column, int k) { return c * PAIR + k / 2 * PAIR / 2 + (2 * column + k % 2) * L; }

  // 1x1 convolution of what block 2 gives, and 2x2 max-pooling as torch's: the first of equals; nan wins
  ONCE void squeeze() {
    constexpr int T = TILE<SQUEEZE>;
    for (int row = PH - 1; row >= 0; row--) {  // the last rows are those that the caches still hold
      const num* from = pair(row);
      for (int column = 0; column < PW; column++) {
        const Weight* next = w.squeeze;
        for (int o = 0; o < SQUEEZE; o += T, next += T * BLOCK2) {
          v sum[T][4];
          UNROLL for (int t = 0; t < T; t++) UNROLL for (int k = 0; k < 4; k++) sum[t][k] = v{};
          for (int c = 0; c < BLOCK2; c++) {
            v x[4];
            UNROLL for (int k = 0; k < 4; k++) x[k] = load(from + pixel(c, column, k));
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
    }
  }

  // A row of the gradient of what block 2 gives, from that of what was pooled: calls f(tile, n, c, column). It is
  // computed wherever it is needed, which takes less time than to fetch it from memory.
  template <class F> void unpool(int row, F f) {
    constexpr int W = Block<1>::wo, T = TILE<BLOCK2>;
    for (int o = 0; o < SQUEEZE; o++)
      for (int column = 0; column < W; column++) {
        int at = ((o * PH + row / 2) * PW + column / 2) * L;
        bool inside = row < 2 * PH && column < 2 * PW;  // in maps of odd size nothing was pooled from the last ones
        num k = row % 2 * 2 + column % 2;
        store(s.squeezed + (o * W + column) * L, inside ? select(load(m.winner + at) == k, load(m.d_pooled + at), v{}) : v{});
      }
    tiles<W, tile_pixels(T, W)>([&](auto n, int column) {
      constexpr int N = decltype(n)::value;
      for (int c = 0; c < BLOCK2; c += T) {
        v sum[T][N];
        UNROLL for (int t = 0; t < T; t++) UNROLL for (int i = 0; i < N; i++) sum[t][i] = v{};
        for (int o = 0; o < SQUEEZE; o++)
          UNROLL for (int t = 0; t < T; t++) {
            v weight = spread(w.squeezed[o * BLOCK2 + c + t]);
            UNROLL for (int i = 0; i < N; i++) sum[t][i] += weight * load(s.squeezed + (o * W + column + i) * L);
          }
        v tile[T][N];
        UNROLL for (int t = 0; t < T; t++) UNROLL for (int i = 0; i < N; i++) tile[t][i] = sum[t][i];
        for (int t = 0; t < T; t++) f(tile[t], n, c + t, column);
      }
    });
  }

  // From the gradient of what was pooled to those of the 1x1 convolution's weights and of block 2's norm.
  ONCE void squeeze_back(Sums& sums) {
    using B = Block<1>;
    constexpr int T = TILE<SQUEEZE>, TC = divisor(BLOCK2, 4), W = B::wo * L;
    v total[SQUEEZE * BLOCK2] = {};
    for (int row = B::ho - 1; row >= 0; row--) {  // the first rows come last, as they are needed next
      give<1>(row, s.input, W);
      unpool(row, [&](v* tile, auto n, int c, int column) { arrive<1>(tile, n, c, row, column, sums); });
      for (int o = 0; o < SQUEEZE; o += T)
        for (int c = 0; c < BLOCK2; c += TC) {
          v sum[T][TC];
          UNROLL for (int t = 0; t < T; t++) UNROLL for (int k = 0; k < TC; k++) sum[t][k] = total[(o + t) * BLOCK2 + c + k];
          for (int i = 0; i < W; i += L) {
            v x[TC];
            UNROLL for (int k = 0; k < TC; k++) x[k] = load(s.input + (c + k) * W + i);
            UNROLL for (int t = 0; t < T; t++) {
              v d = load(s.squeezed + (o + t) * W + i);
              UNROLL for (int k = 0; k < TC; k++) sum[t][k] += d * x[k];
            }
          }
          UNROLL for (int t = 0; t < T; t++) UNROLL for (int k = 0; k < TC; k++) total[(o + t) * BLOCK2 + c + k] = sum[t][k];
        }
    }
    for (int i = 0; i < SQUEEZE * BLOCK2; i++) keep(grads[job.squeeze + i], sum_lanes(total[i], group));
  }

  // Average pool, 1x1 convolution, log-softmax; in training also the loss's gradient, down to what block 5 gives.
  ONCE void head() {
    using B = Block<4>;
    v mean[BLOCK5] = {}, z[CLASSES];
    for (int row = 0; row < B::ho; row++) {
      give<4>(row, s.input, B::wo * L);
      for (int c = 0; c < BLOCK5; c++)
        for (int i = 0; i < B::wo; i++) mean[c] += load(s.input + (c * B::wo + i) * L);
    }
    for (int c = 0; c < BLOCK5; c++) mean[c] /= (num)B::pixels;
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
      for (int o = 0; o < CLASSES; o++) sum += power(z[o][l] - top);
      num log_sum = logarithm(sum);
      for (int o = 0; o < CLASSES; o++) {
        num log_prob = z[o][l] - top - log_sum;
        job.log_probs[index(l) * CLASSES + o] = log_prob;
        if (job.training) z[o][l] = (power(log_prob) - (o == job.labels[index(l)])) * (num)job.share;
      }
    }
    if (!job.training) return;
    Sums sums{};
    for (int c = 0; c < BLOCK5; c++) {
      v d{};
      for (int o = 0; o < CLASSES; o++) {
        d += spread(w.head[o * BLOCK5 + c]) * z[o];
        keep(grads[job.head + o * BLOCK5 + c], sum_lanes(z[o] * mean[c], group));
      }
      d = select(valid, d / (num)B::pixels, v{});
      for (int row = 0; row < B::ho; row++)
        for (int i = 0; i < B::wo; i++) {
          v tile[1] = {d};
          arrive<4>(tile, size<1>{}, c, row, i, sums);
        }
    }
    arrived<4>(sums);
  }

  // The gradient of what block I gives; of block 2 only where torch computes the norm, see `unpool`.
  template <int I> num* gradient() { return I % 2 ? m.odd : m.even; }
  template <int I> bool is_kept_in_memory() const { return I + 1 != POOLED || job.norms[I].kind == OUTSIDE; }

  // A pixel of it, by way of dropout, and of ReLU for placement=pre. r: what the norm read.
  template <int I> v through_dropout(v d, v r, int c, int row, int column) {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    if (drops<I>()) d = select(is_kept(own.kept + (c * B::ho + row) * B::row_words, column), d * scale, v{});
    if (!job.pre) return d;
    if (job.norms[I].kind == OUTSIDE) r = load(own.y + ((c * B::ho + row) * B::wo + column) * L);
    return select(own.a[c] * r + own.h[c] <= v{}, v{}, d);
  }

  // Take some pixels of it, and add to what the norm's gradient needs.
  template <int I, class N> void arrive(v* tile, N, int c, int row, int column, Sums& sums) {
    using B = Block<I>;
    Maps<I>& own = maps<I>();
    const int at = ((c * B::ho + row) * B::wo + column) * L;
    v s1{}, s2{};
    UNROLL for (int t = 0; t < N::value; t++) {
      v r = load(own.r + at + t * L), d = through_dropout<I>(tile[t], r, c, row, column + t);
      if (is_kept_in_memory<I>()) store(gradient<I>() + at + t * L, d);
      s1 += d, s2 += d * (r - own.mean[c]);
    }
    sums.s1[c] += s1, sums.s2[c] += s2;
  }
  // The whole gradient has arrived.
  template <int I> void arrived(const Sums& sums) {
    Maps<I>& own = maps<I>();
    const Norm& norm = job.norms[I];
    if (norm.kind != IMAGE && norm.kind != BATCH) return;
    for (int c = 0; c < Block<I>::out; c++) {
      own.s1[c] = select(valid, sums.s1[c], v{}), own.s2[c] = select(valid, sums.s2[c], v{});
      if (norm.weight >= 0) keep(grads[norm.weight + c], sum_lanes(own.s2[c] * own.rstd[c], group));
      if (norm.bias >= 0) keep(grads[norm.bias + c], sum_lanes(own.s1[c], group));
    }
    if (norm.kind == IMAGE) image_backward(norm, own, w.weight[I], valid);
  }

  // A row of the gradient of block I's convolution: that of what the block gives, by way of the norm and ReLU.
  template <int I> void behind_relu(int row, num* to) {
    using B = Block<I>;
    constexpr int plane = Scratch::Padded<I>::plane;
    Maps<I>& own = maps<I>();
    auto pixel = [&](v d, v r, int c, int i) {
      v grad = own.a[c] * d + own.k2[c] * r + own.k3[c];
      store(to + c * plane + i * L, job.pre ? grad : select(r <= v{}, v{}, grad));
    };
    if constexpr (I + 1 == POOLED)
      if (!is_kept_in_memory<I>())
        return unpool(row, [&](v* tile, auto n, int c, int column) {
          UNROLL for (int t = 0; t < decltype(n)::value; t++) {
            v r = load(own.r + ((c * B::ho + row) * B::wo + column + t) * L);
            pixel(through_dropout<I>(tile[t], r, c, row, column + t), r, c, column + t);
          }
        });
    for (int c = 0; c < B::out; c++) {
      const int at = (c * B::ho + row) * B::wo * L;
      for (int i = 0; i < B::wo; i++) pixel(load(gradient<I>() + at + i * L), load(own.r + at + i * L), c, i);
    }
  }

  // From the gradient of block I's output to those of its weights and of its input.
  template <int I> ONCE void backward() {
    using B = Block<I>;
    constexpr int plane_d = Scratch::Padded<I>::plane, row_d = B::wp * L, border = B::pad * (row_d + L);
    num* padded = s.padded.of<I>().d;
    memset(s.sums, 0, B::out * B::in * 9 * sizeof(v));
    Sums sums{};
    auto done = [&](auto& tile, auto n, int c, int row, int column) {
      if constexpr (I == POOLED) {
        num* to = m.d_pooled + ((c * B::h + row) * B::w + column) * L;
        UNROLL for (int t = 0; t < decltype(n)::value; t++) store(to + t * L, tile[t]);
      } else if constexpr (I > 0) arrive<I - 1>(tile, n, c, row, column, sums);
    };
    constexpr int LAST_BAND = (B::ho + B::pad - 1) / BAND * BAND;
    for (int low = 0; low <= LAST_BAND; low += BAND) {
      const int y = I ? low : LAST_BAND - low;  // of block 1, the last rows are those that the caches still hold
      if (B::pad && y) move_up(padded, B::out, plane_d, row_d);
      for (int c = 0; c < B::out && B::pad && !y; c++) memset(padded + c * plane_d, 0, 2 * row_d * sizeof(num));
      for (int j = 0; j < BAND; j++)
        if (y + j < B::ho) behind_relu<I>(y + j, padded + border + j * row_d);
        else if (B::pad)
          for (int c = 0; c < B::out; c++) memset(padded + c * plane_d + (j + 2) * row_d, 0, row_d * sizeof(num));
      if (y < B::ho)
        weight_gradient<B::in, B::out, B::w, plane<I>, B::wp, plane_d>(rows<I>(y), padded + border, least(BAND, B::ho - y),
                                                                        s.sums);
      if constexpr (I > 0)
        convolve<B::out, B::in, B::wp, plane_d>(padded, least(BAND, B::h - y), y, w.back.of<I>().w, done);
    }
    for (int o = 0; o < B::out; o++)
      for (int k = 0; k < 9; k++)
        for (int i = 0; i < B::in; i++)
          keep(grads[job.conv[I] + (o * 9 + k) * B::in + i], sum_lanes(s.sums[(o * B::in + i) * 9 + k], group));
    if constexpr (I == POOLED) squeeze_back(sums);
    if constexpr (I > 0) arrived<I - 1>(sums);
  }
};
