"""The replication's tables once more, from its files by numpy, pandas and scipy alone: at most 60 lines."""

import json
from pathlib import Path
from types import SimpleNamespace as Model

import numpy as np
import pandas as pd
from scipy import optimize, special, stats


def read(folder: Path) -> pd.DataFrame:
    rows = list[dict[str, object]]()
    for file in folder.glob("*/result.json"):
        record, arrays = json.loads(file.read_text()), np.load(file.with_name("predictions.npz"))
        falls = -pd.read_csv(file.with_name("metrics.csv"))["test_acc"].diff().clip(upper=0).sum()
        name = record["setting"]["norm"] + (f" l1={record['setting']['l1']:g}" if record["setting"]["l1"] else "")
        right = {"right": 1.0 * (arrays["pred"] == arrays["true"]), "setting": name, "unevenness": falls}
        rows.append(record["metrics"] | right)
    return pd.DataFrame(rows)


def model(runs: pd.DataFrame, outcome: str, link: str) -> Model:
    """Means by setting; moderated variances of runs (s, on the link's scale) with df; covariance of means by images."""
    by, right = runs.groupby("setting")[outcome], runs.groupby("setting")["right"].apply(np.stack)
    m = Model(mean=by.mean(), n=by.size().iloc[0], size=right.iloc[0].shape[1], slope=1, there=np.array, back=np.array)
    if link != "identity":
        m.there, m.back = (special.logit, special.expit) if link == "logit" else (np.log, np.exp)
        m.slope = m.mean * (1 - m.mean) if link == "logit" else m.mean
    d, s = m.n - 1, np.maximum(by.var(), 1e-8 / 12) / m.slope**2
    z, m.total = np.log(s) - special.digamma(d / 2) + np.log(d / 2), d * len(s)
    extra, m.s, m.df = z.var() - special.polygamma(1, d / 2), 0 * s + s.mean(), m.total * d / (d + 2)
    if extra > 0:
        prior = 2 * optimize.brentq(lambda x: special.polygamma(1, x) - extra, 1e-3, 1e6)
        common = np.exp(z.mean() + special.digamma(prior / 2) - np.log(prior / 2))
        m.s, m.df = (prior * common + d * s) / (prior + d), min(prior + d, m.total) * d / (d + 2)
    rest = [((x - x.mean(0) - x.mean(1)[:, None] + x.mean()) ** 2).sum() / (d * (m.size - 1)) for x in right]
    images = np.cov(np.stack([x.mean(0) for x in right])) / m.size - np.diag(rest) / (m.n * m.size)
    m.images, m.parts = images * (outcome == "test_acc"), m.s * m.slope**2 / m.n
    return m


def contrast(wanted: dict[str, float], m: Model) -> Model:  # narrow_…: for these images; t: a function of a value
    c = pd.Series(wanted).reindex(m.mean.index).fillna(0)
    seeds, of_images, weight = c**2 @ m.parts, max(0.0, c @ m.images @ c), m.parts + np.maximum(0, np.diag(m.images))
    df_seeds = min(seeds**2 / (c**4 @ (m.parts**2 / m.df)), m.total)
    se, df = np.sqrt(seeds + of_images), (seeds + of_images) ** 2 / (seeds**2 / df_seeds + of_images**2 / (m.size - 1))
    move = c * weight / m.slope / ((c * m.slope) @ (c * weight / m.slope))
    moved = lambda by: c @ m.back(m.there(m.mean) + by * move)  # noqa: E731
    far, near = stats.t.ppf(0.975, df) * se, stats.t.ppf(0.975, df_seeds) * np.sqrt(seeds)
    ends = {"low": moved(-far), "high": moved(far), "narrow_low": moved(-near), "narrow_high": moved(near)}
    t = lambda at: -optimize.brentq(lambda by: moved(by) - at, -999 * se, 999 * se, xtol=1e-15) / se  # noqa: E731
    return Model(value=c @ m.mean, se=se, df=df, **ends, t=t)


def joint(wanted: list[dict[str, float]], m: Model) -> float:  # F, whose degrees are len(wanted) and m.df
    c = pd.DataFrame(wanted)[[*m.mean.index]].fillna(0).to_numpy()
    (values, vectors), d = np.linalg.eigh(m.images), c @ m.mean
    v = np.diag(m.parts) + (vectors * np.maximum(0, values)) @ vectors.T
    return float(d @ np.linalg.solve(c @ v @ c.T, d) / len(c))
