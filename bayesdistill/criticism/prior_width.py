"""How much narrower than the prior the posterior is: computed beside the other summaries of a fit, because plans carry it."""

from bayesdistill.posterior import PRIOR_SHARE, prior_dominated

__all__ = ["PRIOR_SHARE", "prior_dominated"]
