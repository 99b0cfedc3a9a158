"""How the fit and the lead with unlimited data move with the width of the asymptotic prior: the table of model.md.

python docs/explanation/asymptotic_width.py
"""

import numpy as np

import bayesdistill as bd
from bayesdistill.criticism.predictions import expected_losses, flat_draws
from bayesdistill.laws import asymptotic_advantage

runs = bd.load_runs("busbridge2025")
print(
    "| asymptotic_width | rms of the 354 residuals [nats] | mean lead with unlimited data, 300M, 1B, 3B, 10B [nats] |"
)
print("| --- | --- | --- |")
for width in (None, 0.01, 0.005, 0.003):
    fit = bd.fit(runs, seed=0, asymptotic_width=width, progress=False)
    draws = flat_draws(fit["posterior"].to_dataset())
    residual = runs["student_loss"].to_numpy() - expected_losses(draws, runs).mean(axis=0)
    names = ("E", "A", "alpha", "gamma", "A_S", "alpha_S", "gamma_S", "c0", "c1", "d1", "f1")
    lead = asymptotic_advantage(np.array([3e8, 1e9, 3e9, 1e10]), **{name: draws[name][:, None] for name in names})
    words = ", ".join(f"{value:.3f}" for value in lead.mean(axis=0))
    print(f"| {'none' if width is None else width} | {np.sqrt(np.mean(residual**2)):.4f} | {words} |", flush=True)
